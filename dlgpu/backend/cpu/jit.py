"""How loops of the CPU column are compiled, and how rows are shared between threads."""

import functools
import os
import queue
import threading
from collections.abc import Callable
from typing import Any

import numba

# Compiled once per dtype, kept on disk, run without Python's lock. Fused multiply-add and signless zeros only: NaN and
# infinities keep their rules, sums their order.
jit = functools.partial(numba.njit, cache=True, error_model="numpy", nogil=True, fastmath={"contract", "nsz"})

_workers: list[queue.SimpleQueue] = []
_one_at_a_time = threading.Lock()


def share(loop: Callable, rows: int, *args: Any) -> None:
    """loop(*args, low, high) for all rows, each thread a part of them.

    `loop` is compiled by `jit` and does the same to a row in whichever part it is. Handing a part to another thread
    costs some 20 microseconds.
    """
    parts = max(1, min(numba.get_num_threads(), rows))
    if parts == 1:
        loop(*args, 0, rows)
        return
    with _one_at_a_time:
        while len(_workers) < parts - 1:
            _workers.append(queue.SimpleQueue())
            threading.Thread(target=_serve, args=(_workers[-1],), daemon=True).start()
        done: queue.SimpleQueue = queue.SimpleQueue()
        for part, worker in zip(range(1, parts), _workers):
            worker.put((loop, args, part * rows // parts, (part + 1) * rows // parts, done))
        loop(*args, 0, rows // parts)
        errors = [done.get() for _ in range(1, parts)]
    for error in filter(None, errors):
        raise error


def _serve(parts: queue.SimpleQueue) -> None:
    while True:
        loop, args, low, high, done = parts.get()
        try:
            loop(*args, low, high)
            done.put(None)
        except BaseException as error:
            done.put(error)
        del loop, args, done  # a waiting thread keeps no arrays alive


if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads
    os.register_at_fork(after_in_child=_workers.clear)
