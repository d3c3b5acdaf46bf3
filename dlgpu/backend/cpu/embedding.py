"""Gather and scatter-add on the CPU. Each thread owns rows of the output, so what is added to a row keeps its order."""

import numpy as np

from dlgpu.backend.cpu.arrays import by_reference, contiguous
from dlgpu.backend.cpu.jit import jit
from dlgpu.backend.cpu.threads import spread
from dlgpu.backend.recorder import call, empty
from dlgpu.backend.reference import embedding as reference

GRAIN = 2**17  # values that are worth a thread


@reference.gather.on("cpu")
def gather(table, indices):
    if not _moves(table):
        return by_reference(reference.gather, table, indices)
    output = empty((len(indices), table.shape[1]), table.dtype)
    call(_gather, contiguous(table), contiguous(indices), output)
    return output


@reference.scatter_add.on("cpu")
def scatter_add(values, indices, rows):
    if not _moves(values):
        return by_reference(reference.scatter_add, values, indices, rows)
    output = empty((rows, values.shape[1]), values.dtype)
    call(_scatter_add, contiguous(values), contiguous(indices), output)
    return output


def _moves(array):
    """Whether loops are compiled for this dtype."""
    return array.dtype.char in "fd" or array.dtype.kind in "iu"


def _gather(table, indices, output):
    _check(indices, len(table))
    spread(_gather_rows, len(indices), GRAIN // max(table.shape[1], 1) + 1, table, indices, output)


def _scatter_add(values, indices, output):
    _check(indices, len(output))
    spread(_scatter_add_rows, len(output), GRAIN // max(output.shape[1], 1) + 1, values, indices, output)


def _check(indices, rows):
    found = np.zeros((), bool)
    _out_of_range(indices, rows, found)
    if found:
        reference.check(indices, rows)


@jit
def _out_of_range(indices, rows, output):
    found = False
    for i in range(indices.size):
        found |= (indices[i] < 0) | (indices[i] >= rows)
    output[()] = found


@jit
def _gather_rows(table, indices, output, start, stop):
    for i in range(start, stop):
        source, target = table[indices[i]], output[i]
        for j in range(target.size):
            target[j] = source[j]


@jit
def _scatter_add_rows(values, indices, output, start, stop):
    """The rows from start to stop."""
    output[start:stop] = 0
    for i in range(indices.size):
        row = indices[i]
        if start <= row < stop:
            target, source = output[row], values[i]
            for j in range(target.size):
                target[j] += source[j]
