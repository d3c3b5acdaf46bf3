"""Normalization: rows and channels brought to mean 0 and variance 1, in one pass each way.

Beside x of 16 bits all others are float32: scale, offset, statistics and their gradients.

Sums are matrix products with a vector of ones: many times faster than a reduction over rows, and more exact in
float32, because the product is summed in blocks.
"""

from dlgpu.backend.dispatch import array_namespace, kernel


@kernel(narrow="first result")
def batch_normalization(x, scale, offset, epsilon, mask):
    """output[i, c] = (x[i, c] - mean[c]) / sqrt(variance[c] + epsilon) * scale[c] + offset[c]

    mean[c] = sum_i mask[i] x[i, c] / count
    variance[c] = sum_i mask[i] (x[i, c] - mean[c])**2 / count, with count = max(sum_i mask[i], 1)

    Args:
        x: (rows, channels), floating.
        scale, offset: (channels,), or None for 1 and 0.
        epsilon: a small number added to the variance.
        mask: (rows,) booleans, the rows that count; or None for all.
    Returns:
        output (rows, channels) of x's dtype, mean (channels,), variance (channels,).
    """
    weights, count = row_weights(x, mask)
    mean = weights @ x / count
    output = x - mean
    variance = weights @ (output * output) / count
    output *= _factor(variance, scale, epsilon)
    if offset is not None:
        output += offset
    return output, mean, variance


@kernel(narrow="first result")
def batch_normalization_backward(grad, x, mean, variance, scale, epsilon, mask):
    """The gradients of `batch_normalization`, through its statistics too; n = (x - mean) / sqrt(variance + epsilon):

    grad_offset = sum_i grad[i], grad_scale = sum_i grad[i] n[i],
    grad_x[i] = scale / sqrt(variance + epsilon) (grad[i] - mask[i] / count (grad_offset + n[i] grad_scale))

    Args:
        grad, x: (rows, channels).
        mean, variance: (channels,), as returned by the forward pass.
        scale, epsilon, mask: as given to it.
    Returns:
        grad_x (rows, channels), grad_scale (channels,), grad_offset (channels,).
    """
    xp = array_namespace(x)
    weights, count = row_weights(x, mask)
    ones = xp.ones(len(x), x.dtype)
    normalized = x - mean
    normalized *= _factor(variance, None, epsilon)
    product = grad * normalized
    grad_offset, grad_scale = ones @ grad, ones @ product
    normalized *= grad_scale
    normalized += grad_offset
    normalized *= (weights / count)[:, None]
    grad_x = xp.subtract(grad, normalized, out=product)
    grad_x *= _factor(variance, scale, epsilon)
    return grad_x, grad_scale, grad_offset


@kernel(narrow="first result")
def normalize(x, mean, variance, scale, offset, epsilon):
    """(x - mean) / sqrt(variance + epsilon) * scale + offset, with given statistics.

    Args:
        x: (rows, channels), floating.
        mean, variance: (channels,).
        scale, offset: (channels,), or None for 1 and 0.
        epsilon: a small number added to the variance.
    Returns:
        (rows, channels).
    """
    output = x - mean
    output *= _factor(variance, scale, epsilon)
    if offset is not None:
        output += offset
    return output


@kernel(narrow="first result")
def layer_normalization(x, scale, offset, epsilon):
    """output[i, f] = (x[i, f] - mean[i]) / sqrt(variance[i] + epsilon) * scale[f] + offset[f]

    mean[i] and variance[i] are those of row i, the variance biased and in two passes.

    Args:
        x: (rows, features), floating.
        scale, offset: (features,), or None for 1 and 0.
        epsilon: a small number added to the variance.
    Returns:
        output (rows, features) of x's dtype, mean (rows,), variance (rows,).
    """
    mean = _row_mean(x)
    output = x - mean[:, None]
    variance = _row_mean(output * output)
    output *= _factor(variance, None, epsilon)[:, None]
    if scale is not None:
        output *= scale
    if offset is not None:
        output += offset
    return output, mean, variance


@kernel(narrow="first result")
def layer_normalization_backward(grad, x, mean, variance, scale, epsilon):
    """The gradients of `layer_normalization`; n = (x - mean) / sqrt(variance + epsilon), g = grad * scale:

    grad_offset[f] = sum_i grad[i, f], grad_scale[f] = sum_i grad[i, f] n[i, f],
    grad_x[i, f] = (g[i, f] - mean_f(g[i]) - n[i, f] mean_f(g[i] n[i])) / sqrt(variance[i] + epsilon)

    Args:
        grad, x: (rows, features).
        mean, variance: (rows,), as returned by the forward pass.
        scale, epsilon: as given to it.
    Returns:
        grad_x (rows, features), grad_scale (features,), grad_offset (features,).
    """
    xp = array_namespace(x)
    rows, features = x.shape
    ones = xp.ones(rows, x.dtype)
    scale = xp.ones(features, x.dtype) if scale is None else scale
    inverse = _factor(variance, None, epsilon)[:, None]
    normalized = x - mean[:, None]
    normalized *= inverse
    product = grad * normalized
    grad_offset, grad_scale = ones @ grad, ones @ product
    share = scale / max(features, 1)
    normalized *= (product @ share)[:, None]
    normalized += (grad @ share)[:, None]
    grad_x = xp.multiply(grad, scale, out=product)
    grad_x -= normalized
    grad_x *= inverse
    return grad_x, grad_scale, grad_offset


def row_weights(x, mask):
    """The weight of each row in the statistics, and their sum (1 where there is none)."""
    xp = array_namespace(x)
    if mask is None:
        return xp.ones(len(x), x.dtype), max(len(x), 1)
    weights = mask.astype(x.dtype)
    return weights, xp.maximum(weights.sum(), 1)


def _row_mean(x):
    return x @ array_namespace(x).ones(x.shape[1], x.dtype) / max(x.shape[1], 1)


def _factor(variance, scale, epsilon):
    """scale / sqrt(variance + epsilon)"""
    return (1 if scale is None else scale) / array_namespace(variance).sqrt(variance + epsilon)
