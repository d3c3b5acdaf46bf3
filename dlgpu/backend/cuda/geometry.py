"""The choices that all launches share."""

import math
from typing import Any

from dlgpu.backend.dispatch import array_namespace
from dlgpu.backend.narrow import at_least_float32

BLOCK = 256  # threads: a good number for kernels that stream through memory
MAX_BLOCKS = 1 << 16  # kernels stride over what is left


def blocks_for(size: int, block: int = BLOCK) -> int:
    """The blocks for one thread an element, up to MAX_BLOCKS."""
    return min(-(-size // block), MAX_BLOCKS)


def contiguous(x: Any) -> Any:
    """x itself, or a contiguous copy; None is a null pointer and stays one."""
    return x if x is None or x.flags.c_contiguous else x.copy(order="C")


def lay_out(x: Any, lead: tuple) -> tuple[Any, int, bool]:
    """An array with x's values, how many lie between its matrices, and whether these are transposed in it."""
    if math.prod(x.shape[:-2]) == 1:
        x, apart = x.reshape(x.shape[-2:]), 0
    else:
        x, apart = array_namespace(x).broadcast_to(x, (*lead, *x.shape[-2:])), math.prod(x.shape[-2:])
    swapped = x.swapaxes(-1, -2)
    if swapped.flags.c_contiguous and not x.flags.c_contiguous:
        return swapped, apart, True
    return contiguous(x), apart, False


def empty_like(x: Any) -> Any:
    """A contiguous array of x's shape and dtype."""
    return array_namespace(x).empty(x.shape, x.dtype)


def empty(x: Any, shape: tuple, dtype: Any = None) -> Any:
    """An array of x's library, and of its dtype unless another is given."""
    return array_namespace(x).empty(shape, dtype or x.dtype)


def empty_wide(x: Any, shape: tuple) -> Any:
    """An array of x's library, of the dtype with which kernels compute where they store x's; float32 at least."""
    return empty(x, shape, at_least_float32(x.dtype))


def rows_geometry(rows: int, columns: int, stride: int = 1) -> tuple[int, tuple[int, int]]:
    """Grid and block for kernels on rows.cuh: a team of threads for each row.

    Args:
        rows, columns: of the array.
        stride: between a row's columns. If it is large then neighbouring threads take neighbouring rows, so that they
            read neighbouring addresses.
    """
    if stride >= 32:
        team = 1
    elif columns > 1024:
        team = BLOCK
    else:
        team = min(32, 1 << max(0, columns - 1).bit_length())
    teams = max(1, 128 // team)
    return blocks_for(rows, teams), (team, teams)
