"""Work shared between threads of our own: compiled loops leave the interpreter's lock, so Python's threads will do.

Numba's `prange` would compile every loop several times over, and its pool of threads does not bear two callers.
"""

import itertools
import os
import threading

import numba

THREADS = numba.config.NUMBA_NUM_THREADS  # as many as there are processors, or NUMBA_NUM_THREADS
SHARES = 4  # for each thread, so that one that is held up holds up little


class _Worker:
    """A thread that waits for a task."""

    def __init__(self):
        self.given, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.task = self.error = None
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self):
        while True:
            self.given.acquire()
            try:
                self.task()
            except BaseException as error:  # raised again in the thread that waits
                self.error = error
            self.task = None
            self.done.release()


def _forget():
    global _free, _workers
    _free, _workers = threading.Lock(), []


_forget()
os.register_at_fork(after_in_child=_forget)  # threads do not survive a fork


def share(loop, units, *args):
    """loop(begin, end, thread, *args) for shares of range(units), each share in one thread, numbered from 0.

    The threads take the next share as they come: results must not depend on which thread does what. When they are
    busy for another caller, this one does all of its work itself.
    """
    if THREADS == 1 or units < 2 or not _free.acquire(blocking=False):
        return loop(0, units, 0, *args)
    try:
        while len(_workers) < THREADS - 1:
            _workers.append(_Worker())
        shares = min(units, SHARES * THREADS)
        numbers = itertools.count()

        def work(thread):
            while (number := next(numbers)) < shares:
                loop(number * units // shares, (number + 1) * units // shares, thread, *args)

        helpers = _workers[: shares - 1]
        for thread, worker in enumerate(helpers, 1):
            worker.task = lambda thread=thread: work(thread)
            worker.given.release()
        try:
            work(0)
        finally:
            for worker in helpers:
                worker.done.acquire()
        for worker in helpers:
            error, worker.error = worker.error, None
            if error is not None:
                raise error
    finally:
        _free.release()
