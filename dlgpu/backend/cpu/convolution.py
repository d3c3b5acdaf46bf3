"""Convolutions on the host: products of small tiles straight from the images, with no unfolded copy of them.

A tile's sums stay in vector registers while it walks over what its windows see. Bands of a few rows of one image go
through together, so that they stay in a core's cache; they are padded there, and masked by relu's derivative.
"""

import functools

import numpy as np

from dlgpu.backend import windows
from dlgpu.backend.cpu.arrays import by_reference, compiled, contiguous
from dlgpu.backend.cpu.convolution_loops import Walk, add_parts, gather_bands, pack, sum_parts
from dlgpu.backend.cpu.threads import THREADS, share
from dlgpu.backend.cpu.tile import ROWS, code_of, columns
from dlgpu.backend.recorder import call, empty
from dlgpu.backend.reference import convolution as reference
from dlgpu.backend.reference.activation import FROM_INPUT, activation_backward, bias_activation

BAND_BYTES = 1 << 19  # of an image, that go through together
GRAIN = 1 << 21  # multiplications that are worth a thread


@reference.convolution.on("cpu")
def convolution(x, kernel, bias, name, strides, padding, dilation, groups):
    if not (compiled(x, kernel) and x.size and kernel.size):
        return by_reference(reference.convolution, x, kernel, bias, name, strides, padding, dilation, groups)
    size = windows.output_size(x.shape[1:3], kernel.shape[:2], strides, padding, dilation)
    z = empty((len(x), *size, kernel.shape[3]), x.dtype)
    taps = _taps(kernel.shape[:2], dilation, padding)
    least = 0 if name == "relu" else -np.inf
    _gather(
        contiguous(x), None, contiguous(kernel), bias, z, taps, _every(kernel), strides, (0, 0), (1, 1), groups, least
    )
    if name in ("linear", "relu"):
        return z, z
    return bias_activation(z, None, name, name not in FROM_INPUT)


@reference.convolution_backward.on("cpu")
def convolution_backward(grad, x, kernel, saved, name, needed, strides, padding, dilation, groups):
    geometry = strides, padding, dilation, groups
    if not (compiled(grad, x) and grad.size and x.size):
        return by_reference(reference.convolution_backward, grad, x, kernel, saved, name, needed, *geometry)
    if name not in ("linear", "relu"):
        grad = activation_backward(grad, saved, name)
    grad, mask = contiguous(grad), contiguous(saved) if name == "relu" else None
    by_x = by_kernel = by_bias = None
    if needed[0]:
        by_x = _data_gradient(grad, mask, kernel, x.shape[1:3], *geometry)
    if needed[1] or needed[2]:
        by_kernel, by_bias = _kernel_gradient(x, grad, mask, kernel.shape[:2], *geometry)
    return by_x, by_kernel if needed[1] else None, by_bias if needed[2] else None


@reference.convolution_data_gradient.on("cpu")
def convolution_data_gradient(grad, kernel, size, strides, padding, dilation, groups):
    if not (compiled(grad, kernel) and grad.size and kernel.size):
        return by_reference(reference.convolution_data_gradient, grad, kernel, size, strides, padding, dilation, groups)
    return _data_gradient(contiguous(grad), None, kernel, size, strides, padding, dilation, groups)


@reference.convolution_kernel_gradient.on("cpu")
def convolution_kernel_gradient(x, grad, window, strides, padding, dilation, groups):
    if not (compiled(x, grad) and x.size and grad.size):
        return by_reference(reference.convolution_kernel_gradient, x, grad, window, strides, padding, dilation, groups)
    return _kernel_gradient(x, contiguous(grad), None, window, strides, padding, dilation, groups)[0]


def _data_gradient(grad, mask, kernel, size, strides, padding, dilation, groups):
    """Results whose places agree modulo the strides see the same part of the kernel: a convolution for each such set.

    A gradient counts as 0 where `mask` is not positive.
    """
    out = empty((len(grad), *size, kernel.shape[2] * groups), grad.dtype)
    kernel = contiguous(kernel)
    for a in range(min(strides[0], size[0])):
        for b in range(min(strides[1], size[1])):
            taps, picked = zip(*map(_taps_that_meet, (a, b), strides, padding, dilation, kernel.shape))
            _gather(grad, mask, kernel, None, out, taps, picked, (1, 1), (a, b), strides, groups, -np.inf, True)
    return out


def _taps(window, dilation, padding):
    """For rows and for columns: how far each tap lies from where its window begins in the unpadded image."""
    return tuple(tuple(i * d - pad[0] for i in range(n)) for n, d, pad in zip(window, dilation, padding))


def _taps_that_meet(first, stride, pad, dilation, window):
    """For results first, first + stride, ... : which gradient each sees beyond its own number, and by which tap."""
    met = sorted(
        ((first + pad[0] - i * dilation) // stride, i)
        for i in range(window)
        if (first + pad[0] - i * dilation) % stride == 0
    )
    return tuple(o for o, _ in met), tuple(i for _, i in met)


def _every(kernel):
    return tuple(range(kernel.shape[0])), tuple(range(kernel.shape[1]))


def _gather(x, mask, kernel, bias, out, taps, picked, strides, first, step, groups, least, swapped=False):
    """out[n, first + step * (o, p)] = max(least, bias + sum over taps of x[n, (o, p) * strides + tap] @ kernel[tap])

    Args:
        mask: of x's shape; where it is not positive x counts as 0. Or None.
        taps: the offsets of rows, and of columns, in growing order; `picked` is their place in the kernel.
        swapped: the kernel maps its filters to its channels.
    """
    walk, runs = _walk(x.shape, out.shape, taps, strides, first, step, groups, x.dtype.itemsize, mask is not None)
    wide = columns(x.dtype)
    blocks, deep = groups * -(-walk.filters // wide), walk.runs * walk.length
    panels = empty((blocks, max(1, deep), wide), x.dtype)
    start = empty((blocks, wide), x.dtype)
    bias = start[:0].reshape(-1) if bias is None else contiguous(bias)
    call(pack, kernel, _indices(picked[0]), _indices(picked[1]), swapped, groups, bias, panels, start)
    units = len(x) * walk.bands
    lanes = _lanes(units, len(x) * walk.rows * walk.columns * panels.size)
    scratch = empty((lanes, _band_size(walk) + ROWS * wide), x.dtype)
    mask = x if mask is None else mask
    share(
        gather_bands, lanes, 1, x.reshape(-1), mask.reshape(-1), mask is not x, out.reshape(-1), panels, start,
        runs, scratch, walk, units, x.dtype.type(least), code_of(x.dtype),
    )  # fmt: skip


def _lanes(units, work):
    """How many threads are worth it for so many multiplications."""
    return min(units, THREADS, 1 + work // GRAIN)


def _kernel_gradient(x, grad, mask, window, strides, padding, dilation, groups):
    """The gradients by the kernel and by the bias. The sums are taken in a number of parts that only sizes decide."""
    x, filters = contiguous(x), grad.shape[3]
    depth = x.shape[3] // groups
    taps = _taps(window, dilation, padding)
    walk, runs = _walk(x.shape, grad.shape, taps, strides, (0, 0), (1, 1), groups, x.dtype.itemsize, False)
    wide = columns(x.dtype)
    blocks, deep = groups * -(-walk.filters // wide), walk.runs * walk.length
    units = len(x) * walk.bands
    parts = min(units, max(4, min(16, (1 << 21) // (deep * blocks * wide * x.dtype.itemsize))))
    sums = empty((parts, blocks, deep + 1, wide), x.dtype)
    lanes = _lanes(parts, len(x) * walk.rows * walk.columns * sums[0].size)
    images, grads = (
        empty((lanes, _band_size(walk)), x.dtype),
        empty((lanes, walk.band * walk.columns * filters + wide), x.dtype),
    )
    rows = _indices(tuple(o * walk.row_stride * walk.pitch for o in range(walk.band)))
    by_kernel, by_bias = empty((*window, depth, filters), x.dtype), empty(filters, x.dtype)
    mask = grad if mask is None else mask
    share(
        sum_parts, lanes, 1, x.reshape(-1), grad.reshape(-1), mask.reshape(-1), mask is not grad, sums,
        _one(x.dtype.char), runs, rows, images, grads, walk, units, code_of(x.dtype),
    )  # fmt: skip
    grain = 1 + GRAIN // sums[:, 0].size
    share(add_parts, blocks, grain, sums, by_kernel.reshape(deep, filters), by_bias, walk.filters)
    return by_kernel, by_bias


@functools.lru_cache(1024)
def _walk(source, out, taps, strides, first, step, groups, itemsize, masked):
    """The Walk from images of shape `source` to those of shape `out`, and where its runs begin."""
    batch, height, width, channels = source
    filters = out[3]
    size = tuple(-(-(n - f) // s) for n, f, s in zip(out[1:3], first, step))
    if not (taps[0] and taps[1]):
        taps = (0,), ()
    low = tuple(min(t, default=0) for t in taps)
    reach = tuple(max(t, default=0) - at + 1 for t, at in zip(taps, low))
    inside = all(
        at >= 0 and at + (n - 1) * s + r <= m for at, n, s, r, m in zip(low, size, strides, reach, (height, width))
    )
    padded = 0 if inside and not masked else (size[1] - 1) * strides[1] + reach[1]
    pitch = (padded or width) * channels
    together = groups == 1 and len(taps[1]) == reach[1]  # columns side by side are one run
    starts = tuple(
        (i - low[0]) * pitch + (j - low[1]) * channels for i in taps[0] for j in (taps[1][:1] if together else taps[1])
    )
    fits = (BAND_BYTES // (pitch * itemsize) - reach[0]) // strides[0] + 1
    band = max(1, min(size[0], fits, -(-size[0] // -(-8 // batch))))
    bands = -(-size[0] // band)
    band = -(-size[0] // bands)
    depth = channels // groups
    walk = Walk(
        height, width, channels, groups, depth, *size, *strides, *low, reach[0], pitch, padded, len(starts),
        depth * (len(taps[1]) if together else 1), filters // groups, -(-size[0] // band), band,
        (first[0] * out[2] + first[1]) * filters, out[1] * out[2] * filters, step[0] * out[2] * filters,
        step[1] * filters,
    )  # fmt: skip
    return walk, _indices(starts)


def _band_size(walk):
    """Values of a band's padded copy."""
    return walk.padded * ((walk.band - 1) * walk.row_stride + walk.span) * walk.channels


@functools.cache
def _one(dtype):
    """An array of a single 1: the product with ones is a fast sum."""
    return np.ones(1, dtype)


@functools.lru_cache(1024)
def _indices(values):
    return np.array(values, np.int64)
