"""What every row of the CPU column asks of its arrays."""

import numpy as np

from dlgpu.backend.recorder import active, call, empty
from dlgpu.backend.traced import kernel_results, plain_results


def compiled(*arrays):
    """Whether all are of one dtype that loops are compiled for, float32 or float64; None stands for no array."""
    dtype = arrays[0].dtype
    return dtype.char in "fd" and dtype.isnative and all(a is None or a.dtype == dtype for a in arrays)


def compiled_or_integer(array):
    """Whether loops that only move and compare numbers are compiled for its dtype."""
    return array.dtype.kind in "iu" or compiled(array)


def contiguous(array):
    """The array itself, or a copy of it whose memory is contiguous."""
    if array is None or array.flags.c_contiguous:
        return array
    copy = empty(array.shape, array.dtype)
    call(np.copyto, copy, array)
    return copy


def empty_like(array):
    """Undefined values of that shape and dtype."""
    return empty(array.shape, array.dtype)


def by_reference(kernel, *args):
    """What a kernel's reference does, for arrays that no loop is compiled for."""
    recording = active()
    if recording is None:
        return kernel.reference(*args)
    recording.inside = False  # this column's code notes its calls, the reference's does not
    try:
        return plain_results(kernel_results(recording, kernel.reference, False, args, {}))
    finally:
        recording.inside = True
