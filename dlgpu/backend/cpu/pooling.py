"""Pooling on the host: each image once through the cache, channels in vectors, images shared between threads."""

import functools
from typing import NamedTuple

import numpy as np

from dlgpu.backend import windows
from dlgpu.backend.cpu.arrays import by_reference, compiled, compiled_or_integer, contiguous
from dlgpu.backend.cpu.jit import jit
from dlgpu.backend.cpu.native import flat
from dlgpu.backend.cpu.threads import share
from dlgpu.backend.recorder import empty
from dlgpu.backend.reference import pooling as reference

unsigned = np.uint64
GRAIN = 1 << 16  # values that are worth a thread


class Slide(NamedTuple):
    """How a window slides over images: integers that compiled loops read."""

    height: int
    width: int
    rows: int  # windows, from top to bottom
    columns: int
    window_rows: int
    window_columns: int
    row_stride: int
    column_stride: int
    top: int
    left: int
    channels: int


@functools.lru_cache(1024)
def _slide(size, channels, window, strides, padding):
    outputs = windows.output_size(size, window, strides, padding)
    return Slide(*size, *outputs, *window, *strides, padding[0][0], padding[1][0], channels)


def _loop(loop, values, batch, *args):
    """Go through the images, of so many values in all."""
    share(loop, batch, 1 + GRAIN * batch // max(1, values), *args)


@reference.max_pool.on("cpu")
def max_pool(x, window, strides, padding):
    if not compiled_or_integer(x):
        return by_reference(reference.max_pool, x, window, strides, padding)
    x, slide = contiguous(x), _slide(x.shape[1:3], x.shape[3], window, strides, padding)
    values = empty((len(x), slide.rows, slide.columns, slide.channels), x.dtype)
    indices = empty(values.shape, np.uint8 if window[0] * window[1] <= 256 else np.int32)
    row = len(x), slide.width * slide.channels
    largest, places = empty(row, x.dtype), empty(row, indices.dtype)
    _loop(_max_images, x.size, len(x), x, values, indices, largest, places, slide)
    return values, indices


@reference.max_pool_scatter.on("cpu")
def max_pool_scatter(grad, indices, size, window, strides, padding):
    if not compiled_or_integer(grad):
        return by_reference(reference.max_pool_scatter, grad, indices, size, window, strides, padding)
    slide = _slide(tuple(size), grad.shape[3], window, strides, padding)
    out = empty((len(grad), *size, slide.channels), grad.dtype)
    _loop(_scatter_images, out.size, len(out), contiguous(grad), contiguous(indices), out, slide)
    return out


@reference.max_pool_gather.on("cpu")
def max_pool_gather(x, indices, window, strides, padding):
    if not compiled_or_integer(x):
        return by_reference(reference.max_pool_gather, x, indices, window, strides, padding)
    slide = _slide(x.shape[1:3], x.shape[3], window, strides, padding)
    out = empty(indices.shape, x.dtype)
    _loop(_gather_images, out.size, len(out), contiguous(x), contiguous(indices), out, slide)
    return out


@reference.average_pool.on("cpu")
def average_pool(x, window, strides, padding):
    if not compiled(x):
        return by_reference(reference.average_pool, x, window, strides, padding)
    x, slide = contiguous(x), _slide(x.shape[1:3], x.shape[3], window, strides, padding)
    out = empty((len(x), slide.rows, slide.columns, slide.channels), x.dtype)
    _loop(_average_images, x.size, len(x), x, out, slide)
    return out


@reference.average_pool_gradient.on("cpu")
def average_pool_gradient(grad, size, window, strides, padding):
    if not compiled(grad):
        return by_reference(reference.average_pool_gradient, grad, size, window, strides, padding)
    slide = _slide(tuple(size), grad.shape[3], window, strides, padding)
    out = empty((len(grad), *size, slide.channels), grad.dtype)
    _loop(_share_images, out.size, len(out), contiguous(grad), out, slide)
    return out


@jit
def _seen(first, window, length):
    """The places in a window that lie in the input, where the window begins at `first`."""
    return max(0, -first), min(window, length - first)


@jit
def _max_of_image(x, values, indices, largest, places, slide):
    """The largest of each column of a window first, in long loops, and then of those.

    All are flat, as making slices of a few channels takes longer than they do; an unsigned index need not be looked at
    for counting from the end, which would end vectors.
    """
    channels, kind = unsigned(slide.channels), indices.dtype.type
    for o in range(slide.rows):
        row = o * slide.row_stride - slide.top
        first_row, end_row = _seen(row, slide.window_rows, slide.height)
        at, place = unsigned((row + first_row) * largest.size), kind(first_row * slide.window_columns)
        for c in range(unsigned(largest.size)):
            largest[c] = x[at + c]
            places[c] = place
        for i in range(first_row + 1, end_row):
            _keep_larger(largest, places, x, unsigned((row + i) * largest.size), kind(i * slide.window_columns))
        for p in range(slide.columns):
            column = p * slide.column_stride - slide.left
            first, end = _seen(column, slide.window_columns, slide.width)
            to, at = unsigned((o * slide.columns + p) * slide.channels), unsigned((column + first) * slide.channels)
            place = kind(first)
            for c in range(channels):
                values[to + c] = largest[at + c]
                indices[to + c] = kind(places[at + c] + place)
            for j in range(first + 1, end):
                at = unsigned((column + j) * slide.channels)
                _keep_larger_or_earlier(values, indices, to, largest, places, at, channels, kind(j))


@jit
def _keep_larger(values, indices, x, at, place):
    """A NaN wins over numbers and is not replaced: the first one gets the gradient."""
    for c in range(unsigned(values.size)):
        best, candidate = values[c], x[at + c]
        better = (best == best) & (not (candidate <= best))
        values[c] = candidate if better else best
        indices[c] = place if better else indices[c]


@jit
def _keep_larger_or_earlier(values, indices, to, largest, places, at, channels, further):
    """Likewise; of equal ones, the one with the lower place in the window."""
    for c in range(channels):
        best, candidate = values[to + c], largest[at + c]
        index, place = indices[to + c], indices.dtype.type(places[at + c] + further)
        better = (best == best) & (not (candidate <= best))
        same = (candidate == best) | ((candidate != candidate) & (best != best))
        better |= same & (place < index)
        values[to + c] = candidate if better else best
        indices[to + c] = place if better else index


@jit
def _scatter_to_image(grad, indices, out, slide):
    zero = out.dtype.type(0)
    apart = slide.row_stride >= slide.window_rows and slide.column_stride >= slide.window_columns
    whole = apart and slide.row_stride == slide.window_rows and slide.column_stride == slide.window_columns
    if not (whole and slide.top == 0 and slide.left == 0):
        out[:] = zero
    else:  # every value is written once, save for those beyond the last windows
        out[slide.rows * slide.row_stride :] = zero
        out[:, slide.columns * slide.column_stride :] = zero
    for o in range(slide.rows):
        row = o * slide.row_stride - slide.top
        first_row, end_row = _seen(row, slide.window_rows, slide.height)
        for p in range(slide.columns):
            column = p * slide.column_stride - slide.left
            first, end = _seen(column, slide.window_columns, slide.width)
            value, index = grad[o, p], indices[o, p]
            for i in range(first_row, end_row):
                for j in range(first, end):
                    target, place = out[row + i, column + j], indices.dtype.type(i * slide.window_columns + j)
                    if apart:
                        for c in range(slide.channels):
                            target[c] = value[c] if index[c] == place else zero
                    else:
                        for c in range(slide.channels):
                            target[c] += value[c] if index[c] == place else zero


@jit
def _gather_images(x, indices, out, slide, begin, end):
    for n in range(begin, end):
        for o in range(slide.rows):
            for p in range(slide.columns):
                row, column = o * slide.row_stride - slide.top, p * slide.column_stride - slide.left
                for c in range(slide.channels):
                    i, j = divmod(np.int64(indices[n, o, p, c]), slide.window_columns)
                    inside = 0 <= row + i < slide.height and 0 <= column + j < slide.width
                    out[n, o, p, c] = x[n, row + i, column + j, c] if inside else x.dtype.type(0)


@jit
def _average_of_image(x, out, slide):
    for o in range(slide.rows):
        row = o * slide.row_stride - slide.top
        first_row, end_row = _seen(row, slide.window_rows, slide.height)
        for p in range(slide.columns):
            column = p * slide.column_stride - slide.left
            first, end = _seen(column, slide.window_columns, slide.width)
            mean = out[o, p]
            mean[:] = out.dtype.type(0)
            for i in range(first_row, end_row):
                for j in range(first, end):
                    source = x[row + i, column + j]
                    for c in range(slide.channels):
                        mean[c] += source[c]
            count = out.dtype.type((end_row - first_row) * (end - first))
            for c in range(slide.channels):
                mean[c] /= count


@jit
def _share_to_image(grad, out, slide):
    out[:] = out.dtype.type(0)
    for o in range(slide.rows):
        row = o * slide.row_stride - slide.top
        first_row, end_row = _seen(row, slide.window_rows, slide.height)
        for p in range(slide.columns):
            column = p * slide.column_stride - slide.left
            first, end = _seen(column, slide.window_columns, slide.width)
            value, count = grad[o, p], out.dtype.type((end_row - first_row) * (end - first))
            for i in range(first_row, end_row):
                for j in range(first, end):
                    target = out[row + i, column + j]
                    for c in range(slide.channels):
                        target[c] += value[c] / count


@jit
def _max_images(x, values, indices, largest, places, slide, begin, end):
    for n in range(begin, end):
        _max_of_image(flat(x[n]), flat(values[n]), flat(indices[n]), largest[n], places[n], slide)


@jit
def _scatter_images(grad, indices, out, slide, begin, end):
    for n in range(begin, end):
        _scatter_to_image(grad[n], indices[n], out[n], slide)


@jit
def _average_images(x, out, slide, begin, end):
    for n in range(begin, end):
        _average_of_image(x[n], out[n], slide)


@jit
def _share_images(grad, out, slide, begin, end):
    for n in range(begin, end):
        _share_to_image(grad[n], out[n], slide)
