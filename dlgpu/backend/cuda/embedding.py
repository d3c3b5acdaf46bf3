"""Gather and scatter-add on CUDA: a thread an element; a team of threads for each row that gets something, in order.

On a GPU an index out of range gives NaN in `gather` and nothing in `scatter_add`; on the emulator it is an error.
"""

import numpy as np

from dlgpu.backend.cuda.geometry import BLOCK, blocks_for, contiguous, empty
from dlgpu.backend.cuda.source import STORAGE, source
from dlgpu.backend.dispatch import array_namespace
from dlgpu.backend.reference import embedding as reference

# Indices that are sorted by comparing each with each, a multiple of BLOCK; longer runs are merged from these.
RUN = 2048


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
    n, code = len(indices), source("embedding.cu")
    found, other = ([empty(indices, (n,)) for _ in range(2)] for _ in range(2))
    code.launch("rank", -(-n // BLOCK), BLOCK, (indices, *found, n, RUN), dtype=dtype)
    run = RUN
    while run < n:
        code.launch("merge_runs", blocks_for(n), BLOCK, (*found, *other, n, run), dtype=dtype)
        found, other, run = other, found, 2 * run
    return found


def _integers(indices):
    return contiguous(indices.astype("int64", copy=False))


def _check(indices, rows):
    """The reference's error, where the values are at hand."""
    if isinstance(indices, np.ndarray):
        reference.check(indices, rows)
