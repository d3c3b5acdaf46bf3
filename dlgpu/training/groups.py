"""Several steps by one launch, where the host has nothing to do between them."""

from collections.abc import Sequence
from typing import Any

from dlgpu.backend.memory import is_shortage
from dlgpu.data import Batch, Rows
from dlgpu.training.undo import Snapshot

LOOK = 0.05  # seconds, after which the host should look at Ctrl-C and at the progress bar


class Groups:
    """Launches of several steps, of which the first is a recorded one.

    What a step does goes by the optimizer's phase, so each sequence of phases has a graph. Groups are cut so that these
    are few: they begin where a cycle of the optimizer begins, or a multiple of their length after it.

    Args:
        recording: of the step, by the device's repeater.
        limit: how many steps the device does at once, at most.
    Attributes:
        seconds: that a step takes; 0 as long as that is not known.
    """

    def __init__(self, recording: Any, limit: int):
        self.recording = recording
        self.limit = limit
        self.seconds = 0.0
        self._graphs: dict[tuple, Any] = {}  # (count, phases) -> graph, or None if the steps cannot be done at once

    def size(self, optimizer: Any, most: int) -> int:
        """How many of the coming steps are done at once: whole cycles of the optimizer, or a part of a longer one.

        Args:
            most: steps of an epoch follow each other: they are cut into equal parts, each as long as LOOK at most.
        """
        cycle = optimizer.cycle() if self.seconds else None
        if cycle is None:
            return 1
        count = most // -(-most // max(1, min(self.limit, int(LOOK / self.seconds))))
        every, length, done = cycle
        for whole in (every, length):
            count -= count % whole if whole <= count else 0
        if done % min(count, length):
            return 1
        return count if length <= count else min(count, length - done)

    def run(self, step: Any, batches: Sequence[Batch | Rows]) -> bool:
        """Steps on batches that follow each other by one launch, if that is possible; else none is done.

        The first time this is tried: it must give the bits that the steps give one by one, which then stand.
        """
        count, cycle = len(batches), step.optimizer.cycle()
        if cycle is None:
            return False
        # phases come again after a cycle
        key = count, *(step.optimizer.phase(ahead) for ahead in range(1, 1 + min(count, cycle[1])))
        graph, known = self._graphs.get(key), key in self._graphs
        if (known and graph is None) or not self.recording.load_first(batches[0]):
            return False
        if not known:
            graph = self._captured(step, batches[0], count)
            if graph is None:
                self._graphs[key] = None
                return False
        try:
            rates = step.optimizer.prepare(step.flats, count)
        except Exception:  # a Schedule's: the step of which it is raises it again
            return False
        if not known:
            self._graphs[key] = graph if self._same(step, batches, graph, rates) else None
            return True
        try:
            self.recording.replay_group(graph, rates)
        except BaseException:
            step.optimizer.count(-count)
            raise
        return True

    def _captured(self, step: Any, batch: Batch | Rows, count: int) -> Any:
        """A graph of steps, which the optimizer counts for that long; None if there can be none."""
        run, optimizer, counted = step.written(batch), step.optimizer, []

        def counting(arrays: list) -> None:
            optimizer.count(1)
            counted.append(1)
            run(arrays)

        rates = [kept.scalars for kept in optimizer.kept]
        try:
            return self.recording.capture_group(counting, list(step.holders()), count, rates)
        finally:
            optimizer.count(-len(counted))

    def _same(self, step: Any, batches: Sequence[Batch | Rows], graph: Any, rates: list[float]) -> bool:
        """Launch prepared steps, take that back and do them one by one; whether both gave the same bits."""
        before, replayed = None, None
        try:
            before = Snapshot(step, self.recording.sources)
            self.recording.replay_group(graph, rates)
            replayed = before.digests()
        except Exception as error:
            if before is not None or not is_shortage(error):
                raise
        finally:
            if before is not None:
                before.restore()
            step.optimizer.count(-len(batches))
        for batch in batches:
            step.replays.run(step, batch)
        return before is not None and before.digests() == replayed
