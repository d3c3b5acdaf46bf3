"""Cross-entropies of probabilities, and of a logit for each yes or no, on the CPU."""

import math

import numpy as np

from dlgpu.backend.cpu.arrays import by_reference, empty_like
from dlgpu.backend.cpu.jit import inline_jit, jit, sum_jit
from dlgpu.backend.cpu.softmax import backward_by_rows, by_rows, takes
from dlgpu.backend.cpu.special import clip, log, log1p, row_product, row_sum, sigmoid, softplus
from dlgpu.backend.recorder import empty
from dlgpu.backend.reference import softmax as reference

F = np.float32
EPSILON = reference.EPSILON


@reference.categorical_cross_entropy.on("cpu")
def categorical_cross_entropy(probabilities, labels):
    if not takes(probabilities, labels):
        return by_reference(reference.categorical_cross_entropy, probabilities, labels)
    rows, dtype = len(probabilities), probabilities.dtype
    loss, total, quotients = empty(rows, dtype), empty((rows, 1), dtype), empty_like(probabilities)
    loop = _categorical_cross_entropy if labels.ndim == 1 else _categorical_cross_entropy_dense
    by_rows(loop, probabilities, labels, loss, total.reshape(-1), quotients)
    return loss, (total, probabilities)


@reference.categorical_cross_entropy_backward.on("cpu")
def categorical_cross_entropy_backward(grad, saved, labels):
    total, probabilities = saved
    dense = labels.ndim == 2
    loop = _categorical_cross_entropy_dense_backward if dense else _categorical_cross_entropy_backward
    kernel, room = reference.categorical_cross_entropy_backward, [empty_like(probabilities)] if dense else []
    return backward_by_rows(kernel, loop, grad, saved, labels, probabilities, total.reshape(-1), *room)


@reference.sigmoid_cross_entropy.on("cpu")
def sigmoid_cross_entropy(logits, targets):
    if not takes(logits, targets):
        return by_reference(reference.sigmoid_cross_entropy, logits, targets)
    loss = empty(len(logits), logits.dtype)
    by_rows(_sigmoid_cross_entropy, logits, targets, loss)
    return loss, logits


@reference.sigmoid_cross_entropy_backward.on("cpu")
def sigmoid_cross_entropy_backward(grad, logits, targets):
    kernel = reference.sigmoid_cross_entropy_backward
    return backward_by_rows(kernel, _sigmoid_cross_entropy_backward, grad, logits, targets, logits)


@reference.binary_cross_entropy.on("cpu")
def binary_cross_entropy(probabilities, targets):
    if not takes(probabilities, targets):
        return by_reference(reference.binary_cross_entropy, probabilities, targets)
    loss, clipped = empty(len(probabilities), probabilities.dtype), empty_like(probabilities)
    by_rows(_binary_cross_entropy, probabilities, targets, loss, clipped)
    return loss, probabilities


@reference.binary_cross_entropy_backward.on("cpu")
def binary_cross_entropy_backward(grad, probabilities, targets):
    kernel = reference.binary_cross_entropy_backward
    return backward_by_rows(kernel, _binary_cross_entropy_backward, grad, probabilities, targets, probabilities)


@inline_jit
def _clip(p):
    return clip(p, type(p)(EPSILON), type(p)(1 - EPSILON))


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


# Loops over rows, of arrays as in softmax.py; totals are (rows,).


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
def _categorical_cross_entropy_backward(probabilities, labels, grad, by_probabilities, totals, start, stop):
    for i in range(start, stop):
        row, output, label = probabilities[i], by_probabilities[i], labels[i]
        nan = type(row[0])(math.nan)
        chosen = row[label] / totals[i] if 0 <= label < row.size else nan
        clipped = _clip(chosen)
        through = type(clipped)(1) if clipped == chosen else type(clipped)(0)
        share = grad[i] * through / totals[i]
        output[:] = share
        if 0 <= label < row.size:
            output[label] -= share / clipped


@jit
def _categorical_cross_entropy_dense_backward(
    probabilities, labels, grad, by_probabilities, totals, quotients, start, stop
):
    for i in range(start, stop):
        row, q, output = probabilities[i], quotients[i], by_probabilities[i]
        weights, g, total = labels[i], grad[i], totals[i]
        for j in range(q.size):
            q[j] = row[j] / total
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


def _mean_backward(slope):
    """by_x[i, j] = grad[i] / units * slope(x[i, j], targets[i, j]), all but grad (rows, units)."""

    @jit
    def mean_backward(x, targets, grad, by_x, start, stop):
        units = x.shape[1]
        for i in range(start, stop):
            row, t, output = x[i], targets[i], by_x[i]
            share = grad[i] / type(row[0])(units)
            for j in range(units):
                output[j] = slope(row[j], t[j]) * share

    return mean_backward


_sigmoid_cross_entropy_backward = _mean_backward(inline_jit(lambda z, t: sigmoid(z) - t))
_binary_cross_entropy_backward = _mean_backward(_binary_slope)
