"""Steps that are replayed: run once as written, recorded on the second run, tried on the third, then only replayed."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from dlgpu.backend.devices import Device
from dlgpu.backend.memory import give_back, is_shortage
from dlgpu.data import Batch, Rows
from dlgpu.training.groups import Groups
from dlgpu.training.settings import Settings, drawn
from dlgpu.training.undo import Snapshot

MANY = 64  # replays after which it is worth while to have several steps in one


class Replays:
    """The recordings of a step, one for each layout of a batch (and phase of the optimizer).

    A replay does what the recorded step did, on the same memory; no layer's Python runs. What cannot be replayed, or
    gives other bits on its trial, runs as written.
    """

    def __init__(self) -> None:
        self.eager = self.used = False
        self._device: Device | None = None
        self._settings = Settings()
        self._told: set[str] = set()
        self.forget()

    def __deepcopy__(self, memo: dict) -> "Replays":
        """A copy of a model records its own steps, on its own memory."""
        made = Replays()
        made.eager = self.eager
        return made

    def forget(self) -> None:
        """Begin anew."""
        self._known: dict[Any, Any] = {}  # layout -> 1 after it came once, then a Replay, or None if it cannot be one
        self.repeater: Any = None if self._device is None else self._device.repeater()

    def begin(self, device: Device | None, look: Callable[[], Settings]) -> None:
        """Forget the recordings if the device or the settings differ from those with which they were made."""
        settings = Settings() if self.eager else look()
        if device != self._device or settings != self._settings:
            self._device, self._settings = device, settings
            self.forget()

    def run(self, step: Any, *batches: Batch | Rows) -> None:
        """Step.run on a batch, or on several, one after the other."""
        self.used = True
        batch, layout = batches[0], self._layout(step, batches[0])
        found = None if self.eager else self._known.get(layout, 0)
        if len(batches) > 1:
            if type(found) is not Replay or not found.groups.run(step, batches):
                for each in batches:
                    self.run(step, each)
            return
        if type(found) is Replay:
            problem = found.run(step, batch) if found.tried else self._tried(found, step, batch)
            if problem is not None:
                self._give_up(layout, problem)
        elif found == 1:
            settings = step.settings()
            if not self._recorded():
                self._settings = settings  # the first step made the metrics, which are looked at too
            made = Replay.recorded(step, batch, self.repeater, settings)
            self._known[layout] = made
            if made.problem is not None:
                self._give_up(layout, made.problem)
        else:
            if found == 0:
                self._known[layout] = 1
                if self._recorded() >= self.repeater.most:
                    self._give_up(layout, f"batches have more than {self.repeater.most} different shapes")
            _first_time(step, lambda: step.written(batch)(step.sent(batch)))

    def _tried(self, found: "Replay", step: Any, batch: Batch | Rows) -> str | None:
        """Try a recording, and why it cannot be trusted. It may be all that there is too little memory for."""
        try:
            return found.run(step, batch)
        except Exception as error:
            if not is_shortage(error):
                raise
        found.recording = found.groups.recording = None
        step.forget()
        give_back(step.device)
        _first_time(step, lambda: step.written(batch)(step.sent(batch)))
        return "there is too little memory for it beside the step as it is written, with which it is compared"

    def group_size(self, step: Any, batch: Batch | Rows, most: int) -> int:
        """How many steps, on this batch and those that follow it, are done at once; `most` of an epoch follow."""
        found = None if self.eager else self._known.get(self._layout(step, batch))
        return found.groups.size(step.optimizer, most) if type(found) is Replay else 1

    def _recorded(self) -> int:
        return sum(type(r) is Replay for r in self._known.values())

    def _layout(self, step: Any, batch: Batch | Rows) -> tuple:
        return batch.layout, step.optimizer.phase(ahead=1)

    def _give_up(self, layout: Any, why: str) -> None:
        self._known[layout] = None
        self.tell(why)

    def tell(self, why: str) -> None:
        """Say once that steps cannot be captured."""
        self._warn(
            f"a training step cannot be captured, and runs as it is written, which is slower: {why} "
            "(compile(run_eagerly=True) means that, and says nothing)"
        )

    def watched(self, callback: str) -> None:
        """Say once that steps cannot be done at once."""
        if self.repeater.at_once > 1:
            self._warn(f"training steps are launched one by one, which is slower: {callback} looks at every batch")

    def _warn(self, what: str) -> None:
        kind = what.partition(":")[0]
        if self.repeater.tells and not self.eager and kind not in self._told:
            self._told.add(kind)
            warnings.warn(what, stacklevel=3)


class Replay:
    """One recorded step.

    Args:
        recording: by the device's repeater.
        problem: why it cannot be replayed, if so.
        limit: how many steps the device does at once, at most.
    Attributes:
        groups: several steps by one launch, of which this is the first.
    """

    def __init__(self, recording: Any, problem: str | None, limit: int = 1):
        self.recording = recording
        self.problem = problem
        self.groups = Groups(recording, limit)
        self.tried = False
        self._runs = 0  # how often it was replayed

    @classmethod
    def recorded(cls, step: Any, batch: Batch | Rows, repeater: Any, settings: Settings) -> "Replay":
        """Run a step with these settings and record it."""
        before = settings, drawn()
        recording = _first_time(
            step, lambda: repeater.record(step.written(batch), batch, step.sent, list(step.holders()))
        )
        counts = (step.settings(), drawn()) != before
        problem = (
            "a layer changes while it runs, or draws numbers that are not dlgpu's" if counts else recording.problem
        )
        return cls(recording, problem, repeater.at_once)

    def run(self, step: Any, batch: Batch | Rows) -> str | None:
        """The step on another batch; why the recording cannot be trusted, if so.

        It is tried first, and again when an input changes for the first time.
        """
        if self.recording.load(batch, step.sent) or not self.tried:
            same = _first_time(step, partial(self._trial, step, batch, step.sent(batch)))
            return None if same else "it does not do the same each time"
        self._runs += 1
        if self._runs == MANY and self.groups.limit > 1:
            self.groups.seconds = _counted(step, self.recording.timed)
        else:
            _counted(step, self.recording.replay)
        return None

    def _trial(self, step: Any, batch: Batch | Rows, arrays: list) -> bool:
        """Replay a step, take that back and run it as written; whether both gave the same bits."""
        before = Snapshot(step, self.recording.sources)
        try:
            with np.errstate(all="ignore"):  # what is to be warned of, the written step warns of
                self.recording.replay()
            replayed = before.digests()
        except Exception:  # what is wrong with the batch shows in the written step, too
            replayed = []
        finally:
            before.restore()
        state = step.settings(), drawn()
        again = self.recording.again(step.written(batch), arrays, list(step.holders()))
        self.tried = again and (step.settings(), drawn()) == state and before.digests() == replayed
        return self.tried


def _counted(step: Any, function: Callable) -> Any:
    """What `function` returns, which does a step; the optimizer counts it if it does not fail."""
    step.optimizer.prepare(step.flats)
    try:
        return function()
    except BaseException:
        step.optimizer.count(-1)
        raise


def _first_time(step: Any, function: Callable) -> Any:
    """What `function` returns, which does a step as it is not yet trusted; if it fails nothing of it stays."""
    undo = step.passing.noted()
    try:
        return _counted(step, function)
    except BaseException:
        undo()
        raise
