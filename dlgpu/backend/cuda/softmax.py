"""Softmax and cross-entropies on CUDA: a team of threads a row, in two passes of which the second hits the cache."""

import math

from dlgpu.backend.cuda.geometry import contiguous, empty, empty_like, empty_wide, rows_geometry
from dlgpu.backend.cuda.source import source
from dlgpu.backend.dispatch import array_namespace
from dlgpu.backend.reference import softmax as reference


@reference.softmax.on("cuda")
def softmax(x, axis):
    return _along("softmax", axis, x)


@reference.softmax_backward.on("cuda")
def softmax_backward(grad, y, axis):
    return _along("softmax_backward", axis, grad, y)


@reference.log_softmax.on("cuda")
def log_softmax(x, axis):
    return _along("log_softmax", axis, x)


@reference.log_softmax_backward.on("cuda")
def log_softmax_backward(grad, y, axis):
    return _along("log_softmax_backward", axis, grad, y)


@reference.softmax_cross_entropy.on("cuda")
def softmax_cross_entropy(logits, labels):
    if not logits.size:
        return reference.softmax_cross_entropy.reference(logits, labels)
    loss, probabilities = empty(logits, logits.shape[:1]), empty_like(logits)
    _launch("softmax_cross_entropy", logits.shape, logits, *_labels(labels), loss, probabilities)
    return loss, probabilities


@reference.softmax_cross_entropy_backward.on("cuda")
def softmax_cross_entropy_backward(grad, probabilities, labels):
    by_logits = empty_like(probabilities)
    _launch("softmax_cross_entropy_backward", probabilities.shape, grad, probabilities, *_labels(labels), by_logits)
    return by_logits


@reference.categorical_cross_entropy.on("cuda")
def categorical_cross_entropy(probabilities, labels):
    if not probabilities.size:
        return reference.categorical_cross_entropy.reference(probabilities, labels)
    rows = len(probabilities)
    loss, total = empty(probabilities, (rows,)), empty_wide(probabilities, (rows, 1))
    _launch("categorical_cross_entropy", probabilities.shape, probabilities, *_labels(labels), loss, total)
    return loss, (total, probabilities)


@reference.categorical_cross_entropy_backward.on("cuda")
def categorical_cross_entropy_backward(grad, saved, labels):
    total, probabilities = saved
    by_probabilities = empty_like(probabilities)
    arrays = grad, total, probabilities, *_labels(labels), by_probabilities
    _launch("categorical_cross_entropy_backward", probabilities.shape, *arrays)
    return by_probabilities


@reference.sigmoid_cross_entropy.on("cuda")
def sigmoid_cross_entropy(logits, targets):
    if not logits.size:
        return reference.sigmoid_cross_entropy.reference(logits, targets)
    loss = empty(logits, logits.shape[:1])
    _launch("sigmoid_cross_entropy", logits.shape, logits, targets, loss)
    return loss, logits


@reference.sigmoid_cross_entropy_backward.on("cuda")
def sigmoid_cross_entropy_backward(grad, logits, targets):
    by_logits = empty_like(logits)
    _launch("sigmoid_cross_entropy_backward", logits.shape, grad, logits, targets, by_logits)
    return by_logits


@reference.binary_cross_entropy.on("cuda")
def binary_cross_entropy(probabilities, targets):
    if not probabilities.size:
        return reference.binary_cross_entropy.reference(probabilities, targets)
    loss = empty(probabilities, probabilities.shape[:1])
    _launch("binary_cross_entropy", probabilities.shape, probabilities, targets, loss)
    return loss, probabilities


@reference.binary_cross_entropy_backward.on("cuda")
def binary_cross_entropy_backward(grad, probabilities, targets):
    by_probabilities = empty_like(probabilities)
    _launch("binary_cross_entropy_backward", probabilities.shape, grad, probabilities, targets, by_probabilities)
    return by_probabilities


def _along(name, axis, *arrays):
    """A kernel along axes: neighbours, which the kernel strides over, or others, which are moved to the end."""
    x = arrays[0]
    if not x.size or not x.ndim:
        return getattr(reference, name).reference(*arrays, axis)
    axes = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    axes = sorted(a % x.ndim for a in axes)
    if axes and axes[-1] - axes[0] >= len(axes):
        xp, ends = array_namespace(x), range(-len(axes), 0)
        moved = _along(name, tuple(ends), *(xp.moveaxis(a, axes, ends) for a in arrays))
        return xp.moveaxis(moved, ends, axes)
    columns = math.prod(x.shape[a] for a in axes)
    stride = math.prod(x.shape[axes[-1] + 1 :]) if axes else 1
    output = empty_like(x)
    _launch(name, (x.size // columns, columns, stride), *arrays, output)
    return output


def _labels(labels):
    """Labels that are integers, and labels that are weights; one of them None."""
    return (None, labels) if labels.ndim == 2 else (labels.astype("int64", copy=False), None)


def _launch(name, sizes, *arrays):
    """`sizes` are the rows, the columns, and if need be the stride between these."""
    rows, columns, *stride = sizes
    grid, block = rows_geometry(rows, columns, *stride)
    args = (*map(contiguous, arrays), *sizes)
    source("softmax.cu").launch(name, grid, block, args, dtype=arrays[0].dtype)
