"""How the column's loops are compiled."""

import functools

import numba

# NaN, infinities and the sign of zero stay as they are, save that a sum may be taken in vectors.
FAST = {"contract", "reassoc"}
jit = functools.partial(numba.njit, cache=True, error_model="numpy", nogil=True, fastmath=FAST)
