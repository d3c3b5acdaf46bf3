"""Softmax, and the cross-entropies of softmax and sigmoid, which go along the last axis: one value for each sample."""

import math
from collections.abc import Callable
from typing import Any

from dlgpu.autograd import recording
from dlgpu.backend.reference import softmax as kernels
from dlgpu.ops.activation import softplus
from dlgpu.ops.differentiation import pull_back
from dlgpu.ops.elementwise import clip, exp, log, log1p
from dlgpu.ops.operands import astype, floating
from dlgpu.ops.reduction import mean
from dlgpu.ops.shape import axes_of, one_hot
from dlgpu.tensor import Tensor, as_tensor, record, wrap


def softmax(x: Any, axis: Any = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along an axis, several, or all (None); no overflow."""
    x = floating(x)
    axes = axes_of(axis, x.ndim)
    return _softmax_of(x, kernels.softmax(x.array, axes), axes)


def _softmax_of(x: Tensor, array: Any, axes: tuple) -> Tensor:
    """`array`, which is the softmax of x along the axes, with its place on the tape."""

    def vjp(grad: Tensor, out: Tensor) -> tuple:
        if not recording():
            return (wrap(kernels.softmax_backward(grad.array, out.array, axes)),)
        weighted = grad * out
        return (weighted - out * weighted.sum(axes, keepdims=True),)

    return record(array, (x,), vjp, with_output=True)


def log_softmax(x: Any, axis: Any = -1) -> Tensor:
    """log(softmax(x)) along an axis, several, or all (None); exact where the softmax itself would be 0."""
    x = floating(x)
    axes = axes_of(axis, x.ndim)

    def vjp(grad: Tensor, out: Tensor) -> tuple:
        if not recording():
            return (wrap(kernels.log_softmax_backward(grad.array, out.array, axes)),)
        return (grad - exp(out) * grad.sum(axes, keepdims=True),)

    return record(kernels.log_softmax(x.array, axes), (x,), vjp, with_output=True)


def softmax_cross_entropy(logits: Any, labels: Any) -> Tensor:
    """-log(softmax(logits)) at the labels.

    Args:
        logits: (..., classes), floating.
        labels: (...,) integers in [0, classes), or (..., classes) weights of the classes, such as one-hot rows. An
            integer out of range makes its loss and its gradient NaN.
    Returns:
        (...,).
    """

    def composite(logits: Tensor, labels: Tensor) -> Tensor:
        return -_chosen(log_softmax(logits), labels)

    def again(grad: Tensor, source: Tensor, probabilities: Any, labels: Tensor) -> Tensor:
        p = _softmax_of(source, probabilities, (probabilities.ndim - 1,))
        if labels.ndim < p.ndim:
            return grad[..., None] * (p - one_hot(labels, p.shape[-1], p.dtype))
        return grad[..., None] * (p * labels.sum(-1, keepdims=True) - labels)

    forward, backward = kernels.softmax_cross_entropy, kernels.softmax_cross_entropy_backward
    return _row_loss(forward, backward, composite, logits, labels, True, again)


def categorical_cross_entropy(probabilities: Any, labels: Any) -> Tensor:
    """-log(q) at the labels, where q is the probabilities divided by their sum, clipped to [1e-7, 1 - 1e-7].

    Args:
        probabilities: (..., classes), floating.
        labels: as in `softmax_cross_entropy`, which is the more exact one where there are logits.
    Returns:
        (...,).
    """

    def composite(probabilities: Tensor, labels: Tensor) -> Tensor:
        quotients = probabilities / probabilities.sum(-1, keepdims=True)
        return -_chosen(log(clip(quotients, kernels.EPSILON, 1 - kernels.EPSILON)), labels)

    forward, backward = kernels.categorical_cross_entropy, kernels.categorical_cross_entropy_backward
    return _row_loss(forward, backward, composite, probabilities, labels, True)


def sigmoid_cross_entropy(logits: Any, targets: Any) -> Tensor:
    """-(t log(p) + (1 - t) log(1 - p)) with p = sigmoid(logits), averaged over the last axis.

    Args:
        logits: (..., units), floating.
        targets: t, (..., units), in [0, 1].
    Returns:
        (...,).
    """

    def composite(logits: Tensor, targets: Tensor) -> Tensor:
        return mean(softplus(logits) - logits * targets, -1)

    forward, backward = kernels.sigmoid_cross_entropy, kernels.sigmoid_cross_entropy_backward
    return _row_loss(forward, backward, composite, logits, targets, False)


def binary_cross_entropy(probabilities: Any, targets: Any) -> Tensor:
    """-(t log(p) + (1 - t) log(1 - p)), p clipped to [1e-7, 1 - 1e-7], averaged over the last axis.

    Args:
        probabilities: p, (..., units), floating.
        targets: t, (..., units), in [0, 1].
    Returns:
        (...,).
    """

    def composite(probabilities: Tensor, targets: Tensor) -> Tensor:
        p = clip(probabilities, kernels.EPSILON, 1 - kernels.EPSILON)
        return -mean(targets * log(p) + (1 - targets) * log1p(-p), -1)

    forward, backward = kernels.binary_cross_entropy, kernels.binary_cross_entropy_backward
    return _row_loss(forward, backward, composite, probabilities, targets, False)


def _chosen(logs: Tensor, labels: Tensor) -> Tensor:
    """The logarithms at integer labels, or summed with the labels as weights."""
    if labels.ndim == logs.ndim:
        return (logs * labels).sum(-1)
    rows = logs.reshape(math.prod(labels.shape), logs.shape[-1])
    return rows[kernels.label_places(labels.array.reshape(-1), logs.shape[-1])].reshape(labels.shape)


def _row_loss(
    forward: Callable,
    backward: Callable,
    composite: Callable,
    x: Any,
    targets: Any,
    takes_integers: bool,
    again: Callable | None = None,
) -> Tensor:
    """A kernel over the rows of x (..., n) and of the targets (..., n), or (...,) where they are integers.

    Where the derivative is to be differentiated, it is the composite's, of the rows that the kernel keeps; or
    again(grad, source, array, targets), if it keeps another array, of which x's place on the tape is the source.
    """
    x = floating(x)
    targets = as_tensor(targets, device=x.device)
    if type(targets.array) is not type(x.array):
        targets = targets.to(x.device)
    if takes_integers and targets.shape == x.shape[:-1] and targets.dtype.kind in "iu":
        flat = targets.array.reshape(-1)
    elif x.ndim and targets.shape == x.shape:
        targets = astype(targets, x.dtype)
        if targets.requires_grad:
            return composite(x, targets)
        flat = targets.array.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    else:
        integers = f"integers of shape {x.shape[:-1]} or " if takes_integers else ""
        raise ValueError(
            f"{forward.__name__}: expected {integers}targets of shape {x.shape}, "
            f"got {targets.dtype} of shape {targets.shape}"
        )
    rows = x.array.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    loss, saved = forward(rows, flat)
    source, shape, dtype = wrap(None, x.edge), x.shape, x.dtype  # not x, of which `saved` has what is needed

    def vjp(grad: Tensor) -> tuple:
        if not recording():
            return wrap(backward(grad.array.reshape(-1), saved, flat).reshape(shape)), None
        array = (saved[-1] if isinstance(saved, tuple) else saved).astype(dtype, copy=False).reshape(shape)
        if again is not None:
            return again(grad, source, array, targets), None
        known = record(array, (source,), lambda grad: (grad,))
        return pull_back([composite(known, targets)], [grad], [known], create_graph=True)[0], None

    return record(loss.reshape(shape[:-1]), (x, targets), vjp)
