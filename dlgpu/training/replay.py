"""Steps that are replayed: run once as written, recorded on the second run, tried on the third, then only replayed."""

import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from dlgpu.backend.recorder import Memory, NotReplayable, Recording
from dlgpu.backend.traced import traced
from dlgpu.data import Batch, Rows, map_structure
from dlgpu.tensor import wrap

CONSTANT = (int, float, bool, str, type(None))


class Replays:
    """The recordings of a step, one for each layout of a batch (and phase of the optimizer).

    A replay does what the recorded step did, on the same memory; no layer's Python runs. What cannot be replayed, or
    gives other bits on its trial, runs as written.
    """

    def __init__(self) -> None:
        self.eager = False
        self._settings: list = []
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._known: dict[Any, Any] = {}  # layout -> 1 after it came once, then a Replay, or None if it cannot be one
        self._memory = Memory()

    def begin(self, settings: list) -> None:
        """Forget the recordings if the settings differ from those with which they were made."""
        if settings != self._settings:
            self._settings = settings
            self.forget()

    def run(self, step: Any, batch: Batch | Rows) -> None:
        """Step.run on a batch."""
        layout = batch.layout, step.optimizer.phase(ahead=1)
        found = None if self.eager else self._known.get(layout, 0)
        if type(found) is Replay:
            if found.tried:
                step.prepare()
                found.run(batch)
            elif not found.trial(step, batch):
                self._known[layout] = None
        elif found == 1 and step.device.on_host:
            self._known[layout] = Replay.recorded(step, batch, self._memory)
        else:
            if found == 0:
                self._known[layout] = 1
            step.run(*step.place(batch), batch.samples, step.prepare)


class Replay:
    """One recorded step.

    Args:
        recording: of Step.run.
        inputs: the arrays from which it reads a batch: those of x, of y and of the sample weights.
    """

    def __init__(self, recording: Recording, inputs: list):
        self.recording = recording
        self.inputs = inputs
        self.tried = False

    @classmethod
    def recorded(cls, step: Any, batch: Batch | Rows, memory: Memory) -> "Replay | None":
        """Run a step and record it; None if it cannot be replayed."""
        recording = Recording(memory)
        inputs: list = []
        prepared = False

        def fixed(tensor: Any) -> Any:
            inputs.append(np.array(tensor.array))
            return wrap(traced(inputs[-1]))

        def prepare() -> None:
            nonlocal prepared
            with recording.paused():
                step.prepare()
            prepared = True

        placed, before = step.place(batch), Snapshot(step)
        try:
            with _noted(step), recording.active():
                step.run(*(map_structure(fixed, part) for part in placed), batch.samples, prepare)
        except NotReplayable:
            before.restore()
            step.run(*placed, batch.samples, (lambda: None) if prepared else step.prepare)
            return None
        return cls(recording, inputs)

    def trial(self, step: Any, batch: Batch | Rows) -> bool:
        """Replay a step, take that back and run it as written; whether both gave the same bits."""
        placed = step.place(batch)
        step.prepare()
        before = Snapshot(step, self.recording.sources)
        self.run(batch)
        replayed = before.digests()
        before.restore()
        step.run(*placed, batch.samples, lambda: None)
        self.tried = before.digests() == replayed
        return self.tried

    def run(self, batch: Batch | Rows) -> None:
        """The recorded step, on another batch."""
        batch.copy_to(self.inputs)
        self.recording.replay()


def settings_of(objects: Iterable) -> list:
    """What a recording takes for constant: numbers, names and switches in the attributes of layers and optimizer."""
    return [
        (id(o), *((k, v) for k, v in vars(o).items() if isinstance(v, CONSTANT) and k not in VARYING)) for o in objects
    ]


VARYING = {"built", "_applied", "_rate", "_learning_rate"}  # no recording depends on these


@contextmanager
def _noted(step: Any) -> Iterator[None]:
    """Inside the `with`, computations on what the step holds are noted."""
    held = [(holder, name, _get(holder, name)) for holder, name in step.holders()]
    try:
        for holder, name, array in held:
            _set(holder, name, traced(array))
        yield
    finally:
        for holder, name, array in held:
            _set(holder, name, array)


def _get(holder: Any, name: str) -> Any:
    return holder[name] if isinstance(holder, dict) else getattr(holder, name)


def _set(holder: Any, name: str, array: Any) -> None:
    if isinstance(holder, dict):
        holder[name] = array
    else:
        setattr(holder, name, array)


class Snapshot:
    """Copies of all arrays that a step changes, and the states of random generators."""

    def __init__(self, step: Any, sources: Iterable = ()):
        arrays = {id(a): a for a in (_get(*held) for held in step.holders())}
        self._arrays = [(a, a.copy()) for a in arrays.values()]
        self._sources = [(s, s.state) for s in sources]

    def restore(self) -> None:
        """Put the values back."""
        for array, copy in self._arrays:
            array[...] = copy
        for source, state in self._sources:
            source.state = state

    def digests(self) -> list:
        """What tells the present values of these arrays and sources from others."""
        return [zlib.crc32(a) for a, _ in self._arrays] + [s.state for s, _ in self._sources]
