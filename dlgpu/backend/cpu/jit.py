"""How the column's loops are compiled, and how work is shared between threads."""

import functools
import threading

import numba

# NaN, infinities and the sign of what underflows stay as they are; sums may be taken in vectors.
FAST = {"contract", "reassoc", "nsz"}
jit = functools.partial(numba.njit, cache=True, error_model="numpy", nogil=True, fastmath=FAST)
_one_at_a_time = threading.Lock()


def parallel(function):
    """A loop over `numba.prange`, called by one thread at a time: Numba's own pool of threads does not bear two."""
    compiled = jit(parallel=True)(function)

    @functools.wraps(function)
    def locked(*args):
        with _one_at_a_time:
            compiled(*args)

    return locked


def most_threads():
    """The most threads that a parallel loop may run in, whatever `numba.set_num_threads` says at the moment."""
    return numba.config.NUMBA_NUM_THREADS
