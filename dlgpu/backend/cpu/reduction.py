"""Means of small arrays on the CPU, in one call each way; NumPy's own are fast enough for large ones."""

import numpy as np

from dlgpu.backend.cpu.arrays import by_reference, compiled
from dlgpu.backend.cpu.jit import jit
from dlgpu.backend.cpu.special import row_sum
from dlgpu.backend.recorder import call, empty
from dlgpu.backend.reference import reduction as reference

SMALL = 4096  # more values would lose digits in so simple a sum


@reference.mean_of_all.on("cpu")
def mean_of_all(x):
    if not compiled(x) or not 0 < x.size <= SMALL or not x.flags.c_contiguous:
        return by_reference(reference.mean_of_all, x)
    output = empty((), x.dtype)
    call(_mean, x.reshape(-1), output)
    return output


@reference.spread.on("cpu")
def spread(value, count, shape):
    if not compiled(value):
        return by_reference(reference.spread, value, count, shape)
    output = empty(shape, value.dtype)
    call(_spread, np.asarray(value).reshape(()), count, output.reshape(-1))
    return output


@jit
def _mean(x, output):
    output[()] = row_sum(x) / x.dtype.type(x.size)


@jit
def _spread(value, count, output):
    output[:] = value[()] / value.dtype.type(count)
