"""Gather and scatter-add on the CPU. Each thread owns rows of the output, so what is added to a row keeps its order."""

import numpy as np

from dlgpu.backend.cpu.arrays import by_reference, compiled_or_integer, contiguous
from dlgpu.backend.cpu.jit import jit
from dlgpu.backend.cpu.threads import share
from dlgpu.backend.recorder import call, empty
from dlgpu.backend.reference import embedding as reference

GRAIN = 2**17  # values that are worth a thread


@reference.gather.on("cpu")
def gather(table, indices):
    if not compiled_or_integer(table):
        return by_reference(reference.gather, table, indices)
    table, indices = contiguous(table), contiguous(indices)
    output = empty((len(indices), table.shape[1]), table.dtype)
    _check(indices, len(table))
    share(_gather_rows, len(indices), _grain(table.shape[1]), table, indices, output)
    return output


@reference.scatter_add.on("cpu")
def scatter_add(values, indices, rows):
    if not compiled_or_integer(values):
        return by_reference(reference.scatter_add, values, indices, rows)
    values, indices = contiguous(values), contiguous(indices)
    output = empty((rows, values.shape[1]), values.dtype)
    _check(indices, rows)
    share(_scatter_add_rows, rows, _grain(values.shape[1]), values, indices, output)
    return output


def _check(indices, rows):
    """Raise an error, at each replay, too, if an index is out of range."""
    found = empty((), np.bool_)
    call(_out_of_range, indices, rows, found)
    call(_raise, found, indices, rows)


def _raise(found, indices, rows):
    if found:
        reference.check(indices, rows)


def _grain(features):
    """How many rows are worth a thread."""
    return GRAIN // max(features, 1) + 1


@jit
def _out_of_range(indices, rows, output):
    """output[()] = whether one of (n,) indices is not in [0, rows)"""
    found = False
    for i in range(indices.size):
        found |= (indices[i] < 0) | (indices[i] >= rows)
    output[()] = found


@jit
def _gather_rows(table, indices, output, start, stop):
    """output[i] = table[indices[i]]"""
    for i in range(start, stop):
        source, target = table[indices[i]], output[i]
        for j in range(target.size):
            target[j] = source[j]


@jit
def _scatter_add_rows(values, indices, output, start, stop):
    """output[indices[i]] += values[i] in ascending order of i, into zeros; the rows from start to stop of output."""
    output[start:stop] = 0
    for i in range(indices.size):
        row = indices[i]
        if start <= row < stop:
            target, source = output[row], values[i]
            for j in range(target.size):
                target[j] += source[j]
