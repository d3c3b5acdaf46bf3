"""Products of matrices."""

from dlgpu.backend.dispatch import kernel


@kernel
def matmul(a, b):
    """a @ b over the last two axes, which broadcasts over the others.

    Args:
        a: (..., rows, inner).
        b: (..., inner, columns).
    Returns:
        (..., rows, columns); zeros where inner is 0.
    """
    return a @ b
