"""16-bit floating numbers, float16 and bfloat16: kept in memory as they are, computed with in float32.

The kernels of the CUDA column do so themselves. What runs elsewhere, a reference or the CPU column, gets float32
copies, and its results are rounded: so sums are float32 sums, and bfloat16 does not depend on what NumPy knows of it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np


def is_narrow(array: Any) -> bool:
    """Whether an array's or a Tensor's dtype is float16 or bfloat16."""
    dtype = array.dtype
    return dtype.itemsize == 2 and (dtype.kind == "f" or dtype.name == "bfloat16")


def is_wide(array: Any) -> bool:
    """Whether an array's dtype is float32 or float64."""
    return array.dtype.kind == "f" and array.dtype.itemsize > 2


def at_least_float32(dtype: Any) -> np.dtype:
    """float32 for a 16-bit floating dtype; any other as it is."""
    found = np.dtype(dtype)
    return np.dtype(np.float32) if found.itemsize == 2 and found.kind not in "iu" else found


def in_float32(function: Callable, dtype: Any, only_first: bool = False) -> Callable:
    """A kernel's implementation for arguments of a 16-bit dtype: they are widened, and float32 results are rounded.

    One that returns nothing writes into its arguments; these are rounded then. With `only_first`, only the first result
    is rounded.
    """

    def computed(*args: Any, **kwargs: Any) -> Any:
        wide: dict[int, tuple] = {}

        def widen(array: Any) -> Any:
            if not is_narrow(array):
                return array
            if id(array) not in wide:
                wide[id(array)] = array, array.astype(np.float32)
            return wide[id(array)][1]

        rounded: dict[int, tuple] = {}

        def narrow(array: Any) -> Any:
            if array.dtype != np.float32:
                return array
            if id(array) not in rounded:  # what is the same array stays the same
                rounded[id(array)] = array, array.astype(dtype)
            return rounded[id(array)][1]

        found = function(*_each(widen, args), **_each(widen, kwargs))
        if only_first:
            return (narrow(found[0]), *found[1:]) if isinstance(found, tuple) else narrow(found)
        if found is not None:
            mixed = any(getattr(a, "ndim", 0) and is_wide(a) for a in args)  # beside wider ones, NumPy's rule
            if mixed or not isinstance(found, (tuple, list)):
                return found if mixed else narrow(found)
            # what is nested is kept for the backward pass, as float32
            return type(found)([narrow(r) if hasattr(r, "astype") else r for r in found])
        for array, copy in wide.values():
            array[...] = copy.astype(array.dtype)
        return None

    return computed


def _each(function: Callable, value: Any) -> Any:
    """`function` of each array in a structure of them."""
    if isinstance(value, (tuple, list)):
        made = [_each(function, v) for v in value]
        return made if type(value) is list else tuple(made) if type(value) is tuple else type(value)(*made)
    if isinstance(value, dict):
        return {k: _each(function, v) for k, v in value.items()}
    return function(value) if hasattr(value, "dtype") and hasattr(value, "astype") else value
