"""Pooling on CUDA: one thread for each value of the output, whichever way it goes."""

import numpy as np

from dlgpu.backend import windows
from dlgpu.backend.cuda.geometry import BLOCK, contiguous, empty
from dlgpu.backend.cuda.source import STORAGE, source
from dlgpu.backend.reference import pooling as reference

MAX_ROWS = 65535  # of a grid
INDEX_NAMES = {"uint8": "unsigned char", "int32": "int"}


@reference.max_pool.on("cuda")
def max_pool(x, window, strides, padding):
    if x.dtype.name not in STORAGE:  # integers
        return reference.max_pool.reference(x, window, strides, padding)
    outputs = windows.output_size(x.shape[1:3], window, strides, padding)
    shape = (len(x), *outputs, x.shape[3])
    values, indices = empty(x, shape), empty(x, shape, np.uint8 if window[0] * window[1] <= 256 else np.int32)
    arrays = contiguous(x), values, indices
    _launch("max_pool", arrays, values, x.shape[1:3], outputs, window, strides, padding, indices)
    return values, indices


@reference.max_pool_scatter.on("cuda")
def max_pool_scatter(grad, indices, size, window, strides, padding):
    out = empty(grad, (len(grad), *size, grad.shape[3]))
    arrays = contiguous(grad), contiguous(indices), out
    _launch("max_pool_scatter", arrays, out, size, grad.shape[1:3], window, strides, padding, indices)
    return out


@reference.max_pool_gather.on("cuda")
def max_pool_gather(x, indices, window, strides, padding):
    out = empty(x, indices.shape)
    arrays = contiguous(x), contiguous(indices), out
    _launch("max_pool_gather", arrays, out, x.shape[1:3], indices.shape[1:3], window, strides, padding, indices)
    return out


@reference.average_pool.on("cuda")
def average_pool(x, window, strides, padding):
    outputs = windows.output_size(x.shape[1:3], window, strides, padding)
    out = empty(x, (len(x), *outputs, x.shape[3]))
    _launch("average_pool", (contiguous(x), out), out, x.shape[1:3], outputs, window, strides, padding)
    return out


@reference.average_pool_gradient.on("cuda")
def average_pool_gradient(grad, size, window, strides, padding):
    out = empty(grad, (len(grad), *size, grad.shape[3]))
    _launch("average_pool_gradient", (contiguous(grad), out), out, size, grad.shape[1:3], window, strides, padding)
    return out


def _launch(name, arrays, out, size, outputs, window, strides, padding, indices=None):
    """A kernel over the rows and columns of `out`; `size` and `outputs` are lengths (down, across) of x and y."""
    if not out.size:
        return
    batch, height, width, channels = out.shape
    rows, columns = batch * height, width * channels
    across = min(BLOCK, -(-columns // 32) * 32)
    down = BLOCK // across
    grid = -(-columns // across), min(-(-rows // down), MAX_ROWS)
    args = (*arrays, rows, *size, channels, *outputs, *window, *strides, padding[0][0], padding[1][0])
    defines = () if indices is None else (f"INDEX={INDEX_NAMES[indices.dtype.name]}",)
    source("pooling.cu").launch(name, grid, (across, down), args, dtype=out.dtype, defines=defines)
