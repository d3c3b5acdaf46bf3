"""How loops of the CPU column are compiled: once per dtype, kept on disk, without Python's lock."""

import functools
import threading
from collections.abc import Callable

import numba

# Fused multiply-add and signless zeros only: NaN and infinities keep their rules, sums their order.
jit = functools.partial(numba.njit, cache=True, error_model="numpy", nogil=True, fastmath={"contract", "nsz"})

# Numba's "workqueue" threads end the process when two threads of Python start parallel loops at once.
_one_at_a_time = threading.Lock()


def parallel_jit(function: Callable) -> Callable:
    """Compile a function whose `prange` is shared between threads; calls from several threads wait for each other."""
    compiled = jit(parallel=True)(function)

    @functools.wraps(function)
    def locked(*args):
        with _one_at_a_time:
            return compiled(*args)

    return locked


def threads() -> int:
    """How many threads a parallel loop runs on."""
    return numba.get_num_threads()
