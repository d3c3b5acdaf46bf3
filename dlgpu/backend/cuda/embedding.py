"""Gather and scatter-add on CUDA: a thread an element; a team of threads for each row that gets something, in order.

On a GPU an index out of range gives NaN in `gather` and nothing in `scatter_add`; on the emulator it is an error.
"""

import numpy as np

from dlgpu.backend.cuda.geometry import BLOCK, blocks_for, contiguous, empty
from dlgpu.backend.cuda.source import STORAGE, source
from dlgpu.backend.dispatch import array_namespace
from dlgpu.backend.reference import embedding as reference

MAX_RANKED = 1 << 14  # indices; above, a radix sort is faster than comparing each with each


@reference.gather.on("cuda")
def gather(table, indices):
    if table.dtype.name not in STORAGE:
        return reference.gather.reference(table, indices)
    rows, features = table.shape
    _check(indices, rows)
    output = empty(table, (len(indices), features))
    args = (contiguous(table), _integers(indices), output, output.size, rows, features)
    source("embedding.cu").launch("gather", blocks_for(output.size), BLOCK, args, dtype=table.dtype)
    return output


@reference.scatter_add.on("cuda")
def scatter_add(values, indices, rows):
    if values.dtype.name not in STORAGE:
        return reference.scatter_add.reference(values, indices, rows)
    _check(indices, rows)
    n, features = values.shape
    output = array_namespace(values).zeros((rows, features), values.dtype)
    if values.size:
        order, ordered = _sorted(_integers(indices), values.dtype)
        width = min(BLOCK, 1 << (features - 1).bit_length())
        args = (contiguous(values), order, ordered, output, n, rows, features)
        block = (width, BLOCK // width)
        source("embedding.cu").launch("add_ordered", blocks_for(n, block[1]), block, args, dtype=values.dtype)
    return output


def _sorted(indices, dtype):
    """The places of the indices in stable ascending order, and the indices in that order."""
    n = len(indices)
    if n > MAX_RANKED:
        order = array_namespace(indices).argsort(indices, kind="stable")
        return order.astype("int64", copy=False), indices[order]
    order, ordered = empty(indices, (n,)), empty(indices, (n,))
    source("embedding.cu").launch("rank", -(-n // BLOCK), BLOCK, (indices, order, ordered, n), dtype=dtype)
    return order, ordered


def _integers(indices):
    return contiguous(indices.astype("int64", copy=False))


def _check(indices, rows):
    """The reference's error, where the values are at hand."""
    if isinstance(indices, np.ndarray):
        reference.check(indices, rows)
