"""Reductions over axes, with NumPy's names and arguments."""

import math
from typing import Any

import numpy as np

from dlgpu.backend.dispatch import array_namespace
from dlgpu.backend.narrow import at_least_float32, is_narrow
from dlgpu.backend.reference import reduction as kernels
from dlgpu.ops.elementwise import equal, exp, log, sqrt, square, stop_gradient, where
from dlgpu.ops.operands import floating, total
from dlgpu.ops.shape import axes_of, axis_of, reshape
from dlgpu.tensor import Tensor, as_tensor, record, wrap


def _kept(shape: tuple, axes: tuple) -> tuple:
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


def _restore(x: Tensor, shape: tuple, axes: tuple) -> Tensor:
    """A reduced tensor, spread out again over the axes that it lost."""
    origin = x.shape
    array = array_namespace(x.array).broadcast_to(x.array.reshape(_kept(shape, axes)), shape)
    return record(array, (x,), lambda grad: (sum(grad, axes).reshape(origin),))


def _spread(x: Tensor, count: int, shape: tuple) -> Tensor:
    """x / count, of one element, everywhere in `shape`."""
    return record(kernels.spread(x.array, count, shape), (x,), lambda grad: ((sum(grad) / count).reshape(x.shape),))


def sum(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The sum over `axis` (all axes by default)."""
    x = as_tensor(x)
    axes, shape = axes_of(axis, x.ndim), x.shape
    return record(total(x.array, axes, keepdims), (x,), lambda grad: (_restore(grad, shape, axes),))


def mean(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The mean over `axis`; integers average as float32."""
    x = floating(x)
    axes, shape = axes_of(axis, x.ndim), x.shape
    count = math.prod(shape[a] for a in axes)
    if len(axes) == x.ndim and not keepdims and x.size:
        return record(kernels.mean_of_all(x.array), (x,), lambda grad: (_spread(grad, count, shape),))
    if count == 1:
        return reshape(x, _kept(shape, axes) if keepdims else tuple(n for i, n in enumerate(shape) if i not in axes))
    array = x.array.mean(axis=axes, dtype=at_least_float32(x.dtype), keepdims=keepdims).astype(x.dtype, copy=False)
    return record(array, (x,), lambda grad: (_restore(grad / count, shape, axes),))


def var(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The variance over `axis`, in two passes: mean((x - mean(x))**2)."""
    x = floating(x)
    return mean(square(x - mean(x, axis, keepdims=True)), axis, keepdims)


def std(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The standard deviation over `axis`; its derivative at 0 is infinite."""
    return sqrt(var(x, axis, keepdims))


def max(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The largest value over `axis`, NaN if there is one; ties share the gradient."""
    return _extreme("max", x, axis, keepdims)


def min(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The smallest value over `axis`, NaN if there is one; ties share the gradient."""
    return _extreme("min", x, axis, keepdims)


def _extreme(name: str, x: Any, axis: Any, keepdims: bool) -> Tensor:
    x = as_tensor(x)
    axes, shape = axes_of(axis, x.ndim), x.shape
    array = getattr(x.array, name)(axis=axes, keepdims=keepdims)

    def vjp(grad: Tensor) -> tuple:
        hit = equal(x, wrap(array.reshape(_kept(shape, axes)))).array
        share = hit / hit.sum(axis=axes, keepdims=True)
        return (_restore(grad, shape, axes) * wrap(share.astype(x.dtype)),)

    return record(array, (x,), vjp)


def logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """log(sum(exp(x))) over `axis`, with no overflow: the largest value is taken out first."""
    x = floating(x)
    peak = stop_gradient(max(x, axis, keepdims=True))
    peak = where(equal(abs(peak), float("inf")), 0, peak)
    result = log(sum(exp(x - peak), axis, keepdims=True)) + peak
    if keepdims:
        return result
    axes = axes_of(axis, x.ndim)
    return result.reshape(tuple(n for i, n in enumerate(x.shape) if i not in axes))


def cumsum(x: Any, axis: int) -> Tensor:
    """Running sums along one axis."""
    x = as_tensor(x)
    a = axis_of(axis, x.ndim)
    flip = (slice(None),) * a + (slice(None, None, -1),)
    sums = array_namespace(x.array).cumsum(x.array, axis=a, dtype=np.float32 if is_narrow(x) else None)
    array = sums.astype(x.dtype) if is_narrow(x) else sums
    return record(array, (x,), lambda grad: (cumsum(grad[flip], a)[flip],))


def argmax(x: Any, axis: int | None = None) -> Tensor:
    """The index of the largest value along `axis`, the first of several."""
    x = as_tensor(x)
    return wrap(x.array.argmax(axis=axis))


def argmin(x: Any, axis: int | None = None) -> Tensor:
    """The index of the smallest value along `axis`, the first of several."""
    x = as_tensor(x)
    return wrap(x.array.argmin(axis=axis))


def all(x: Any, axis: Any = None) -> Tensor:
    """Whether every value is true."""
    return wrap(as_tensor(x).array.all(axis=axis))


def any(x: Any, axis: Any = None) -> Tensor:
    """Whether some value is true."""
    return wrap(as_tensor(x).array.any(axis=axis))
