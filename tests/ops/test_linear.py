"""Matrix products of all shapes that NumPy takes, and their derivatives of both orders."""

import numpy as np
import pytest

from dlgpu import Tensor, ops
from dlgpu.testing import gradcheck

DIFFERENTIABLE = {"matmul"}
CONSTANT: set[str] = set()

SHAPES = [
    ((2, 3), (3, 4)),
    ((3,), (3, 4)),
    ((2, 3), (3,)),
    ((3,), (3,)),
    ((5, 2, 3), (3, 4)),
    ((2, 3), (5, 3, 4)),
    ((5, 2, 3), (5, 3, 1)),
    ((2, 1, 2, 3), (5, 3, 2)),
    ((3,), (5, 3, 2)),
    ((5, 2, 3), (3,)),
    ((0, 3), (3, 4)),
    ((2, 0), (0, 4)),
    ((4, 2, 0), (0, 3)),
    ((0, 2, 3), (3, 4)),
    ((1, 1), (1, 1)),
]


@pytest.mark.parametrize(("first", "second"), SHAPES)
def test_products_and_derivatives(first, second, rng):
    a, b = rng.normal(size=first), rng.normal(size=second)
    result = ops.matmul(Tensor(a), Tensor(b))
    np.testing.assert_allclose(result.numpy(), a @ b, rtol=1e-13, atol=1e-14)
    assert result.shape == (a @ b).shape
    gradcheck(ops.matmul, a, b, tolerance=2e-6)


def test_transposed_views(rng):
    a, b = rng.normal(size=(3, 4)), rng.normal(size=(5, 3))
    np.testing.assert_allclose((Tensor(a).T @ Tensor(b).T).numpy(), a.T @ b.T, rtol=1e-13)
    gradcheck(lambda a, b: a.T @ b.T, a, b)


def test_dtypes(rng):
    small, wide = rng.normal(size=(2, 3, 3)).astype(np.float32), rng.normal(size=(3, 3))
    assert (Tensor(small) @ np.eye(3, dtype=int)).dtype == np.float32
    assert (Tensor(np.eye(3, dtype=int)) @ np.eye(3, dtype=int)).dtype == np.int64
    a, b = Tensor(small, requires_grad=True), Tensor(wide, requires_grad=True)
    (a @ b).sum().backward()
    assert (a.grad.dtype, b.grad.dtype) == (np.float32, np.float64)


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"inner dimensions differ: \(2, 3\) and \(2, 3\)"):
        Tensor(np.ones((2, 3))) @ Tensor(np.ones((2, 3)))
    with pytest.raises(ValueError, match="second operand needs at least one dimension"):
        Tensor(np.ones((2, 3))) @ 2.0
