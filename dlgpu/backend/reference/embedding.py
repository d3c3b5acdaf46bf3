"""Embedding: rows taken from a table by index, and rows added up by index. Each is the other's transpose."""

from dlgpu.backend.dispatch import array_namespace, kernel


@kernel
def gather(table, indices):
    """output[i] = table[indices[i]]

    Args:
        table: (rows, features).
        indices: (n,), integers in [0, rows).
    Returns:
        (n, features), of table's dtype.
    Raises:
        ValueError: an index is out of range.
    """
    check(indices, len(table))
    return table.take(indices.astype("int64", copy=False), axis=0)  # older NumPy takes no uint64


@kernel
def scatter_add(values, indices, rows):
    """output[r] = sum of values[i] over all i with indices[i] = r, in ascending order of i

    The order is fixed by sorting, so that the same sums have the same bits every time.

    Args:
        values: (n, features).
        indices: (n,), integers in [0, rows).
        rows: the length of the output.
    Returns:
        (rows, features), of values' dtype; zeros where there is nothing to add.
    Raises:
        ValueError: an index is out of range.
    """
    xp = array_namespace(values)
    check(indices, rows)
    output = xp.zeros((rows, values.shape[1]), values.dtype)
    if indices.size and values.size:
        order = xp.argsort(indices, kind="stable")
        ordered = indices[order]
        starts = xp.flatnonzero(xp.concatenate([xp.ones(1, bool), ordered[1:] != ordered[:-1]]))
        output[ordered[starts]] = xp.add.reduceat(values[order], starts, axis=0)
    return output


def check(indices, rows):
    """Raise a ValueError if an index lies outside [0, rows)."""
    if indices.size and not 0 <= indices.min() <= indices.max() < rows:
        raise ValueError(
            f"expected indices from 0 to {rows - 1}, got {indices.min()} to {indices.max()}" if rows else "no rows"
        )
