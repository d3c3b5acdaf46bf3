"""Softmax, its logarithm and cross-entropy on the CPU: a row's passes follow each other while it is in the cache."""

import math

import numpy as np

from dlgpu.backend.cpu.arrays import by_reference, compiled, contiguous, empty_like
from dlgpu.backend.cpu.jit import by_dtype, inline_jit, jit, sum_jit
from dlgpu.backend.cpu.special import exp, log, row_product, row_sum
from dlgpu.backend.cpu.threads import share
from dlgpu.backend.recorder import empty
from dlgpu.backend.reference import softmax as reference

F, I, D, L = np.float32, np.int32, np.float64, np.int64
GRAIN = 2**16  # values that are worth a thread


@reference.softmax.on("cpu")
def softmax(x, axis):
    return _along(reference.softmax, _softmax, axis, x)


@reference.softmax_backward.on("cpu")
def softmax_backward(grad, y, axis):
    return _along(reference.softmax_backward, _softmax_backward, axis, grad, y)


@reference.log_softmax.on("cpu")
def log_softmax(x, axis):
    return _along(reference.log_softmax, _log_softmax, axis, x)


@reference.log_softmax_backward.on("cpu")
def log_softmax_backward(grad, y, axis):
    return _along(reference.log_softmax_backward, _log_softmax_backward, axis, grad, y)


@reference.softmax_cross_entropy.on("cpu")
def softmax_cross_entropy(logits, labels):
    if not takes(logits, labels):
        return by_reference(reference.softmax_cross_entropy, logits, labels)
    loss, probabilities = empty(len(logits), logits.dtype), empty_like(logits)
    loop = _softmax_cross_entropy if labels.ndim == 1 else _softmax_cross_entropy_dense
    by_rows(loop, logits, labels, loss, probabilities)
    return loss, probabilities


@reference.softmax_cross_entropy_backward.on("cpu")
def softmax_cross_entropy_backward(grad, probabilities, labels):
    loop = _softmax_cross_entropy_backward if labels.ndim == 1 else _softmax_cross_entropy_dense_backward
    return backward_by_rows(reference.softmax_cross_entropy_backward, loop, grad, probabilities, labels, probabilities)


def takes(x, labels):
    """Whether the compiled loops know the dtypes and have something to do."""
    return x.size > 0 and (compiled(x, labels) if labels.ndim == 2 else compiled(x))


def backward_by_rows(kernel, loop, grad, saved, labels, x, *more):
    """What kernel(grad, saved, labels) returns, of x's shape, by loop(x, labels, grad, result, *more) over rows."""
    if not takes(x, labels):
        return by_reference(kernel, grad, saved, labels)
    by_x = empty_like(x)
    by_rows(loop, x, labels, grad, by_x, *more)
    return by_x


def _along(kernel, loop, axis, *arrays):
    """A loop over rows, made of the given axes, which are moved to the end for it."""
    x = arrays[0]
    if not x.size or not x.ndim or not compiled(*arrays):
        return by_reference(kernel, *arrays, axis)
    axes = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    axes = sorted(a % x.ndim for a in axes)
    ends = list(range(x.ndim - len(axes), x.ndim))
    moved = [contiguous(a if axes == ends else np.moveaxis(a, axes, ends)) for a in arrays]
    output = empty_like(moved[0])
    rows = (-1, math.prod(x.shape[a] for a in axes))
    by_rows(loop, *(a.reshape(rows) for a in (*moved, output)))
    return output if axes == ends else np.moveaxis(output, ends, axes)


def by_rows(loop, x, *others):
    """Run a loop over the rows of these arrays, on as many threads as they are worth."""
    rows, columns = x.shape
    share(loop, rows, GRAIN // columns + 1, *(contiguous(a) for a in (x, *others)))


# The bits of a floating number as an integer: the larger the number, the larger.
ordered = by_dtype(
    inline_jit(lambda x: I(F(x).view(I) ^ ((F(x).view(I) >> I(31)) & I(0x7FFFFFFF)))),
    inline_jit(lambda x: D(x).view(L) ^ ((D(x).view(L) >> L(63)) & L(2**63 - 1))),
)
# The number of which `ordered` made these bits.
disordered = by_dtype(
    inline_jit(lambda bits: I(bits ^ ((bits >> I(31)) & I(0x7FFFFFFF))).view(F)),
    inline_jit(lambda bits: L(bits ^ ((bits >> L(63)) & L(2**63 - 1))).view(D)),
)


@inline_jit
def _peak(row):
    """The largest number; of integers, because a maximum of floating numbers is not vectorized. NaN may be passed over:
    the sum of the row's exponentials is NaN all the same.
    """
    best = ordered(row[0])
    for j in range(1, row.size):
        best = max(best, ordered(row[j]))
    return disordered(best)


@inline_jit
def _exponentials(row, y):
    """y[j] = exp(row[j] - peak); (peak, sum_j y[j])"""
    peak = _peak(row)
    for j in range(row.size):
        y[j] = exp(row[j] - peak)
    return peak, row_sum(y)


@inline_jit
def _divide(y, total):
    """y[j] /= total"""
    share = F(1) / total
    for j in range(y.size):
        y[j] *= share


@inline_jit
def _log_share(x, peak, logarithm):
    """Not in the loops that reassociate, in which the peak's digits would swamp the logarithm."""
    return (x - peak) - logarithm


@sum_jit
def _exponential_sum(row, peak):
    total = type(peak)(0)
    for j in range(row.size):
        total += exp(row[j] - peak)
    return total


@sum_jit
def _dense_loss(row, weights, peak, logarithm):
    total = type(peak)(0)
    for j in range(row.size):
        total -= weights[j] * _log_share(row[j], peak, logarithm)
    return total


# Loops over the rows from start to stop of arrays (rows, columns); losses, their gradients, and labels that are numbers
# of columns are (rows,). "Dense" labels are (rows, columns), a weight for each.


@jit
def _softmax(x, output, start, stop):
    for i in range(start, stop):
        _, total = _exponentials(x[i], output[i])
        _divide(output[i], total)


@jit
def _softmax_backward(grad, y, output, start, stop):
    for i in range(start, stop):
        g, p, by_x = grad[i], y[i], output[i]
        total = row_product(g, p)
        for j in range(g.size):
            by_x[j] = g[j] * p[j] - p[j] * total


@jit
def _log_softmax(x, output, start, stop):
    for i in range(start, stop):
        row, y = x[i], output[i]
        peak = _peak(row)
        logarithm = log(_exponential_sum(row, peak))
        for j in range(row.size):
            y[j] = _log_share(row[j], peak, logarithm)


@jit
def _log_softmax_backward(grad, y, output, start, stop):
    for i in range(start, stop):
        g, logarithms, by_x = grad[i], y[i], output[i]
        total = row_sum(g)
        for j in range(g.size):
            by_x[j] = g[j] - exp(logarithms[j]) * total


@jit
def _softmax_cross_entropy(logits, labels, loss, probabilities, start, stop):
    for i in range(start, stop):
        row, p, label = logits[i], probabilities[i], labels[i]
        peak, total = _exponentials(row, p)
        if 0 <= label < row.size:
            loss[i] = -_log_share(row[label], peak, log(total))
        else:
            loss[i] = total = type(peak)(math.nan)
        _divide(p, total)


@jit
def _softmax_cross_entropy_dense(logits, labels, loss, probabilities, start, stop):
    for i in range(start, stop):
        row, p, weights = logits[i], probabilities[i], labels[i]
        peak, total = _exponentials(row, p)
        _divide(p, total)
        loss[i] = _dense_loss(row, weights, peak, log(total))


@jit
def _softmax_cross_entropy_backward(probabilities, labels, grad, by_logits, start, stop):
    for i in range(start, stop):
        p, output, g, label = probabilities[i], by_logits[i], grad[i], labels[i]
        for j in range(p.size):
            output[j] = g * p[j]
        if 0 <= label < p.size:
            output[label] -= g


@jit
def _softmax_cross_entropy_dense_backward(probabilities, labels, grad, by_logits, start, stop):
    for i in range(start, stop):
        p, output, g, weights = probabilities[i], by_logits[i], grad[i], labels[i]
        total = row_sum(weights)
        for j in range(p.size):
            output[j] = g * (p[j] * total - weights[j])
