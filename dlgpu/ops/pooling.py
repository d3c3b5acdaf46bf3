"""Pooling over time or over height and width: the largest value or the mean of each window."""

from typing import Any

from dlgpu.backend import windows
from dlgpu.backend.reference import pooling as kernels
from dlgpu.ops.operands import floating
from dlgpu.ops.shape import reshape
from dlgpu.tensor import Tensor, as_tensor, record


def max_pool(x: Any, window: Any, strides: Any = None, padding: Any = "valid") -> Tensor:
    """The largest value of each window, NaN if there is one; the first of equal ones gets the gradient.

    Args:
        x: (batch, time, channels) or (batch, height, width, channels).
        window: the window's length, or (height, width); one number stands for both.
        strides: likewise; the window's by default, so that windows lie side by side.
        padding: "valid", "same" or, for each axis, (before, after); what lies in the padding does not count.
    Returns:
        as x, with the number of windows in the place of each length.
    Raises:
        ValueError: x has another number of dimensions, or the window does not fit.
    """
    x = as_tensor(x)
    image, *geometry = _geometry("max_pool", x, window, strides, padding)
    values, indices = kernels.max_pool(image.array, *geometry)
    size = image.shape[1:3]
    return _like(x, record(values, (image,), lambda grad: (_scatter(grad, indices, size, geometry),)))


def average_pool(x: Any, window: Any, strides: Any = None, padding: Any = "valid") -> Tensor:
    """The mean of what each window sees of x; arguments and shapes as for `max_pool`. Integers average as float32."""
    x = floating(x)
    image, *geometry = _geometry("average_pool", x, window, strides, padding)
    return _like(x, _average(image, geometry))


def _scatter(grad: Tensor, indices: Any, size: tuple, geometry: list) -> Tensor:
    array = kernels.max_pool_scatter(grad.array, indices, size, *geometry)
    return record(array, (grad,), lambda x: (_gather(x, indices, geometry),))


def _gather(x: Tensor, indices: Any, geometry: list) -> Tensor:
    array, size = kernels.max_pool_gather(x.array, indices, *geometry), x.shape[1:3]
    return record(array, (x,), lambda grad: (_scatter(grad, indices, size, geometry),))


def _average(x: Tensor, geometry: list) -> Tensor:
    array, size = kernels.average_pool(x.array, *geometry), x.shape[1:3]
    return record(array, (x,), lambda grad: (_average_gradient(grad, size, geometry),))


def _average_gradient(grad: Tensor, size: tuple, geometry: list) -> Tensor:
    array = kernels.average_pool_gradient(grad.array, size, *geometry)
    return record(array, (grad,), lambda x: (_average(x, geometry),))


def _geometry(operation: str, x: Tensor, window: Any, strides: Any, padding: Any) -> list:
    """x as an image, and its window, strides and padding, checked."""
    if x.ndim not in (3, 4):
        raise ValueError(
            f"{operation}: expected x (batch, time, channels) or (batch, height, width, channels), got {x.shape}"
        )
    rank = x.ndim - 2
    window = windows.numbers(window, rank, "window")
    strides = windows.numbers(window if strides is None else strides, rank, "strides")
    padding = windows.padding_pairs(padding, x.shape[1:-1], window, strides)
    windows.require_fit(x.shape[1:-1], window, padding)
    if any(max(pad) >= w for pad, w in zip(padding, window)):
        raise ValueError(f"{operation}: padding {padding} must be less than the window {window}")
    if rank == 2:
        return [x, window, strides, padding]
    return [reshape(x, (len(x), 1, *x.shape[1:])), (1, *window), (1, *strides), ((0, 0), *padding)]


def _like(x: Tensor, out: Tensor) -> Tensor:
    """The pooled image with x's number of dimensions."""
    return out if x.ndim == 4 else reshape(out, (len(x), *out.shape[2:]))
