"""Softmax, and the cross-entropies of softmax and sigmoid, which go along the last axis: one value for each sample."""

import math
from collections.abc import Callable
from typing import Any

from dlgpu.autograd import recording
from dlgpu.backend.reference import softmax as kernels
from dlgpu.ops.activation import softplus
from dlgpu.ops.differentiation import with_composite
from dlgpu.ops.elementwise import clip, exp, log, log1p
from dlgpu.ops.operands import astype, floating
from dlgpu.ops.reduction import mean
from dlgpu.ops.shape import axes_of
from dlgpu.tensor import Tensor, as_tensor, record, wrap


def softmax(x: Any, axis: Any = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along an axis, several, or all (None); no overflow."""
    x = floating(x)
    axes = axes_of(axis, x.ndim)

    def vjp(grad: Tensor, out: Tensor) -> tuple:
        if not recording():
            return (wrap(kernels.softmax_backward(grad.array, out.array, axes)),)
        weighted = grad * out
        return (weighted - out * weighted.sum(axes, keepdims=True),)

    return record(kernels.softmax(x.array, axes), (x,), vjp, with_output=True)


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

    return _row_loss(
        kernels.softmax_cross_entropy, kernels.softmax_cross_entropy_backward, composite, logits, labels, True
    )


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

    return _row_loss(
        kernels.categorical_cross_entropy,
        kernels.categorical_cross_entropy_backward,
        composite,
        probabilities,
        labels,
        True,
    )


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

    return _row_loss(
        kernels.sigmoid_cross_entropy, kernels.sigmoid_cross_entropy_backward, composite, logits, targets, False
    )


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

    return _row_loss(
        kernels.binary_cross_entropy, kernels.binary_cross_entropy_backward, composite, probabilities, targets, False
    )


def _chosen(logs: Tensor, labels: Tensor) -> Tensor:
    """The logarithms at integer labels, or summed with the labels as weights."""
    if labels.ndim == logs.ndim:
        return (logs * labels).sum(-1)
    rows = logs.reshape(math.prod(labels.shape), logs.shape[-1])
    return rows[kernels.label_places(labels.array.reshape(-1), logs.shape[-1])].reshape(labels.shape)


def _row_loss(
    forward: Callable, backward: Callable, composite: Callable, x: Any, targets: Any, takes_integers: bool
) -> Tensor:
    """A kernel over the rows of x (..., n) and of the targets (..., n), or (...,) where they are integers."""
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

    def vjp(grad: Tensor) -> tuple:
        return wrap(backward(grad.array.reshape(-1), saved, flat).reshape(x.shape)), None

    return record(loss.reshape(x.shape[:-1]), (x, targets), with_composite(vjp, composite, (x, targets)))
