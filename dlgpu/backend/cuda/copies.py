"""Copies of several arrays in one launch, as of a step's gradients into the flat buffer."""

from collections.abc import Sequence
from typing import Any

from dlgpu.backend.cuda.geometry import BLOCK, blocks_for, contiguous
from dlgpu.backend.cuda.source import source

AT_ONCE = 6  # arrays of a launch


def fill(targets: Sequence, arrays: Sequence) -> None:
    """Copy each array, or 0 for None, to its target, a contiguous array of its shape on the same device.

    Args:
        targets: of one dtype, 16 to 64 bits and floating.
        arrays: converted to that, if they are of another.
    """
    for first in range(0, len(targets), AT_ONCE):
        to, given = targets[first : first + AT_ONCE], arrays[first : first + AT_ONCE]
        dtype, none = to[0].dtype, [None] * (AT_ONCE - len(to))
        made: list[Any] = [None if a is None else contiguous(a.astype(dtype, copy=False)) for a in given]
        sizes = [*(t.size for t in to), *[0] * len(none)]
        grid = max(1, blocks_for(max(sizes))), len(to)
        source("copies.cu").launch("fill_six", grid, BLOCK, (*to, *none, *made, *none, *sizes), dtype=dtype)
