"""Operations that move values without changing them: shapes, joins and indexing, with NumPy's names."""

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from dlgpu.backend.dispatch import array_namespace, is_floating
from dlgpu.backend.reference import embedding as kernels
from dlgpu.ops.operands import astype, spread, together
from dlgpu.tensor import Tensor, as_tensor, record, wrap


def axis_of(axis: int, ndim: int) -> int:
    """An axis counted from 0.

    Raises:
        ValueError: there is no such axis.
    """
    if not -ndim <= axis < ndim:
        raise ValueError(f"axis {axis} is out of bounds for a tensor of {ndim} dimensions")
    return axis % ndim


def axes_of(axis: Any, ndim: int) -> tuple[int, ...]:
    """The axes that an axis, several or None (all) name, counted from 0, in ascending order."""
    if axis is None:
        return tuple(range(ndim))
    return tuple(sorted(axis_of(a, ndim) for a in (axis if isinstance(axis, (tuple, list)) else (axis,))))


def reshape(x: Any, *shape: Any) -> Tensor:
    """The same values in another shape; one length may be -1."""
    x = as_tensor(x)
    wanted = shape[0] if len(shape) == 1 and not isinstance(shape[0], (int, np.integer)) else shape
    origin = x.shape
    return record(x.array.reshape(wanted), (x,), lambda grad: (reshape(grad, origin),))


def transpose(x: Any, axes: Sequence[int] | None = None) -> Tensor:
    """The axes in another order, reversed by default."""
    x = as_tensor(x)
    order = tuple(range(x.ndim))[::-1] if axes is None else tuple(axis_of(a, x.ndim) for a in axes)
    array = x.array.transpose(order)
    return record(array, (x,), lambda grad: (transpose(grad, np.argsort(order).tolist()),))


def swapaxes(x: Any, first: int, second: int) -> Tensor:
    """Two axes exchanged."""
    x = as_tensor(x)
    return record(x.array.swapaxes(first, second), (x,), lambda grad: (swapaxes(grad, first, second),))


def moveaxis(x: Any, source: int, destination: int) -> Tensor:
    """One axis moved to another place."""
    x = as_tensor(x)
    source, destination = axis_of(source, x.ndim), axis_of(destination, x.ndim)
    order = [a for a in range(x.ndim) if a != source]
    order.insert(destination, source)
    return transpose(x, order)


def expand_dims(x: Any, axis: int) -> Tensor:
    """A new axis of length 1 at `axis`."""
    x = as_tensor(x)
    place = axis_of(axis, x.ndim + 1)
    return reshape(x, (*x.shape[:place], 1, *x.shape[place:]))


def squeeze(x: Any, axis: int | None = None) -> Tensor:
    """Without the axis `axis`, or without all axes, of length 1."""
    x = as_tensor(x)
    return reshape(x, x.array.squeeze(axis).shape)


def broadcast_to(x: Any, shape: Sequence[int]) -> Tensor:
    """x repeated along new axes and axes of length 1; a read-only view."""
    x = as_tensor(x)
    return spread(x, tuple(shape), len(shape) - x.ndim)


def concatenate(tensors: Sequence, axis: int = 0) -> Tensor:
    """Tensors joined along an axis that they have; integers beside floating tensors take their dtype."""
    inputs = together(*tensors)
    if not inputs:
        raise ValueError("concatenate needs at least one tensor")
    found = [t.dtype for t in inputs if is_floating(t)]
    if found and len(found) < len(inputs):
        inputs = [t if is_floating(t) else astype(t, np.result_type(*found)) for t in inputs]
    array = array_namespace(inputs[0].array).concatenate([t.array for t in inputs], axis=axis)
    lead = (slice(None),) * axis_of(axis, array.ndim)
    ends = accumulate(t.shape[axis] for t in inputs)
    return record(
        array, inputs, tuple(_cut((*lead, slice(e - t.shape[axis], e)), t.dtype) for e, t in zip(ends, inputs))
    )


def _cut(place: tuple, dtype: Any) -> Any:
    return lambda grad: astype(grad[place], dtype)


def stack(tensors: Sequence, axis: int = 0) -> Tensor:
    """Tensors of one shape joined along a new axis."""
    return concatenate([expand_dims(t, axis) for t in tensors], axis)


def split(x: Any, parts: int | Sequence[int], axis: int = 0) -> list:
    """x cut along an axis into so many equal parts, or before the given indices."""
    x = as_tensor(x)
    lead = (slice(None),) * axis_of(axis, x.ndim)
    length = x.shape[axis]
    if isinstance(parts, int):
        if parts < 1 or length % parts:
            raise ValueError(f"an axis of length {length} does not divide into {parts} equal parts")
        parts = [length // parts * i for i in range(1, parts)]
    bounds = [0, *parts, length]
    return [x[(*lead, slice(low, high))] for low, high in pairwise(bounds)]


def repeat(x: Any, repeats: int, axis: int) -> Tensor:
    """Each value `repeats` times in a row along an axis."""
    x = as_tensor(x)
    place = axis_of(axis, x.ndim)
    wide = broadcast_to(expand_dims(x, place + 1), (*x.shape[: place + 1], repeats, *x.shape[place + 1 :]))
    return reshape(wide, (*x.shape[:place], x.shape[place] * repeats, *x.shape[place + 1 :]))


def tile(x: Any, repeats: int | Sequence[int]) -> Tensor:
    """x as a whole so many times along each axis; fewer numbers than axes count from the last, as in NumPy."""
    x = as_tensor(x)
    times = (repeats,) if isinstance(repeats, (int, np.integer)) else tuple(repeats)
    ndim = max(len(times), x.ndim)
    times, shape = (1,) * (ndim - len(times)) + times, (1,) * (ndim - x.ndim) + x.shape
    apart = reshape(x, tuple(n for length in shape for n in (1, length)))
    wide = broadcast_to(apart, tuple(n for pair in zip(times, shape) for n in pair))
    return reshape(wide, tuple(t * n for t, n in zip(times, shape)))


def pad(x: Any, widths: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """x with `widths[axis] = (before, after)` constant values around it."""
    x = as_tensor(x)
    if len(widths) != x.ndim:
        raise ValueError(f"pad: expected {x.ndim} pairs of widths, one for each axis, got {len(widths)}")
    inner = tuple(slice(before, before + n) for (before, _), n in zip(widths, x.shape))
    array = array_namespace(x.array).pad(x.array, widths, constant_values=value)
    return record(array, (x,), lambda grad: (grad[inner],))


def flip(x: Any, axis: int) -> Tensor:
    """x in the opposite order along an axis; a view."""
    x = as_tensor(x)
    return x[(slice(None),) * axis_of(axis, x.ndim) + (slice(None, None, -1),)]


def getitem(x: Any, index: Any) -> Tensor:
    """x[index] as NumPy indexes; gradients of values that were taken several times add up."""
    x = as_tensor(x)
    plain = tuple(_plain(i) for i in index) if isinstance(index, tuple) else _plain(index)
    shape = x.shape
    return record(x.array[plain], (x,), lambda grad: (_put(grad, plain, shape),))


def _put(x: Tensor, index: Any, shape: tuple) -> Tensor:
    """Zeros of `shape` with `x` added at `index`: the transpose of `getitem`."""
    xp = array_namespace(x.array)
    if all(_once(i) for i in (index if isinstance(index, tuple) else (index,))):
        array = xp.zeros_like(x.array, shape=shape)
        array[index] = x.array
    else:
        size = math.prod(shape)
        places = xp.arange(size).reshape(shape)[index].reshape(-1)
        array = kernels.scatter_add(x.array.reshape(-1, 1), places, size).reshape(shape)
    return record(array, (x,), lambda grad: (getitem(grad, index),))


def _once(index: Any) -> bool:
    """Whether the index takes every place at most once."""
    return (
        index is None
        or index is Ellipsis
        or isinstance(index, (int, np.integer, slice))
        or getattr(index, "dtype", None) == np.bool_
    )


def _plain(index: Any) -> Any:
    return index.array if isinstance(index, Tensor) else index


def take_along_axis(x: Any, indices: Any, axis: int) -> Tensor:
    """x[..., indices[..., i, ...], ...]: one index for each position along an axis.

    Args:
        x: (..., n, ...).
        indices: integers of as many dimensions, of which those other than `axis` broadcast against x.
        axis: along which to take.
    """
    x, indices = as_tensor(x), as_tensor(indices)
    place = axis_of(axis, x.ndim)
    if indices.ndim != x.ndim:
        raise ValueError(f"take_along_axis: expected indices of {x.ndim} dimensions, got shape {indices.shape}")
    grid = list(array_namespace(x.array).ogrid[tuple(slice(n) for n in x.shape)])
    grid[place] = indices.array
    return getitem(x, tuple(grid))


def one_hot(labels: Any, classes: int, dtype: Any = np.float32) -> Tensor:
    """(...,) integers in [0, classes) as (..., classes) rows with a 1 at the label."""
    labels = as_tensor(labels)
    xp = array_namespace(labels.array)
    return wrap((labels.array[..., None] == xp.arange(classes)).astype(dtype))
