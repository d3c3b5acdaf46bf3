"""Normalization on the CPU: memory is read once for the statistics and once for the result.

Sums over rows are those of blocks of rows, whatever the number of threads; the blocks' are added up in float64.
"""

import numpy as np

from dlgpu.backend.cpu.arrays import by_reference, compiled, contiguous, empty_like
from dlgpu.backend.cpu.jit import jit, sum_jit
from dlgpu.backend.cpu.special import row_sum
from dlgpu.backend.cpu.threads import share
from dlgpu.backend.recorder import call, empty
from dlgpu.backend.reference import normalization as reference

F = np.float32
GRAIN = 2**17  # values that are worth a thread
BLOCK = 128  # rows whose sums are added up one after another


@reference.batch_normalization.on("cpu")
def batch_normalization(x, scale, offset, epsilon, mask):
    if not compiled(x, scale, offset) or not x.size:
        return by_reference(reference.batch_normalization, x, scale, offset, epsilon, mask)
    x, scale, offset, mask = map(contiguous, (x, scale, offset, mask))
    channels = x.shape[1]
    mean, variance, factor = (empty(channels, x.dtype) for _ in range(3))
    means, rests, squares, counts = _partial(x), _partial(x), _partial(x), empty(_blocks(x), x.dtype)
    _share_blocks(_batch_parts, x, mask, means, rests, squares, counts)
    call(_batch_statistics, means, squares, counts, mean, variance)
    call(_factor, variance, scale, epsilon, factor)
    return _scaled(x, mean, factor, offset), mean, variance


@reference.batch_normalization_backward.on("cpu")
def batch_normalization_backward(grad, x, mean, variance, scale, epsilon, mask):
    if not compiled(grad, x, mean, variance, scale) or not x.size:
        return by_reference(reference.batch_normalization_backward, grad, x, mean, variance, scale, epsilon, mask)
    grad, x, mean, variance, scale, mask = map(contiguous, (grad, x, mean, variance, scale, mask))
    grad_x, (inverse, factor, grad_scale, grad_offset) = empty_like(x), (empty_like(mean) for _ in range(4))
    by_scale, by_offset, share_of_row = _partial(x), _partial(x), empty(1, x.dtype)
    call(_factor, variance, None, epsilon, inverse)
    call(_factor, variance, scale, epsilon, factor)
    _share_blocks(_batch_gradient_sums, grad, x, mean, inverse, by_scale, by_offset)
    call(_batch_gradient_totals, by_scale, by_offset, grad_scale, grad_offset, mask, len(x), share_of_row)
    arrays = (grad, x, mean, inverse, factor, grad_scale, grad_offset, mask, share_of_row, grad_x)
    _share_rows(_batch_gradient, *arrays)
    return grad_x, grad_scale, grad_offset


@reference.normalize.on("cpu")
def normalize(x, mean, variance, scale, offset, epsilon):
    if not compiled(x, mean, variance, scale, offset) or not x.size:
        return by_reference(reference.normalize, x, mean, variance, scale, offset, epsilon)
    factor = empty(x.shape[1], x.dtype)
    call(_factor, variance, scale, epsilon, factor)
    return _scaled(contiguous(x), mean, factor, contiguous(offset))


@reference.layer_normalization.on("cpu")
def layer_normalization(x, scale, offset, epsilon):
    if not compiled(x, scale, offset) or not x.size:
        return by_reference(reference.layer_normalization, x, scale, offset, epsilon)
    x, scale, offset = map(contiguous, (x, scale, offset))
    output, mean, variance = empty_like(x), empty(len(x), x.dtype), empty(len(x), x.dtype)
    _share_rows(_layer_normalization, x, scale, offset, epsilon, output, mean, variance)
    return output, mean, variance


@reference.layer_normalization_backward.on("cpu")
def layer_normalization_backward(grad, x, mean, variance, scale, epsilon):
    if not compiled(grad, x, mean, variance, scale) or not x.size:
        return by_reference(reference.layer_normalization_backward, grad, x, mean, variance, scale, epsilon)
    grad, x, mean, variance, scale = map(contiguous, (grad, x, mean, variance, scale))
    features = x.shape[1]
    grad_x, grad_scale, grad_offset = empty_like(x), empty(features, x.dtype), empty(features, x.dtype)
    by_scale, by_offset = _partial(x), _partial(x)
    _share_blocks(_layer_gradient, grad, x, mean, variance, scale, epsilon, grad_x, by_scale, by_offset)
    call(_add_up, by_scale, grad_scale)
    call(_add_up, by_offset, grad_offset)
    return grad_x, grad_scale, grad_offset


def _blocks(x):
    return -(-len(x) // BLOCK)


def _partial(x):
    """Room for a sum of each block and column."""
    return empty((_blocks(x), x.shape[1]), x.dtype)


def _share_rows(function, x, *args):
    share(function, len(x), GRAIN // x.shape[1] + 1, x, *args)


def _share_blocks(function, x, *args):
    share(function, _blocks(x), GRAIN // (BLOCK * x.shape[1]) + 1, x, *args)


def _scaled(x, mean, factor, offset):
    output = empty_like(x)
    _share_rows(_scale_rows, x, contiguous(mean), factor, offset, output)
    return output


@jit
def _factor(variance, scale, epsilon, output):
    """scale / sqrt(variance + epsilon)"""
    for j in range(output.size):
        inverse = F(1) / np.sqrt(variance[j] + type(variance[j])(epsilon))
        output[j] = inverse if scale is None else inverse * scale[j]


@jit
def _scale_rows(x, mean, factor, offset, output, start, stop):
    for i in range(start, stop):
        row, y = x[i], output[i]
        for j in range(row.size):
            y[j] = (row[j] - mean[j]) * factor[j] if offset is None else (row[j] - mean[j]) * factor[j] + offset[j]


@jit
def _batch_parts(x, mask, means, rests, squares, counts, start, stop):
    """Of each block of rows the number, the mean, and the sum of squared distances from that mean."""
    for parts in (means, rests, squares):
        parts[start:stop] = 0
    for block in range(start, stop):
        rows, mean, rest, square = x[block * BLOCK : (block + 1) * BLOCK], means[block], rests[block], squares[block]
        count = type(mean[0])(0)
        for i in range(len(rows)):
            weight = type(count)(1)
            if mask is not None:
                weight = type(count)(mask[block * BLOCK + i])
            count += weight
            for j in range(mean.size):
                mean[j] += weight * rows[i, j]
        share = F(1) / max(count, type(count)(1))
        for j in range(mean.size):
            mean[j] *= share
        for i in range(len(rows)):
            weight = type(count)(1)
            if mask is not None:
                weight = type(count)(mask[block * BLOCK + i])
            for j in range(mean.size):
                distance = rows[i, j] - mean[j]
                rest[j] += weight * distance
                square[j] += weight * (distance * distance)
        for j in range(mean.size):  # what the rounding of the mean left over
            square[j] -= rest[j] * rest[j] * share
            mean[j] += rest[j] * share
        counts[block] = count


@jit
def _batch_statistics(means, squares, counts, mean, variance):
    """The statistics of all blocks from those of each."""
    number = 0.0
    for block in range(counts.size):
        number += counts[block]
    number = max(number, 1.0)
    for j in range(mean.size):
        total, square = 0.0, 0.0
        for block in range(counts.size):
            total += counts[block] * np.float64(means[block, j])
        average = total / number
        for block in range(counts.size):
            distance = means[block, j] - average
            square += squares[block, j] + counts[block] * (distance * distance)
        mean[j] = average
        variance[j] = square / number
        if variance[j] < 0:  # of equal values, by rounding
            variance[j] = 0


@jit
def _batch_gradient_sums(grad, x, mean, inverse, by_scale, by_offset, start, stop):
    """Of each block of rows the sums of grad, and of grad times the normalized x."""
    by_scale[start:stop] = 0
    by_offset[start:stop] = 0
    for block in range(start, stop):
        scales, offsets = by_scale[block], by_offset[block]
        g, rows = grad[block * BLOCK : (block + 1) * BLOCK], x[block * BLOCK : (block + 1) * BLOCK]
        for i in range(len(rows)):
            for j in range(offsets.size):
                offsets[j] += g[i, j]
                scales[j] += g[i, j] * ((rows[i, j] - mean[j]) * inverse[j])


@jit
def _batch_gradient_totals(by_scale, by_offset, grad_scale, grad_offset, mask, rows, share_of_row):
    """The blocks' sums added up, and the share that each row has in the mean."""
    _add_up(by_scale, grad_scale)
    _add_up(by_offset, grad_offset)
    count = rows
    if mask is not None:
        count = 0
        for i in range(rows):
            count += mask[i]
    share_of_row[0] = 1 / max(count, 1)


@jit
def _batch_gradient(grad, x, mean, inverse, factor, grad_scale, grad_offset, mask, share_of_row, grad_x, start, stop):
    for i in range(start, stop):
        row, g, output, share = x[i], grad[i], grad_x[i], share_of_row[0]
        if mask is not None:
            share = share * type(share)(mask[i])
        for j in range(row.size):
            normalized = (row[j] - mean[j]) * inverse[j]
            output[j] = (g[j] - share * (grad_offset[j] + normalized * grad_scale[j])) * factor[j]


@jit
def _add_up(parts, output):
    """output[j] = sum_i parts[i, j]"""
    for j in range(output.size):
        total = 0.0
        for block in range(len(parts)):
            total += parts[block, j]
        output[j] = total


@sum_jit
def _deviations(row, average):
    """sum_j (row[j] - average), which is what rounding has left of 0, and the sum of their squares."""
    rest, squares = type(average)(0), type(average)(0)
    for j in range(row.size):
        rest += row[j] - average
        squares += (row[j] - average) * (row[j] - average)
    return rest, squares


@sum_jit
def _normalized_product(x, row, average, inverse):
    """sum_j x[j] (row[j] - average) inverse"""
    total = type(average)(0)
    for j in range(row.size):
        total += x[j] * ((row[j] - average) * inverse)
    return total


@jit
def _layer_normalization(x, scale, offset, epsilon, output, mean, variance, start, stop):
    features = x.shape[1]
    for i in range(start, stop):
        row, y = x[i], output[i]
        share = F(1) / type(row[0])(features)
        average = row_sum(row) * share
        rest, squares = _deviations(row, average)
        rest *= share
        mean[i], variance[i] = average + rest, squares * share - rest * rest
        if variance[i] < 0:  # of equal values, by rounding
            variance[i] = 0
        inverse = F(1) / np.sqrt(variance[i] + type(average)(epsilon))
        for j in range(features):
            value = ((row[j] - average) - rest) * inverse
            if scale is not None:
                value = value * scale[j]
            y[j] = value if offset is None else value + offset[j]


@jit
def _layer_gradient(grad, x, mean, variance, scale, epsilon, grad_x, by_scale, by_offset, start, stop):
    """grad_x, and the sums of grad and of grad times the normalized x over each block of rows."""
    rows, features = x.shape
    by_scale[start:stop] = 0
    by_offset[start:stop] = 0
    for block in range(start, stop):
        scales, offsets = by_scale[block], by_offset[block]
        for i in range(block * BLOCK, min((block + 1) * BLOCK, rows)):
            row, g, output = x[i], grad[i], grad_x[i]
            share, average = F(1) / type(row[0])(features), mean[i]
            inverse = F(1) / np.sqrt(variance[i] + type(average)(epsilon))
            for j in range(features):
                output[j] = g[j] if scale is None else g[j] * scale[j]
            total = row_sum(output) * share
            product = _normalized_product(output, row, average, inverse) * share
            for j in range(features):
                normalized = (row[j] - average) * inverse
                output[j] = (output[j] - total - normalized * product) * inverse
                offsets[j] += g[j]
                scales[j] += g[j] * normalized
