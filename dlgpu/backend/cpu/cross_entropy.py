"""Cross-entropies of probabilities, and of a logit for each yes or no, on the CPU."""

import math

import numpy as np

from dlgpu.backend.cpu.arrays import by_reference, contiguous, empty_like
from dlgpu.backend.cpu.jit import inline_jit, jit, sum_jit
from dlgpu.backend.cpu.softmax import by_rows, takes
from dlgpu.backend.cpu.special import log, log1p, row_product, row_sum, sigmoid, softplus
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
    return loss, (total, quotients)


@reference.categorical_cross_entropy_backward.on("cpu")
def categorical_cross_entropy_backward(grad, saved, labels):
    total, quotients = saved
    if not takes(quotients, labels):
        return by_reference(reference.categorical_cross_entropy_backward, grad, saved, labels)
    by_probabilities = empty_like(quotients)
    loop = _categorical_cross_entropy_backward if labels.ndim == 1 else _categorical_cross_entropy_dense_backward
    by_rows(loop, quotients, labels, grad, contiguous(total).reshape(-1), by_probabilities)
    return by_probabilities


@reference.sigmoid_cross_entropy.on("cpu")
def sigmoid_cross_entropy(logits, targets):
    if not takes(logits, targets):
        return by_reference(reference.sigmoid_cross_entropy, logits, targets)
    loss = empty(len(logits), logits.dtype)
    by_rows(_sigmoid_cross_entropy, logits, targets, loss)
    return loss, logits


@reference.sigmoid_cross_entropy_backward.on("cpu")
def sigmoid_cross_entropy_backward(grad, logits, targets):
    if not takes(logits, targets):
        return by_reference(reference.sigmoid_cross_entropy_backward, grad, logits, targets)
    by_logits = empty_like(logits)
    by_rows(_sigmoid_cross_entropy_backward, logits, targets, grad, by_logits)
    return by_logits


@reference.binary_cross_entropy.on("cpu")
def binary_cross_entropy(probabilities, targets):
    if not takes(probabilities, targets):
        return by_reference(reference.binary_cross_entropy, probabilities, targets)
    loss, clipped = empty(len(probabilities), probabilities.dtype), empty_like(probabilities)
    by_rows(_binary_cross_entropy, probabilities, targets, loss, clipped)
    return loss, (probabilities, clipped)


@reference.binary_cross_entropy_backward.on("cpu")
def binary_cross_entropy_backward(grad, saved, targets):
    probabilities, _ = saved
    if not takes(probabilities, targets):
        return by_reference(reference.binary_cross_entropy_backward, grad, saved, targets)
    by_probabilities = empty_like(probabilities)
    by_rows(_binary_cross_entropy_backward, probabilities, targets, grad, by_probabilities)
    return by_probabilities


@inline_jit
def _clip(p):
    low, high = type(p)(EPSILON), type(p)(1 - EPSILON)
    p = low if p < low else p
    return high if p > high else p


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
