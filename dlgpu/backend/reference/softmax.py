"""Softmax, and the cross-entropies of softmax and sigmoid: from logits, and from probabilities.

Each cross-entropy returns its loss and what its backward needs. Rows are samples; a row's loss has one value.
"""

from dlgpu.backend.dispatch import array_namespace, kernel
from dlgpu.backend.reference.special import sigmoid, softplus

EPSILON = 1e-7  # probabilities are kept this far from 0 and 1 under a logarithm, as Keras keeps them


@kernel
def softmax(x, axis):
    """exp(x) / sum(exp(x)) along `axis` (an int, a tuple, or None for all), of x's shape and dtype.

    The largest value is taken out first, so that nothing overflows.
    """
    xp = array_namespace(x)
    y = xp.exp(x - x.max(axis=axis, keepdims=True))
    y /= y.sum(axis=axis, keepdims=True)
    return y


@kernel
def softmax_backward(grad, y, axis):
    """y * (grad - sum(grad * y)): the gradient by x, for y = softmax(x)."""
    weighted = grad * y
    weighted -= y * weighted.sum(axis=axis, keepdims=True)
    return weighted


@kernel
def log_softmax(x, axis):
    """x - log(sum(exp(x))) along `axis` (an int, a tuple, or None for all), of x's shape and dtype."""
    xp = array_namespace(x)
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted - xp.log(xp.exp(shifted).sum(axis=axis, keepdims=True))


@kernel
def log_softmax_backward(grad, y, axis):
    """grad - exp(y) * sum(grad): the gradient by x, for y = log_softmax(x)."""
    return grad - array_namespace(y).exp(y) * grad.sum(axis=axis, keepdims=True)


@kernel
def softmax_cross_entropy(logits, labels):
    """loss[i] = -log(softmax(logits[i])[labels[i]]), or -sum_j labels[i, j] log(softmax(logits[i])[j]).

    Args:
        logits: (rows, classes), floating.
        labels: (rows,), integers in [0, classes), or (rows, classes) of logits' dtype. An integer out of range makes
            its row's loss and gradient NaN; finding it would mean asking the device.
    Returns:
        loss (rows,), and the probabilities (rows, classes).
    """
    xp = array_namespace(logits)
    shifted = logits - logits.max(axis=1, keepdims=True)
    exponentials = xp.exp(shifted)
    total = exponentials.sum(axis=1, keepdims=True)
    if labels.ndim == 2:
        loss = (labels * (xp.log(total) - shifted)).sum(axis=1)
    else:
        total = _known(xp, total, labels, logits.shape[1])
        loss = xp.log(total[:, 0]) - shifted[label_places(labels, logits.shape[1])]
    exponentials /= total
    return loss, exponentials


@kernel
def softmax_cross_entropy_backward(grad, probabilities, labels):
    """grad[i] * (probabilities[i] - one_hot(labels[i])): the gradient by the logits, (rows, classes).

    Args:
        grad: (rows,).
        probabilities, labels: as returned by and given to `softmax_cross_entropy`.
    """
    if labels.ndim == 2:
        return grad[:, None] * (probabilities * labels.sum(axis=1, keepdims=True) - labels)
    by_logits = grad[:, None] * probabilities
    by_logits[label_places(labels, probabilities.shape[1])] -= grad
    return by_logits


@kernel
def categorical_cross_entropy(probabilities, labels):
    """loss[i] = -log(q[i, labels[i]]), or -sum_j labels[i, j] log(q[i, j]).

    q is the probabilities divided by their sum over a row, and clipped to [EPSILON, 1 - EPSILON].

    Args:
        probabilities: (rows, classes), floating.
        labels: as in `softmax_cross_entropy`.
    Returns:
        loss (rows,), and the rows' sums (rows, 1) and the probabilities.
    """
    xp = array_namespace(probabilities)
    total = probabilities.sum(axis=1, keepdims=True)
    if labels.ndim == 1:
        total = _known(xp, total, labels, probabilities.shape[1])
    quotients = probabilities / total
    if labels.ndim == 2:
        return -(labels * xp.log(_clipped(xp, quotients))).sum(axis=1), (total, probabilities)
    chosen = quotients[label_places(labels, probabilities.shape[1])]
    return -xp.log(_clipped(xp, chosen)), (total, probabilities)


@kernel
def categorical_cross_entropy_backward(grad, saved, labels):
    """The gradient by the probabilities, (rows, classes); nothing flows through a clipped quotient.

    Args:
        grad: (rows,).
        saved, labels: as returned by and given to `categorical_cross_entropy`.
    """
    xp = array_namespace(grad)
    total, probabilities = saved
    quotients = probabilities / total
    if labels.ndim == 2:
        clipped = _clipped(xp, quotients)
        by_quotients = grad[:, None] * (clipped == quotients) * labels / -clipped
        return (by_quotients - (by_quotients * quotients).sum(axis=1, keepdims=True)) / total
    places = label_places(labels, quotients.shape[1])
    chosen = quotients[places]
    clipped = _clipped(xp, chosen)
    share = grad * (clipped == chosen) / total[:, 0]
    by_probabilities = xp.repeat(share[:, None], quotients.shape[1], axis=1)
    by_probabilities[places] -= share / clipped
    return by_probabilities


@kernel
def sigmoid_cross_entropy(logits, targets):
    """loss[i] = mean_j(log(1 + exp(z[i, j])) - z[i, j] * t[i, j]).

    Args:
        logits: z, (rows, units), floating.
        targets: t, (rows, units) of the same dtype, in [0, 1].
    Returns:
        loss (rows,), and the logits.
    """
    return _row_means(softplus(logits) - logits * targets), logits


@kernel
def sigmoid_cross_entropy_backward(grad, logits, targets):
    """grad[i] * (sigmoid(z[i, j]) - t[i, j]) / units: the gradient by the logits, (rows, units)."""
    slope = sigmoid(logits)
    slope -= targets
    slope *= (grad / logits.shape[1])[:, None]
    return slope


@kernel
def binary_cross_entropy(probabilities, targets):
    """loss[i] = -mean_j(t[i, j] log(p[i, j]) + (1 - t[i, j]) log(1 - p[i, j])), p clipped to [EPSILON, 1 - EPSILON].

    Args:
        probabilities: p, (rows, units), floating.
        targets: t, (rows, units) of the same dtype, in [0, 1].
    Returns:
        loss (rows,), and the probabilities.
    """
    xp = array_namespace(probabilities)
    clipped = _clipped(xp, probabilities)
    loss = targets * xp.log(clipped)
    loss += (1 - targets) * xp.log1p(-clipped)
    return -_row_means(loss), probabilities


@kernel
def binary_cross_entropy_backward(grad, probabilities, targets):
    """grad[i] * (p - t) / (p (1 - p)) / units: the gradient by the probabilities; nothing flows where p was clipped."""
    clipped = _clipped(array_namespace(grad), probabilities)
    slope = (clipped - targets) / (clipped * (1 - clipped))
    slope *= probabilities == clipped
    slope *= (grad / clipped.shape[1])[:, None]
    return slope


def _clipped(xp, p):
    return xp.minimum(xp.maximum(p, EPSILON), 1 - EPSILON)


def _row_means(x):
    return x.reshape(len(x)) if x.shape[1] == 1 else x.sum(axis=1) / x.shape[1]


def _known(xp, total, labels, classes):
    """`total` (rows, 1), with NaN in the rows whose label is no class."""
    return xp.where(((labels >= 0) & (labels < classes))[:, None], total, xp.nan)


def label_places(labels, classes):
    """The index of each row's label, kept inside the array."""
    xp = array_namespace(labels)
    return xp.arange(len(labels)), xp.clip(labels.astype("int64", copy=False), 0, classes - 1)
