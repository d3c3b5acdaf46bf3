"""How the loops of the CPU column are compiled: lazily, for each dtype, cached on disk, and free of Python's lock.

A function that another one calls is compiled into it, and the cache looks only at the caller's file: after a change to
a called function, delete the `*.nbi` files in this folder's `__pycache__`.
"""

import functools

import numba

# Rounding may change (a * b + c at once, sums in the vector's order), but what is NaN or infinite stays so.
FAST = {"contract", "reassoc", "nsz"}
# For what reassociation would break: error terms, and rounding by adding a large number.
EXACT = {"contract"}

jit = functools.partial(numba.njit, cache=True, error_model="numpy", nogil=True, fastmath=FAST)
exact_jit = functools.partial(numba.njit, cache=True, error_model="numpy", nogil=True, fastmath=EXACT)
