"""Reductions over axes: NumPy's values, and first and second derivatives."""

import numpy as np
import pytest

import dlgpu
from dlgpu import Tensor, ops
from dlgpu.testing import gradcheck

X = np.array([[[0.3, -1.2], [2.5, 1.7], [0.8, -0.6]], [[1.1, 0.4], [-2.0, -0.7], [2.2, 0.9]]])


def logsumexp(x, axis=None, keepdims=False):
    return np.log(np.exp(x).sum(axis=axis, keepdims=keepdims))


OVER_AXES = {
    "logsumexp": logsumexp,
    "max": np.max,
    "mean": np.mean,
    "min": np.min,
    "std": np.std,
    "sum": np.sum,
    "var": np.var,
}
DIFFERENTIABLE = {*OVER_AXES, "cumsum"}
CONSTANT = {"all", "any", "argmax", "argmin"}
AXES = [None, 0, -1, (0, 2), (-1, 1), (0, 1, 2), ()]


@pytest.mark.parametrize("name", OVER_AXES)
def test_values_and_derivatives_over_any_axes(name):
    operation, expected = getattr(ops, name), OVER_AXES[name]
    for axis in AXES:
        if name == "std" and axis == ():
            continue  # of single values: 0, where it has no derivative
        for keepdims in (False, True):
            result = operation(Tensor(X), axis, keepdims).numpy()
            np.testing.assert_allclose(result, expected(X, axis=axis, keepdims=keepdims), rtol=1e-14)
            assert result.shape == np.sum(X, axis=axis, keepdims=keepdims).shape
        gradcheck(lambda x, axis=axis: operation(x, axis), X)
    gradcheck(lambda x: operation(x[::-1, :, 0], 1, keepdims=True), X)
    np.testing.assert_allclose(operation(Tensor(X[..., :1]), -1).numpy(), expected(X[..., :1], axis=-1), atol=1e-15)
    assert operation(Tensor(X.astype(np.float32))).dtype == np.float32


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "var", "std", "argmax", "argmin", "all", "any"])
def test_methods_are_the_functions(name):
    np.testing.assert_array_equal(getattr(Tensor(X), name)(axis=1).numpy(), getattr(ops, name)(X, axis=1).numpy())


def test_reductions_of_no_rows():
    empty = np.empty((0, 3))
    np.testing.assert_array_equal(ops.sum(Tensor(empty), 0).numpy(), np.zeros(3))
    assert ops.max(Tensor(empty), 1).shape == (0,)
    for operation in (ops.sum, ops.mean, ops.max):
        gradcheck(lambda x, operation=operation: operation(x, 1), empty)
    gradcheck(lambda x: ops.sum(x, 0), empty)


def test_integers_sum_to_integers_and_average_to_float32():
    x = Tensor(np.array([[1, 2], [3, 5]]))
    assert ops.sum(x).dtype == ops.max(x).dtype == ops.cumsum(x, 0).dtype == np.int64
    assert ops.mean(x).dtype == ops.var(x).dtype == np.float32
    assert ops.mean(x).item() == 2.75


def test_ties_share_the_gradient_of_the_largest():
    for operation in (ops.max, ops.min):
        grad = dlgpu.grad(lambda x, operation=operation: operation(x, 1).sum())(Tensor([[2.0, 2.0], [2.0, 2.0]]))
        np.testing.assert_array_equal(grad.numpy(), np.full((2, 2), 0.5))


def test_nan_is_not_hidden():
    x = Tensor([1.0, np.nan])
    for operation in (ops.sum, ops.mean, ops.max, ops.min, ops.var, ops.logsumexp):
        assert np.isnan(operation(x).item())


def test_logsumexp_of_large_and_infinite_values():
    assert ops.logsumexp(Tensor([1000.0, 1000.0])).item() == pytest.approx(1000 + np.log(2))
    assert ops.logsumexp(Tensor([-1000.0, -1000.0])).item() == pytest.approx(-1000 + np.log(2))
    assert ops.logsumexp(Tensor([-np.inf, 0.0])).item() == 0
    assert ops.logsumexp(Tensor([np.inf, 0.0])).item() == np.inf


def test_variance_far_from_zero_is_exact():
    x = np.random.default_rng(0).normal(size=1000).astype(np.float32) + 10000
    np.testing.assert_allclose(ops.var(Tensor(x)).item(), x.astype(np.float64).var(), rtol=1e-4)


def test_cumsum_along_any_axis():
    for axis in (0, 1, -1):
        np.testing.assert_array_equal(ops.cumsum(Tensor(X), axis).numpy(), X.cumsum(axis))
        gradcheck(lambda x, axis=axis: ops.cumsum(x, axis) * x, X)


@pytest.mark.parametrize("name", sorted(CONSTANT))
def test_indices_and_truths_are_numpys(name):
    x = np.array([[0.0, 2.0, 2.0], [-1.0, 0.0, -1.0]])
    for axis in (None, 0, -1):
        result = getattr(ops, name)(Tensor(x, requires_grad=True), axis)
        np.testing.assert_array_equal(result.numpy(), getattr(np, name)(x, axis=axis))
        assert not result.requires_grad


def test_an_axis_that_is_not_there_is_named():
    for operation in (ops.sum, ops.max, ops.logsumexp, ops.cumsum):
        with pytest.raises(ValueError, match="axis 3 is out of bounds for a tensor of 3 dimensions"):
            operation(Tensor(X), 3)
