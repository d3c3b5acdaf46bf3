"""Batch and layer normalization."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dlgpu.backend.dispatch import array_namespace
from dlgpu.backend.narrow import is_narrow
from dlgpu.backend.reference import normalization as kernels
from dlgpu.ops.differentiation import with_composite
from dlgpu.ops.elementwise import sqrt, square
from dlgpu.ops.operands import astype, floating, raw, together
from dlgpu.ops.reduction import mean, sum
from dlgpu.ops.shape import axes_of, axis_of, reshape, transpose
from dlgpu.tensor import Tensor, beside, record, wrap


def batch_normalization(
    x: Any,
    scale: Tensor | None = None,
    offset: Tensor | None = None,
    axis: int = -1,
    epsilon: float = 1e-3,
    mask: Any = None,
) -> tuple[Tensor, Any, Any]:
    """Normalize each channel by the mean and variance of the batch: over all axes but one.

    Args:
        x: floating, of 2 or more dimensions.
        scale, offset: (channels,), or None for 1 and 0.
        axis: of the channels.
        epsilon: a small number added to the variance.
        mask: booleans of x's shape without the channels, or without more trailing axes: the places that count in the
            statistics. Only for channels last.
    Returns:
        the normalized Tensor of x's shape, and the mean and the biased variance, bare arrays (channels,), which are
        constants; of 16-bit numbers they are float32.
    Raises:
        ValueError: shapes that do not fit.
    """
    x = floating(x)
    scale, offset = _wide(x, scale, offset)
    channels = _check("batch_normalization", x, axis, scale, offset)
    places = None if mask is None else _places(mask, x.array, axis_of(axis, x.ndim))
    rows, back = _as_rows(x, (axis_of(axis, x.ndim),), channels)
    array, average, variance = kernels.batch_normalization(rows.array, raw(scale), raw(offset), epsilon, places)
    inputs = (rows, scale, offset)

    def vjp(grad: Tensor) -> tuple:
        found = kernels.batch_normalization_backward(
            grad.array, rows.array, average, variance, raw(scale), epsilon, places
        )
        return tuple(wrap(g) for g in found)

    def composite(x: Tensor, scale: Tensor | None, offset: Tensor | None) -> Tensor:
        (wide,) = _wide(x, x)
        weights, count = kernels.row_weights(wide.array, places)
        share = wrap((weights / count)[:, None])
        centred = wide - sum(wide * share, axis=0)
        return _scaled(centred, sum(square(centred) * share, axis=0), scale, offset, epsilon, x.dtype)

    return back(record(array, inputs, with_composite(vjp, composite, inputs))), average, variance


def normalize(
    x: Any,
    average: Any,
    variance: Any,
    scale: Tensor | None = None,
    offset: Tensor | None = None,
    axis: int = -1,
    epsilon: float = 1e-3,
) -> Tensor:
    """Normalize each channel by a given mean and variance: (x - average) / sqrt(variance + epsilon) * scale + offset.

    Args:
        x: floating, of 2 or more dimensions.
        average, variance: (channels,).
        scale, offset: (channels,), or None for 1 and 0.
        axis: of the channels.
        epsilon: a small number added to the variance.
    Returns:
        a Tensor of x's shape.
    Raises:
        ValueError: shapes that do not fit.
    """
    x, average, variance = map(floating, together(x, average, variance))
    average, variance, scale, offset = _wide(x, average, variance, scale, offset)
    channels = _check("normalize", x, axis, scale, offset, average, variance)
    rows, back = _as_rows(x, (axis_of(axis, x.ndim),), channels)
    inputs = (rows, average, variance, scale, offset)
    if any(t is not None and t.requires_grad for t in inputs):
        (wide,) = _wide(x, rows)
        return back(_scaled(wide - average, variance, scale, offset, epsilon, x.dtype))
    arrays = [raw(t) for t in inputs]
    return back(wrap(kernels.normalize(*arrays, epsilon)))


def layer_normalization(
    x: Any,
    scale: Tensor | None = None,
    offset: Tensor | None = None,
    axis: Any = -1,
    epsilon: float = 1e-3,
) -> Tensor:
    """Normalize each sample by its own mean and variance over one axis or several.

    Args:
        x: floating.
        scale, offset: of the lengths of the normalized axes, in ascending order; or None for 1 and 0.
        axis: the normalized axis, or several.
        epsilon: a small number added to the variance.
    Returns:
        a Tensor of x's shape.
    Raises:
        ValueError: shapes that do not fit.
    """
    x = floating(x)
    scale, offset = _wide(x, scale, offset)
    axes = axes_of(axis, x.ndim)
    shape = tuple(x.shape[a] for a in axes)
    for name, t in (("scale", scale), ("offset", offset)):
        if t is not None and t.shape != shape:
            raise ValueError(f"layer_normalization: expected {name} of shape {shape}, got {t.shape}")
    features = math.prod(shape)
    rows, back = _as_rows(x, axes, features)
    if len(axes) > 1:
        scale, offset = (None if t is None else reshape(t, (features,)) for t in (scale, offset))
    array, average, variance = kernels.layer_normalization(rows.array, raw(scale), raw(offset), epsilon)
    inputs = (rows, scale, offset)

    def vjp(grad: Tensor) -> tuple:
        found = kernels.layer_normalization_backward(grad.array, rows.array, average, variance, raw(scale), epsilon)
        return tuple(wrap(g) for g in found)

    def composite(x: Tensor, scale: Tensor | None, offset: Tensor | None) -> Tensor:
        (wide,) = _wide(x, x)
        centred = wide - mean(wide, axis=1, keepdims=True)
        return _scaled(centred, mean(square(centred), axis=1, keepdims=True), scale, offset, epsilon, x.dtype)

    return back(record(array, inputs, with_composite(vjp, composite, inputs)))


def _wide(x: Tensor, *tensors: Any) -> list:
    """What goes beside x: float32 where x is of 16 bits, else as it is."""
    return [t if t is None or not is_narrow(x) else astype(t, np.float32) for t in tensors]


def _scaled(centred: Tensor, variance: Tensor, scale: Any, offset: Any, epsilon: float, dtype: Any) -> Tensor:
    """What the kernels compute, from elementary operations, in x's dtype."""
    output = centred / sqrt(variance + epsilon)
    output = output if scale is None else output * scale
    return astype(output if offset is None else output + offset, dtype)


def _check(name: str, x: Tensor, axis: int, *others: Tensor | None) -> int:
    """The number of channels, to which all other inputs must fit."""
    if x.ndim < 2:
        raise ValueError(f"{name}: expected an input of 2 or more dimensions, got shape {x.shape}")
    channels = x.shape[axis_of(axis, x.ndim)]
    for t in others:
        if t is not None and t.shape != (channels,):
            raise ValueError(f"{name}: expected arrays of shape ({channels},) for inputs {x.shape}, got {t.shape}")
    return channels


def _places(mask: Any, x: Any, axis: int) -> Any:
    """The mask as a bare array with a boolean for each row of x, a bare array."""
    mask, shape = beside(mask, x), x.shape
    if axis != len(shape) - 1 or mask.shape != shape[: mask.ndim] or mask.ndim == len(shape):
        raise ValueError(f"batch_normalization: a mask of shape {mask.shape} does not fit inputs of shape {shape}")
    wide = mask.astype(bool).reshape(mask.shape + (1,) * (len(shape) - 1 - mask.ndim))
    return array_namespace(wide).broadcast_to(wide, shape[:-1]).reshape(-1)


def _as_rows(x: Tensor, axes: tuple, features: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """x as (rows, features), with `axes` moved to the end and joined; and the way back to x's shape."""
    order = (*(a for a in range(x.ndim) if a not in axes), *axes)
    last = order == tuple(range(x.ndim))
    moved = x if last else transpose(x, order)
    if last and x.ndim == 2 and len(axes) == 1:
        return x, lambda rows: rows
    rows = reshape(moved, (math.prod(moved.shape[: x.ndim - len(axes)]), features))

    def back(rows: Tensor) -> Tensor:
        output = reshape(rows, moved.shape)
        return output if last else transpose(output, [order.index(a) for a in range(x.ndim)])

    return rows, back
