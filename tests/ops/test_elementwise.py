"""Elementwise arithmetic: NumPy's values, broadcasting and NaN; dtypes; first and second derivatives."""

import numpy as np
import pytest

import dlgpu
from dlgpu import Tensor, ops
from dlgpu.testing import gradcheck

A = np.array([[0.3, -1.2, 2.5], [1.7, 0.8, -0.6]])  # off the kinks by more than gradcheck's step
B = np.array([[1.1, 0.4, -2.0], [-0.7, 2.2, 0.9]])
POSITIVE = np.abs(A) + 0.2
NONE = np.empty((0, 3))
STRIDED = np.arange(1.0, 25.0).reshape(4, 6)[::2, ::-2] / 7

# operation: the same in NumPy, and inputs at which to check values and derivatives
UNARY = {
    "absolute": (np.abs, A),
    "arctan": (np.arctan, A),
    "cos": (np.cos, A),
    "exp": (np.exp, A),
    "expm1": (np.expm1, A),
    "log": (np.log, POSITIVE),
    "log1p": (np.log1p, POSITIVE),
    "negative": (np.negative, A),
    "sin": (np.sin, A),
    "sqrt": (np.sqrt, POSITIVE),
    "square": (np.square, A),
    "tanh": (np.tanh, A),
}
BINARY = {
    "add": (np.add, A, B),
    "divide": (np.divide, A, B),
    "maximum": (np.maximum, A, B),
    "minimum": (np.minimum, A, B),
    "multiply": (np.multiply, A, B),
    "power": (np.power, POSITIVE, B),
    "subtract": (np.subtract, A, B),
}
COMPARISONS = {
    "equal": np.equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "not_equal": np.not_equal,
}
OTHERS = {
    "clip": lambda x: ops.clip(x, -1, 2.0) * x,
    "where": lambda x: ops.where(A > 0, x * x, 2.0 * x),
}
DIFFERENTIABLE = {*UNARY, *BINARY, *OTHERS}
CONSTANT = {*COMPARISONS, "isnan", "sign", "stop_gradient"}


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_tensor(name):
    expected, x = UNARY[name]
    operation = getattr(ops, name)
    for array in (x, NONE, STRIDED, np.float64(0.5), x[:1, :1]):
        np.testing.assert_array_equal(operation(Tensor(array)).numpy(), expected(array))
        gradcheck(operation, np.asarray(array))
    assert operation(Tensor(x.astype(np.float32))).dtype == np.float32


@pytest.mark.parametrize("name", BINARY)
def test_functions_of_two_tensors(name):
    expected, a, b = BINARY[name]
    operation = getattr(ops, name)
    for x, y in ((a, b), (a, b[:1]), (a[:, :1], b), (a[0], b), (a, b[0, 0]), (NONE, b[0]), (a[:, None], b)):
        np.testing.assert_array_equal(operation(Tensor(x), Tensor(y)).numpy(), expected(x, y))
        gradcheck(operation, np.asarray(x), np.asarray(y))
    for number in (2.0, 3):
        # NumPy has a shorter way to squares, which may differ in the last place
        np.testing.assert_allclose(operation(Tensor(a), number).numpy(), expected(a, number), rtol=4e-16)
        np.testing.assert_allclose(operation(number, Tensor(b)).numpy(), expected(number, b), rtol=4e-16)
        gradcheck(lambda x, number=number: operation(x, number), a)
        gradcheck(lambda y, number=number: operation(number, y), b)


@pytest.mark.parametrize("name", OTHERS)
def test_derivatives_of_choices(name):
    gradcheck(OTHERS[name], A)


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons_are_numpys_and_boolean(name):
    operation, expected = getattr(ops, name), COMPARISONS[name]
    a, b = np.array([1.0, 2.0, np.nan, 3.0]), np.array([1.0, 3.0, np.nan, 2.0])
    for x, y in ((Tensor(a), Tensor(b)), (Tensor(a), b), (a, Tensor(b)), (Tensor(a), 2.0), (a, b), (a.tolist(), 2)):
        result = operation(x, y)
        assert result.dtype == bool
        np.testing.assert_array_equal(result.numpy(), expected(np.asarray(x), np.asarray(y)))


def test_operators_are_the_functions():
    a, b, array = Tensor(A), Tensor(B), B
    pairs = [(a + b, A + B), (a - b, A - B), (a * b, A * B), (a / b, A / B), (-a, -A), (abs(a), np.abs(A))]
    pairs += [(2 + a, 2 + A), (2 - a, 2 - A), (2 * a, 2 * A), (2 / a, 2 / A), (2**a, 2**A), (a**2, A**2)]
    pairs += [(B + a, B + A), (B - a, B - A), (B / a, B / A), (np.float64(3) * a, 3 * A)]
    pairs += [(a == b, A == B), (a != b, A != B), (a < b, A < B), (a <= b, A <= B)]
    pairs += [(a > b, A > B), (a >= b, A >= B), (array < a, B < A), (array == a, B == A)]
    pairs += [(a @ b.T, ops.matmul(A, B.T).numpy()), (B @ a.T, ops.matmul(B, A.T).numpy())]
    whole, other = np.round(A), np.round(B)  # of which sums are exact in any order
    pairs += [(Tensor(whole) @ Tensor(other).T, whole @ other.T), (other @ Tensor(whole).T, other @ whole.T)]
    for ours, expected in pairs:
        assert isinstance(ours, Tensor)
        np.testing.assert_array_equal(ours.numpy(), expected)


def test_python_numbers_take_the_tensors_dtype():
    for dtype in (np.float16, np.float32, np.float64):
        x = Tensor(np.ones(2, dtype))
        for y in (
            x + 1,
            x * 2.5,
            3 / x,
            x**2,
            2.0**x,
            ops.maximum(x, 0.5),
            ops.where(x > 0, x, 0.0),
            x - np.float64(1),
        ):
            assert y.dtype == dtype
        assert ops.clip(x, np.float64(0), np.float64(0.5)).dtype == dtype


def test_integers_stay_integers_until_something_makes_them_float32():
    x = Tensor(np.array([1, 2, 3]))
    for y in (
        x + 1,
        x * x,
        -x,
        x**2,
        ops.maximum(x, 2),
        ops.square(x),
        abs(x),
        ops.clip(x, 1, 2),
        ops.where(x > 1, x, 0),
    ):
        assert y.dtype == np.int64
    for y in (x / 2, x + 0.5, x * 1.0, ops.exp(x), ops.sqrt(x), 0.5**x, ops.clip(x, 0.5, 2.5), x / x, True / x):
        assert y.dtype == np.float32
    np.testing.assert_array_equal(ops.clip(x, 1.5, 2.5).numpy(), [1.5, 2, 2.5])
    small, wide = Tensor(np.ones(3, np.float32)), Tensor(np.ones(3))
    assert (x * small).dtype == (small - x).dtype == np.float32
    assert (x * wide).dtype == (small + wide).dtype == np.float64
    assert (Tensor(np.array([True, False, True])) * small).dtype == np.float32


def test_gradients_have_the_dtype_of_their_inputs():
    small = Tensor(np.ones(3, np.float32), requires_grad=True)
    (small * np.ones(3) + ops.astype(small, np.float64)).sum().backward()
    assert small.grad.dtype == np.float32
    np.testing.assert_array_equal(small.grad.numpy(), [2, 2, 2])


def test_ties_share_the_gradient_and_limits_pass_it():
    half = dlgpu.grad(lambda x: ops.maximum(x, 1.0).sum())(Tensor([0.0, 1.0, 2.0]))
    np.testing.assert_array_equal(half.numpy(), [0, 0.5, 1])
    both = dlgpu.grad(lambda a, b: ops.minimum(a, b).sum(), (0, 1))(Tensor([1.0, 3.0]), Tensor([1.0, 4.0]))
    np.testing.assert_array_equal([g.numpy() for g in both], [[0.5, 1], [0.5, 0]])
    inside = dlgpu.grad(lambda x: ops.clip(x, 0, 2).sum())(Tensor([-1.0, 0.0, 1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(inside.numpy(), [0, 1, 1, 1, 0])
    assert dlgpu.grad(lambda x: abs(x).sum())(Tensor([0.0])).item() == 0


def test_nan_is_not_hidden():
    x = Tensor([np.nan, 1.0])
    for y in (ops.maximum(x, 0), ops.minimum(0, x), ops.clip(x, 0, 1), abs(x), ops.sign(x), x * 0):
        np.testing.assert_array_equal(np.isnan(y.numpy()), [True, False])
    np.testing.assert_array_equal(ops.isnan(x).numpy(), [True, False])
    for function in (lambda x: ops.maximum(x, 0.0), lambda x: ops.clip(x, 0, 9)):
        grad = dlgpu.grad(lambda x, function=function: function(x).sum())(x)
        np.testing.assert_array_equal(grad.numpy(), [1, 1])


def test_where_keeps_the_side_not_chosen_out_of_the_gradient():
    def safe_log(x):
        return ops.where(x > 0, ops.log(ops.where(x > 0, x, 1.0)), 0.0).sum()

    np.testing.assert_array_equal(dlgpu.grad(safe_log)(Tensor([0.0, 2.0])).numpy(), [0, 0.5])


def test_power_at_its_corners():
    def slope(a, b):
        return dlgpu.grad(lambda a, b: (a**b).sum(), (0, 1))(Tensor(a), Tensor(b))

    with np.errstate(invalid="ignore"):
        by_base, by_exponent = slope([0.0, 0.0, -2.0], [0.0, 2.0, 3.0])
    np.testing.assert_array_equal(by_base.numpy(), [0, 0, 12])
    np.testing.assert_array_equal(by_exponent.numpy()[:2], [0, 0])
    assert np.isnan(by_exponent.numpy()[2])  # not real, and not hidden
    gradcheck(lambda a, b: a**b, POSITIVE, np.zeros((2, 3)))
    gradcheck(lambda x: x**0 + x**1 + x**2 + x**3, A)


def test_stop_gradient_and_sign_are_constants():
    x = Tensor(A, requires_grad=True)
    assert not ops.stop_gradient(x).requires_grad
    assert not ops.sign(x).requires_grad
    assert not ops.astype(x, np.int32).requires_grad
    np.testing.assert_array_equal(dlgpu.grad(lambda x: (x * ops.stop_gradient(x)).sum())(x).numpy(), A)


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match="broadcast"):
        Tensor(A) + Tensor(np.ones(4))
    with pytest.raises(TypeError, match="limits must be numbers"):
        ops.clip(Tensor(A), Tensor(0.0), 1)
