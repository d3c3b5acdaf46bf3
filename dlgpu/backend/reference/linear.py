"""Products of matrices."""

from dlgpu.backend.dispatch import kernel
from dlgpu.backend.narrow import is_narrow


@kernel(narrow="kept on a GPU")
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
    return product(a, b)


def product(a, b):
    """a @ b, of a's dtype if that is a 16-bit one, which NumPy may widen."""
    found = a @ b
    return found.astype(a.dtype, copy=False) if is_narrow(a) and is_narrow(b) else found
