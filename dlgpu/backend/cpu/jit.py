"""How loops of the CPU column are compiled: once per dtype, kept on disk, without Python's lock.

A function that another one calls is compiled into it, and the cache looks only at the caller's file: after a change to
a called function in another file, delete the `*.nbi` files in this folder's `__pycache__`.
"""

import functools

import numba

# Fused multiply-add and signless zeros only: NaN and infinities keep their rules, sums their order.
jit = functools.partial(numba.njit, cache=True, error_model="numpy", nogil=True, fastmath={"contract", "nsz"})

# For functions of a few numbers: always compiled into the loop, without which that could not be made of vectors.
inline_jit = functools.partial(jit, forceinline=True)

# For sums over a row, which vectors add up in an order of their own. It is the same every time.
sum_jit = functools.partial(
    numba.njit, cache=True, error_model="numpy", nogil=True, fastmath={"contract", "nsz", "reassoc"}
)
