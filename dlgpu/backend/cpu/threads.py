"""Work shared by two threads or more: our own, because Numba's default pool aborts when two Python threads enter it."""

import os
import threading
from collections.abc import Callable
from typing import Any

import numba

THREADS = numba.config.NUMBA_NUM_THREADS  # the environment's NUMBA_NUM_THREADS, or the processors of this process


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
                self.work[0](*self.work[1:])
            except BaseException as error:
                self.error = error
            self.work = None
            self.done.release()

    def begin(self, function: Callable, *args: Any) -> None:
        self.work = (function, *args)
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

    def share(self, function: Callable, length: int, grain: int, *args: Any) -> None:
        threads = min(THREADS, length // grain)
        if threads < 2 or not self.free.acquire(blocking=False):
            function(*args, 0, length)
            return
        try:
            while len(self.workers) < threads - 1:
                self.workers.append(Worker())
            size = -(-length // threads)
            size = -(-size // 64) * 64 if size > 256 else size
            busy = []
            try:
                for worker, start in zip(self.workers, range(size, length, size)):
                    worker.begin(function, *args, start, min(start + size, length))
                    busy.append(worker)
                function(*args, 0, min(size, length))
            finally:
                for worker in busy:
                    worker.finish()
        finally:
            self.free.release()


_crew = Crew()


def share(function: Callable, length: int, grain: int, *args: Any) -> None:
    """function(*args, start, stop) over all of range(length), in parts that threads work on at once.

    Parts begin at multiples of 64, or of 1 in short ranges. A second caller does its work alone meanwhile, so an item's
    result must not depend on where its part begins.

    Args:
        function: compiled, so that it does not hold Python's lock.
        length: the number of items.
        grain: as many items as are worth a thread; waking one takes as long as some 20 microseconds of work.
        args: the function's first arguments.
    """
    if length < 2 * grain:
        function(*args, 0, length)
    else:
        _crew.share(function, length, grain, *args)


def _forget() -> None:
    """A forked child has none of its parent's threads."""
    global _crew
    _crew = Crew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
