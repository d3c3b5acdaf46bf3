"""Softmax and cross-entropies on the CPU: a row's passes follow each other while it is in the cache."""

import math

import numpy as np

from dlgpu.backend.cpu.arrays import by_reference, compiled, contiguous, empty_like
from dlgpu.backend.cpu.jit import by_dtype, inline_jit, jit, sum_jit
from dlgpu.backend.cpu.special import exp, log, log1p, row_product, row_sum, sigmoid, softplus
from dlgpu.backend.cpu.threads import share
from dlgpu.backend.recorder import empty
from dlgpu.backend.reference import softmax as reference

F, I, D, L = np.float32, np.int32, np.float64, np.int64
EPSILON = reference.EPSILON
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
    if not _takes(logits, labels):
        return by_reference(reference.softmax_cross_entropy, logits, labels)
    loss, probabilities = empty(len(logits), logits.dtype), empty_like(logits)
    loop = _softmax_cross_entropy if labels.ndim == 1 else _softmax_cross_entropy_dense
    _rows(loop, logits, labels, loss, probabilities)
    return loss, probabilities


@reference.softmax_cross_entropy_backward.on("cpu")
def softmax_cross_entropy_backward(grad, probabilities, labels):
    if not _takes(probabilities, labels):
        return by_reference(reference.softmax_cross_entropy_backward, grad, probabilities, labels)
    by_logits = empty_like(probabilities)
    loop = _softmax_cross_entropy_backward if labels.ndim == 1 else _softmax_cross_entropy_dense_backward
    _rows(loop, probabilities, labels, grad, by_logits)
    return by_logits


@reference.categorical_cross_entropy.on("cpu")
def categorical_cross_entropy(probabilities, labels):
    if not _takes(probabilities, labels):
        return by_reference(reference.categorical_cross_entropy, probabilities, labels)
    rows, dtype = len(probabilities), probabilities.dtype
    loss, total, quotients = empty(rows, dtype), empty((rows, 1), dtype), empty_like(probabilities)
    loop = _categorical_cross_entropy if labels.ndim == 1 else _categorical_cross_entropy_dense
    _rows(loop, probabilities, labels, loss, total.reshape(-1), quotients)
    return loss, (total, quotients)


@reference.categorical_cross_entropy_backward.on("cpu")
def categorical_cross_entropy_backward(grad, saved, labels):
    total, quotients = saved
    if not _takes(quotients, labels):
        return by_reference(reference.categorical_cross_entropy_backward, grad, saved, labels)
    by_probabilities = empty_like(quotients)
    loop = _categorical_cross_entropy_backward if labels.ndim == 1 else _categorical_cross_entropy_dense_backward
    _rows(loop, quotients, labels, grad, contiguous(total).reshape(-1), by_probabilities)
    return by_probabilities


@reference.sigmoid_cross_entropy.on("cpu")
def sigmoid_cross_entropy(logits, targets):
    if not _takes(logits, targets):
        return by_reference(reference.sigmoid_cross_entropy, logits, targets)
    loss = empty(len(logits), logits.dtype)
    _rows(_sigmoid_cross_entropy, logits, targets, loss)
    return loss, logits


@reference.sigmoid_cross_entropy_backward.on("cpu")
def sigmoid_cross_entropy_backward(grad, logits, targets):
    if not _takes(logits, targets):
        return by_reference(reference.sigmoid_cross_entropy_backward, grad, logits, targets)
    by_logits = empty_like(logits)
    _rows(_sigmoid_cross_entropy_backward, logits, targets, grad, by_logits)
    return by_logits


@reference.binary_cross_entropy.on("cpu")
def binary_cross_entropy(probabilities, targets):
    if not _takes(probabilities, targets):
        return by_reference(reference.binary_cross_entropy, probabilities, targets)
    loss, clipped = empty(len(probabilities), probabilities.dtype), empty_like(probabilities)
    _rows(_binary_cross_entropy, probabilities, targets, loss, clipped)
    return loss, (probabilities, clipped)


@reference.binary_cross_entropy_backward.on("cpu")
def binary_cross_entropy_backward(grad, saved, targets):
    probabilities, _ = saved
    if not _takes(probabilities, targets):
        return by_reference(reference.binary_cross_entropy_backward, grad, saved, targets)
    by_probabilities = empty_like(probabilities)
    _rows(_binary_cross_entropy_backward, probabilities, targets, grad, by_probabilities)
    return by_probabilities


def _takes(x, labels):
    """Whether the compiled loops know the dtypes and have something to do."""
    return x.size > 0 and (compiled(x, labels) if labels.ndim == 2 else compiled(x))


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
    _rows(loop, *(a.reshape(rows) for a in (*moved, output)))
    return output if axes == ends else np.moveaxis(output, ends, axes)


def _rows(loop, x, *others):
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
def _log_share(x, peak, logarithm):
    """Not in the loops that reassociate, in which the peak's digits would swamp the logarithm."""
    return (x - peak) - logarithm


@inline_jit
def _clip(p):
    low, high = type(p)(EPSILON), type(p)(1 - EPSILON)
    p = low if p < low else p
    return high if p > high else p


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


@sum_jit
def _clipped_loss(q, weights):
    total = type(q[0])(0)
    for j in range(q.size):
        total -= weights[j] * log(_clip(q[j]))
    return total


@sum_jit
def _sigmoid_loss(z, t):
    total = type(z[0])(0)
    for j in range(z.size):
        total += softplus(z[j]) - z[j] * t[j]
    return total


@sum_jit
def _binary_loss(p, t):
    total = type(p[0])(0)
    for j in range(p.size):
        total += _binary_term(p[j], t[j])
    return total


@jit
def _softmax(x, output, start, stop):
    for i in range(start, stop):
        row, y = x[i], output[i]
        peak = _peak(row)
        for j in range(row.size):
            y[j] = exp(row[j] - peak)
        total = row_sum(y)
        share = F(1) / total
        for j in range(row.size):
            y[j] *= share


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
        peak = _peak(row)
        for j in range(row.size):
            p[j] = exp(row[j] - peak)
        total = row_sum(p)
        if 0 <= label < row.size:
            loss[i] = -_log_share(row[label], peak, log(total))
        else:
            loss[i] = total = type(peak)(math.nan)
        share = F(1) / total
        for j in range(row.size):
            p[j] *= share


@jit
def _softmax_cross_entropy_dense(logits, labels, loss, probabilities, start, stop):
    for i in range(start, stop):
        row, p, weights = logits[i], probabilities[i], labels[i]
        peak = _peak(row)
        for j in range(row.size):
            p[j] = exp(row[j] - peak)
        total = row_sum(p)
        share, logarithm = F(1) / total, log(total)
        for j in range(row.size):
            p[j] *= share
        loss[i] = _dense_loss(row, weights, peak, logarithm)


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


@jit
def _categorical_cross_entropy(probabilities, labels, loss, totals, quotients, start, stop):
    for i in range(start, stop):
        row, q, label = probabilities[i], quotients[i], labels[i]
        total = row_sum(row)
        known = 0 <= label < row.size
        total = total if known else type(total)(math.nan)
        totals[i] = total
        for j in range(row.size):
            q[j] = row[j] / total
        loss[i] = -log(_clip(q[label])) if known else total


@jit
def _categorical_cross_entropy_dense(probabilities, labels, loss, totals, quotients, start, stop):
    for i in range(start, stop):
        row, q, weights = probabilities[i], quotients[i], labels[i]
        total = row_sum(row)
        totals[i] = total
        for j in range(row.size):
            q[j] = row[j] / total
        loss[i] = _clipped_loss(q, weights)


@jit
def _categorical_cross_entropy_backward(quotients, labels, grad, totals, by_probabilities, start, stop):
    for i in range(start, stop):
        q, output, label = quotients[i], by_probabilities[i], labels[i]
        nan = type(q[0])(math.nan)
        chosen = q[label] if 0 <= label < q.size else nan
        clipped = _clip(chosen)
        through = type(clipped)(1) if clipped == chosen else type(clipped)(0)
        share = grad[i] * through / totals[i]
        output[:] = share
        if 0 <= label < q.size:
            output[label] -= share / clipped


@jit
def _categorical_cross_entropy_dense_backward(quotients, labels, grad, totals, by_probabilities, start, stop):
    for i in range(start, stop):
        q, output, weights, g, total = quotients[i], by_probabilities[i], labels[i], grad[i], totals[i]
        for j in range(q.size):
            clipped = _clip(q[j])
            through = type(g)(1) if clipped == q[j] else type(g)(0)
            output[j] = g * through * weights[j] / -clipped
        value = row_product(output, q)
        for j in range(q.size):
            output[j] = (output[j] - value) / total


@jit
def _sigmoid_cross_entropy(logits, targets, loss, start, stop):
    units = logits.shape[1]
    for i in range(start, stop):
        total = _sigmoid_loss(logits[i], targets[i])
        loss[i] = total / type(total)(units)


@jit
def _sigmoid_cross_entropy_backward(logits, targets, grad, by_logits, start, stop):
    units = logits.shape[1]
    for i in range(start, stop):
        z, t, output = logits[i], targets[i], by_logits[i]
        share = grad[i] / type(z[0])(units)
        for j in range(units):
            output[j] = (sigmoid(z[j]) - t[j]) * share


@inline_jit
def _binary_term(p, t):
    return -(t * log(p) + (F(1) - t) * log1p(-p))


@inline_jit
def _binary_slope(p, t):
    c = _clip(p)
    return (c - t) / (c * (F(1) - c)) if p == c else (c - p if p != p else type(p)(0))


@jit
def _binary_cross_entropy(probabilities, targets, loss, clipped, start, stop):
    units = probabilities.shape[1]
    for i in range(start, stop):
        p, t, c = probabilities[i], targets[i], clipped[i]
        for j in range(units):
            c[j] = _clip(p[j])
        total = _binary_loss(c, t)
        loss[i] = total / type(total)(units)


@jit
def _binary_cross_entropy_backward(probabilities, targets, grad, by_probabilities, start, stop):
    units = probabilities.shape[1]
    for i in range(start, stop):
        p, t, output = probabilities[i], targets[i], by_probabilities[i]
        share = grad[i] / type(p[0])(units)
        for j in range(units):
            output[j] = _binary_slope(p[j], t[j]) * share
