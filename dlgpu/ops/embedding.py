"""Rows taken from a table by index, and rows added up by index: a pair of operations, each the other's derivative."""

import math
from typing import Any

from dlgpu.backend.reference import embedding as kernels
from dlgpu.ops.shape import reshape
from dlgpu.tensor import Tensor, as_tensor, beside, record, wrap


def gather(table: Any, indices: Any) -> Tensor:
    """table[indices]: the rows of a table at integer indices.

    Args:
        table: (rows, ...).
        indices: (...), integers in [0, rows).
    Returns:
        indices.shape + table.shape[1:].
    Raises:
        TypeError: the indices are not integers.
        ValueError: an index is out of range.
    """
    table = as_tensor(table)
    indices = _integers("gather", indices, table)
    if table.ndim == 0:
        raise ValueError("gather: the table needs at least one dimension")
    rest = table.shape[1:]
    flat = reshape(table, (len(table), math.prod(rest)))
    array = kernels.gather(flat.array, indices.array.reshape(-1))
    places, rows = reshape(indices, (indices.size,)), len(table)
    taken = record(array, (flat,), lambda grad: (scatter_add(grad, places, rows),))
    return reshape(taken, indices.shape + rest)


def scatter_add(values: Any, indices: Any, rows: int) -> Tensor:
    """Zeros of `rows` rows, with each of `values` added to the row at its index. The same sums have the same bits.

    Args:
        values: indices.shape + (...).
        indices: integers in [0, rows).
        rows: the length of the result.
    Returns:
        (rows, ...).
    Raises:
        TypeError: the indices are not integers.
        ValueError: an index is out of range, or shapes do not fit.
    """
    values = as_tensor(values)
    indices = _integers("scatter_add", indices, values)
    if values.shape[: indices.ndim] != indices.shape:
        raise ValueError(f"scatter_add: values of shape {values.shape} do not fit indices of shape {indices.shape}")
    rest = values.shape[indices.ndim :]
    flat = reshape(values, (indices.size, math.prod(rest)))
    places = reshape(indices, (indices.size,))
    array = kernels.scatter_add(flat.array, places.array, rows)
    return reshape(record(array, (flat,), lambda grad: (gather(grad, places),)), (rows, *rest))


def _integers(name: str, indices: Any, like: Tensor) -> Tensor:
    indices = wrap(beside(indices, like.array))
    if indices.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integer indices, got {indices.dtype}")
    return indices
