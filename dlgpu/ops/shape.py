"""Operations that move values without changing them: shapes, joins and indexing, with NumPy's names."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dlgpu.backend.dispatch import array_namespace
from dlgpu.ops.elementwise import astype, spread
from dlgpu.tensor import Tensor, record, wrap


def _tensor(x: Any) -> Tensor:
    return x if isinstance(x, Tensor) else Tensor(x)


def reshape(x: Any, *shape: Any) -> Tensor:
    """The same values in another shape; one length may be -1."""
    x = _tensor(x)
    wanted = shape[0] if len(shape) == 1 and not isinstance(shape[0], (int, np.integer)) else shape
    origin = x.shape
    return record(x.array.reshape(wanted), (x,), lambda grad: (reshape(grad, origin),))


def transpose(x: Any, axes: "Sequence[int] | None" = None) -> Tensor:
    """The axes in another order, reversed by default."""
    x = _tensor(x)
    order = tuple(range(x.ndim))[::-1] if axes is None else tuple(a % x.ndim for a in axes)
    inverse = tuple(order.index(a) for a in range(x.ndim))
    return record(x.array.transpose(order), (x,), lambda grad: (transpose(grad, inverse),))


def swapaxes(x: Any, first: int, second: int) -> Tensor:
    """Two axes exchanged."""
    x = _tensor(x)
    return record(x.array.swapaxes(first, second), (x,), lambda grad: (swapaxes(grad, first, second),))


def moveaxis(x: Any, source: int, destination: int) -> Tensor:
    """One axis moved to another place."""
    x = _tensor(x)
    order = [a for a in range(x.ndim) if a != source % x.ndim]
    order.insert(destination % x.ndim, source % x.ndim)
    return transpose(x, order)


def expand_dims(x: Any, axis: int) -> Tensor:
    """A new axis of length 1 at `axis`."""
    x = _tensor(x)
    place = axis % (x.ndim + 1)
    return reshape(x, (*x.shape[:place], 1, *x.shape[place:]))


def squeeze(x: Any, axis: "int | None" = None) -> Tensor:
    """Without the axis `axis`, or without all axes, of length 1."""
    x = _tensor(x)
    return reshape(x, x.array.squeeze(axis).shape)


def broadcast_to(x: Any, shape: Sequence[int]) -> Tensor:
    """x repeated along new axes and axes of length 1; a read-only view."""
    x = _tensor(x)
    return spread(x, tuple(shape), len(shape) - x.ndim)


def concatenate(tensors: Sequence, axis: int = 0) -> Tensor:
    """Tensors joined along an axis that they have."""
    inputs = [_tensor(t) for t in tensors]
    if not inputs:
        raise ValueError("concatenate needs at least one tensor")
    array = array_namespace(inputs[0].array).concatenate([t.array for t in inputs], axis=axis)
    ends = np.cumsum([t.shape[axis] for t in inputs]).tolist()
    lead = (slice(None),) * (axis % array.ndim)
    cuts = [(*lead, slice(end - t.shape[axis], end)) for t, end in zip(inputs, ends)]

    def vjp(grad: Tensor) -> list:
        return [astype(grad[cut], t.dtype) for cut, t in zip(cuts, inputs)]

    return record(array, inputs, vjp)


def stack(tensors: Sequence, axis: int = 0) -> Tensor:
    """Tensors of one shape joined along a new axis."""
    return concatenate([expand_dims(t, axis) for t in tensors], axis)


def split(x: Any, parts: "int | Sequence[int]", axis: int = 0) -> list:
    """x cut along an axis into so many equal parts, or before the given indices."""
    x = _tensor(x)
    length = x.shape[axis]
    if isinstance(parts, int):
        if length % parts:
            raise ValueError(f"an axis of length {length} does not divide into {parts} equal parts")
        parts = range(length // parts, length, length // parts)
    bounds = [0, *parts, length]
    lead = (slice(None),) * (axis % x.ndim)
    return [x[(*lead, slice(low, high))] for low, high in zip(bounds, bounds[1:])]


def repeat(x: Any, repeats: int, axis: int) -> Tensor:
    """Each value `repeats` times in a row along an axis."""
    x = _tensor(x)
    place = axis % x.ndim
    wide = broadcast_to(expand_dims(x, place + 1), (*x.shape[: place + 1], repeats, *x.shape[place + 1 :]))
    return reshape(wide, (*x.shape[:place], x.shape[place] * repeats, *x.shape[place + 1 :]))


def tile(x: Any, repeats: Sequence[int]) -> Tensor:
    """x as a whole so many times along each axis."""
    x = _tensor(x)
    for axis, times in enumerate(repeats):
        x = concatenate([x] * times, axis) if times != 1 else x
    return x


def pad(x: Any, widths: "Sequence[tuple[int, int]]", value: float = 0.0) -> Tensor:
    """x with `widths[axis] = (before, after)` constant values around it."""
    x = _tensor(x)
    inner = tuple(slice(before, before + n) for (before, _), n in zip(widths, x.shape))
    array = array_namespace(x.array).pad(x.array, widths, constant_values=value)
    return record(array, (x,), lambda grad: (grad[inner],))


def flip(x: Any, axis: int) -> Tensor:
    """x in the opposite order along an axis; a view."""
    x = _tensor(x)
    return x[(slice(None),) * (axis % x.ndim) + (slice(None, None, -1),)]


def getitem(x: Any, index: Any) -> Tensor:
    """x[index] as NumPy indexes; gradients of values that were taken several times add up."""
    x = _tensor(x)
    plain = tuple(_plain(i) for i in index) if isinstance(index, tuple) else _plain(index)
    shape = x.shape
    return record(x.array[plain], (x,), lambda grad: (_put(grad, plain, shape),))


def _put(x: Tensor, index: Any, shape: tuple) -> Tensor:
    """Zeros of `shape` with `x` added at `index`: the transpose of `getitem`."""
    xp = array_namespace(x.array)
    array = xp.zeros(shape, x.dtype)
    items = index if isinstance(index, tuple) else (index,)
    if all(i is None or i is Ellipsis or isinstance(i, (int, np.integer, slice)) for i in items):
        array[index] = x.array  # slices take every place at most once
    else:
        xp.add.at(array, index, x.array)
    return record(array, (x,), lambda grad: (getitem(grad, index),))


def _plain(index: Any) -> Any:
    return index.array if isinstance(index, Tensor) else index


def take_along_axis(x: Any, indices: Any, axis: int) -> Tensor:
    """x[..., indices[..., i, ...], ...]: one index for each position along an axis; shapes as in NumPy."""
    x, indices = _tensor(x), _tensor(indices)
    xp = array_namespace(x.array)
    place = axis % x.ndim
    grid = list(xp.ogrid[tuple(slice(n) for n in indices.shape)])
    grid[place] = indices.array
    return getitem(x, tuple(grid))


def one_hot(labels: Any, classes: int, dtype: Any = np.float32) -> Tensor:
    """(...,) integers in [0, classes) as (..., classes) rows with a 1 at the label."""
    labels = _tensor(labels)
    xp = array_namespace(labels.array)
    return wrap((labels.array[..., None] == xp.arange(classes)).astype(dtype))
