"""Steps that are replayed: run once as written, recorded on the second run, tried on the third, then only replayed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from dlgpu.backend.recorder import Memory, NotReplayable, Recording, traced
from dlgpu.data import Batch, leaves, map_structure
from dlgpu.tensor import Tensor, wrap


class Replays:
    """The recordings of a step's gradients, one for each shape of batch.

    A replay does what the recorded step did, on the same memory: no layer's Python runs. What cannot be replayed, or
    gives other bits on its trial, runs as written.
    """

    def __init__(self) -> None:
        self.eager = False
        self._settings: Any = None
        self._known: dict[
            Any, Any
        ] = {}  # layout of a batch -> how often it came, a Replay, or None if it cannot be one
        self._memory = Memory()

    def begin(self, settings: Any) -> None:
        """Forget the recordings if anything but values has changed since."""
        if settings != self._settings:
            self._settings, self._known, self._memory = settings, {}, Memory()

    def run(self, step: Any, batch: Batch) -> None:
        """Step.gradients on a batch."""
        layout = batch.layout
        found = self._known.get(layout, 0)
        if type(found) is Replay and not self.eager:
            if found.tried:
                found.run(batch)
            elif not found.trial(step, batch):
                self._known[layout] = None
            return
        if found == 1 and not self.eager and step.device.on_host:
            self._known[layout] = Replay.recorded(step, batch, self._memory)
            return
        if found == 0:
            self._known[layout] = 1
        step.gradients(*step.place(batch), batch.samples)


class Replay:
    """One recorded step.

    Args:
        recording: of Step.gradients.
        inputs: the arrays from which it reads a batch: leaves of x, of y and of the sample weights.
    """

    def __init__(self, recording: Recording, inputs: list):
        self.recording = recording
        self.inputs = inputs
        self.tried = False

    @classmethod
    def recorded(cls, step: Any, batch: Batch, memory: Memory) -> "Replay | None":
        """Run a step and record it; None if it cannot be replayed."""
        recording = Recording(memory)
        inputs: list = []

        def fixed(tensor: Any) -> Any:
            if tensor is None:
                return None
            inputs.append(np.array(tensor.array))
            return wrap(traced(inputs[-1]))

        x, y, weights = step.place(batch)
        placed = (
            map_structure(fixed, x),
            [map_structure(fixed, t) for t in y],
            [map_structure(fixed, t) for t in weights],
        )
        before = Snapshot(step, ())
        try:
            with _noted(step), recording.active():
                step.gradients(*placed, batch.samples)
        except NotReplayable:
            before.restore()
            step.gradients(x, y, weights, batch.samples)
            return None
        return cls(recording, inputs)

    def trial(self, step: Any, batch: Batch) -> bool:
        """Run a step as it is written and replayed; whether both gave the same bits."""
        before = Snapshot(step, self.recording.sources)
        step.gradients(*step.place(batch), batch.samples)
        written = Snapshot(step, self.recording.sources)
        before.restore()
        self.run(batch)
        self.tried = Snapshot(step, self.recording.sources).same_as(written)
        if not self.tried:
            written.restore()
        return self.tried

    def run(self, batch: Batch) -> None:
        """The recorded step, on another batch."""
        batch.copy_to(self.inputs)
        self.recording.replay()


def settings_of(model: Any) -> list:
    """What a recording takes for constant: the numbers, names and switches in the layers' attributes."""
    simple = (int, float, bool, str, type(None))
    return [
        (id(layer), *((k, v) for k, v in vars(layer).items() if isinstance(v, simple) and k != "built"))
        for layer in model._with_inner()
    ]


@contextmanager
def _noted(step: Any) -> Iterator[None]:
    """Inside the `with`, computations on the model's weights and the sums are noted."""
    tensors = [*step.model.weights, *(v for m in step.objective.metrics for v in m.variables)]
    arrays = [t.array for t in tensors]
    loss_sum = step.objective.loss_sum
    try:
        for t in tensors:
            t.array = traced(t.array)
        step.objective.loss_sum = traced(loss_sum)
        yield
    finally:
        for t, array in zip(tensors, arrays):
            t.array = array
        step.objective.loss_sum = loss_sum


class Snapshot:
    """Copies of all that Step.gradients changes."""

    def __init__(self, step: Any, sources: Any):
        arrays = [step.objective.loss_sum, *(t.array for t in step.state()), *(f.gradients for f in step.flats)]
        self._arrays = [(a, a.copy()) for a in arrays]
        self._sources = [(s, s.state) for s in sources]

    def restore(self) -> None:
        """Put the values back."""
        for array, copy in self._arrays:
            array[...] = copy
        for source, state in self._sources:
            source.state = state

    def same_as(self, other: "Snapshot") -> bool:
        """Whether all bits are the same."""
        return all(a.tobytes() == b.tobytes() for (_, a), (_, b) in zip(self._arrays, other._arrays)) and (
            self._sources == other._sources
        )
