"""Work shared by two threads or more: our own, because Numba's default pool aborts when two Python threads enter it."""

import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from dlgpu.backend.cpu.native import Prepared
from dlgpu.backend.recorder import call

# NUMBA_NUM_THREADS, or the processors of this process
_affinity = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
THREADS = int(os.environ.get("NUMBA_NUM_THREADS") or len(_affinity(0)))


class Worker(threading.Thread):
    """A thread that waits for one function at a time."""

    def __init__(self) -> None:
        super().__init__(daemon=True, name="dlgpu-worker")
        self.wanted, self.done = threading.Lock(), threading.Lock()
        self.wanted.acquire()
        self.done.acquire()
        self.work: Any = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        while True:
            self.wanted.acquire()
            try:
                self.work()
            except BaseException as error:
                self.error = error
            self.work = None
            self.done.release()

    def begin(self, work: Callable) -> None:
        self.work = work
        self.wanted.release()

    def finish(self) -> None:
        self.done.acquire()
        if self.error is not None:
            error, self.error = self.error, None
            raise error


class Crew:
    """The process's workers, for one caller at a time."""

    def __init__(self) -> None:
        self.free = threading.Lock()
        self.workers: list[Worker] = []

    def do(self, parts: Sequence[Callable]) -> None:
        """All parts, in threads of their own, save for the first."""
        if not self.free.acquire(blocking=False):
            for part in parts:
                part()
            return
        try:
            while len(self.workers) < len(parts) - 1:
                self.workers.append(Worker())
            busy = []
            try:
                for worker, part in zip(self.workers, parts[1:]):
                    worker.begin(part)
                    busy.append(worker)
                parts[0]()
            finally:
                for worker in busy:
                    worker.finish()
        finally:
            self.free.release()


_crew = Crew()


def share(loop: Callable, length: int, grain: int, *args: Any) -> None:
    """loop(*args, start, stop) over all of range(length), in parts that threads work on at once; a recorded call.

    Parts begin at multiples of 64, or of 1 in short ranges. A second caller does its work alone meanwhile, so an item's
    result must not depend on where its part begins.

    Args:
        loop: compiled, so that it does not hold Python's lock.
        length: the number of items.
        grain: as many items as are worth a thread; waking one takes as long as some 20 microseconds of work.
        args: the loop's first arguments.
    """
    if length < 2 * grain or THREADS < 2:
        call(loop, *args, 0, length)
    else:
        call(spread, loop, length, grain, *args)


def spread(loop: Callable, length: int, grain: int, *args: Any) -> None:
    """The same, inside of a recorded call."""
    _crew.do([partial(loop, *args, start, stop) for start, stop in parts(length, grain)])


def parts(length: int, grain: int) -> list[tuple[int, int]]:
    """Where each thread's part of range(length) starts and stops."""
    threads = max(1, min(THREADS, length // grain))
    size = -(-length // threads)
    size = -(-size // 64) * 64 if size > 256 else size
    return [(start, min(start + size, length)) for start in range(0, max(length, 1), max(size, 1))]


class Spread:
    """Calls of `spread`, made one after another: see `Recording.finish`."""

    def __init__(self, calls: Sequence):
        self.calls = [
            [Prepared(loop, [*args, *part]) for part in parts(length, grain)]
            for _, (loop, length, grain, *args) in calls
        ]

    def __call__(self) -> None:
        for prepared in self.calls:
            _crew.do(prepared)


spread.join = Spread  # type: ignore[attr-defined]


def _forget() -> None:
    """A forked child has none of its parent's threads."""
    global _crew
    _crew = Crew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
