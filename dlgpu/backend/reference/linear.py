"""Products of matrices."""

from dlgpu.backend.dispatch import kernel


@kernel
def matmul(a, b):
    """a @ b over the last two axes, which broadcasts over the others.

    Args:
        a: (..., rows, inner).
        b: (..., inner, columns).
    Returns:
        (..., rows, columns) in the wider of the two dtypes; zeros where inner is 0.
    Raises:
        ValueError: the inner lengths differ, or the other axes do not broadcast.
    """
    return a @ b
