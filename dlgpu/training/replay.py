"""Steps that are replayed: run once as written, recorded on the second run, tried on the third, then only replayed."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from dlgpu.backend.recorder import Memory, Recording
from dlgpu.backend.traced import traced
from dlgpu.data import Batch, Rows, leaves, map_structure
from dlgpu.tensor import wrap

PIECE = 1 << 18  # bytes
CONSTANT = (int, float, bool, str)


class Replays:
    """The recordings of a step, one for each layout of a batch (and phase of the optimizer).

    A replay does what the recorded step did, on the same memory; no layer's Python runs. What cannot be replayed, or
    gives other bits on its trial, runs as written.
    """

    def __init__(self) -> None:
        self.eager = False
        self._settings = Settings()
        self.forget()

    def __deepcopy__(self, memo: dict) -> "Replays":
        """A copy of a model records its own steps, on its own memory."""
        made = Replays()
        made.eager = self.eager
        return made

    def forget(self) -> None:
        """Begin anew."""
        self._known: dict[Any, Any] = {}  # layout -> 1 after it came once, then a Replay, or None if it cannot be one
        self._memory = Memory()

    def begin(self, settings: "Settings") -> None:
        """Forget the recordings if the settings differ from those with which they were made."""
        if not settings.same_as(self._settings):
            self._settings = settings
            self.forget()

    def run(self, step: Any, batch: Batch | Rows) -> None:
        """Step.run on a batch."""
        layout = batch.layout, step.optimizer.phase(ahead=1)
        found = None if self.eager else self._known.get(layout, 0)
        if type(found) is Replay:
            if not found.run(step, batch):
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
        # Inputs that have had no other values yet, and their digest: what the recording missed of them does not show.
        self.constant = {place: digest(array) for place, array in enumerate(inputs)}

    @classmethod
    def recorded(cls, step: Any, batch: Batch | Rows, memory: Memory) -> "Replay | None":
        """Run a step and record it; None if it cannot be replayed."""
        placed = tuple(map_structure(lambda t: wrap(np.array(t.array)), part) for part in step.place(batch))
        recording = record(step, placed, batch.samples, memory, step.prepare)
        if not recording.replayable:
            return None
        recording.finish()
        return cls(recording, [tensor.array for tensor in leaves(placed)])

    def run(self, step: Any, batch: Batch | Rows) -> bool:
        """The step on another batch; whether the recording can be trusted.

        It is tried first, and again when an input changes for the first time.
        """
        batch.copy_to(self.inputs)
        changed = [place for place, was in self.constant.items() if digest(self.inputs[place]) != was]
        for place in changed:
            del self.constant[place]
        trial = changed or not self.tried
        placed = step.place(batch) if trial else None
        step.prepare()
        try:
            if trial:
                return self._trial(step, placed, batch.samples)
            self.recording.replay()
        except BaseException:
            step.optimizer.take_back()
            raise
        return True

    def _trial(self, step: Any, placed: Any, samples: int) -> bool:
        """Replay a step, take that back and run it as written; whether both gave the same bits."""
        before = Snapshot(step, self.recording.sources)
        try:
            self.recording.replay()
            replayed = before.digests()
        except Exception:  # what is wrong with the batch shows in the written step, too
            replayed = []
        before.restore()
        again = record(step, placed, samples, self.recording.memory, lambda: None)  # which needs no further memory
        self.tried = again.replayable and before.digests() == replayed
        return self.tried


def record(step: Any, placed: tuple, samples: int, memory: Memory, prepare: Callable) -> Recording:
    """Run a step on a placed batch as it is written, and note what it does."""
    recording = Recording(memory)

    def begin() -> None:
        with recording.paused():
            prepare()

    before = step.settings()
    with _noted(step), recording.active():
        step.run(*(map_structure(lambda t: wrap(traced(t.array)), part) for part in placed), samples, begin)
    recording.replayable &= step.settings().same_as(before)  # a layer that counts in Python
    return recording


class Settings:
    """What a recording takes for constant: the attributes of the layers, the optimizer, the losses and the metrics."""

    def __init__(self, objects: Iterable = ()):
        self._values = [(o, k, v) for o in objects for k, v in vars(o).items() if k not in VARYING]

    def same_as(self, other: "Settings") -> bool:
        """Whether all numbers, names and switches are equal, and all else is the very same."""
        return len(self._values) == len(other._values) and all(
            o is p and k == m and (v is w or (type(v) is type(w) and isinstance(v, CONSTANT) and v == w))
            for (o, k, v), (p, m, w) in zip(self._values, other._values)
        )


# no recording depends on these
VARYING = {"built", "history", "stop_training", "_applied", "_skipped", "_rate", "_learning_rate", "_loaded", "_own"}


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
    """Copies of all arrays that a step changes, save for gradients, and the states of random generators."""

    def __init__(self, step: Any, sources: Iterable = ()):
        arrays = (_get(*held) for held in step.holders() if held[1] != "gradients")
        # weights are views of the flat buffer, which is copied once
        roots = {id(r): r for r in (a.base if isinstance(a.base, np.ndarray) else a for a in arrays)}
        self._arrays = [piece for root in roots.values() for piece in _pieces(root)]
        self._copies = [array.copy() for array in self._arrays]
        self._sources = [(s, s.state) for s in sources]

    def restore(self) -> None:
        """Put the values back, once: each copy's memory is free again."""
        for array in reversed(self._arrays):
            array[...] = self._copies.pop()
        for source, state in self._sources:
            source.state = state

    def digests(self) -> list:
        """What tells the present values of these arrays and sources from others."""
        return [digest(a) for a in self._arrays] + [s.state for s, _ in self._sources]


def _pieces(array: np.ndarray) -> list:
    """Parts of a large array: copies of them find room in memory that the process has, but that lies in pieces."""
    return np.array_split(array, 1 + array.nbytes // PIECE) if array.ndim else [array]


def digest(array: np.ndarray) -> int:
    """What tells an array's bits from others."""
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data)
