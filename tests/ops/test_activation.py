"""The activation row: fused activations, dense, and the special functions under them."""

import math

import numpy as np
import pytest

from dlgpu import Tensor, ops
from dlgpu.backend.reference import special
from dlgpu.backend.reference.activation import FROM_INPUT, NAMES
from dlgpu.ops.activation import COMPOSITES, activation, dense, erf, erfc, fused_name, fuses
from dlgpu.testing import gradcheck

# off the kinks of every activation by more than gradcheck's step
SMOOTH = np.array([[-7.3, -3.4, -1.2, -0.4], [0.3, 0.9, 2.1, 2.9], [3.2, 5.8, 6.4, 9.0]])
EVERY = pytest.mark.parametrize("name", NAMES)


def by_hand(name, z):
    """Each activation in Python's own floats, one value at a time."""
    e = math.exp(-abs(z))
    sigmoid = 1 / (1 + e) if z >= 0 else e / (1 + e)
    softplus = max(z, 0) + math.log1p(e)
    return {
        "linear": z,
        "relu": max(z, 0),
        "leaky_relu": z if z > 0 else 0.2 * z,
        "relu6": min(max(z, 0), 6),
        "elu": z if z > 0 else math.expm1(z),
        "selu": 1.0507009873554805 * (z if z > 0 else 1.6732632423543772 * math.expm1(z)),
        "sigmoid": sigmoid,
        "tanh": math.tanh(z),
        "exponential": math.exp(z),
        "softplus": softplus,
        "hard_sigmoid": min(max(z / 6 + 0.5, 0), 1),
        "hard_tanh": min(max(z, -1), 1),
        "softsign": z / (1 + abs(z)),
        "silu": z * sigmoid,
        "hard_silu": z * min(max(z / 6 + 0.5, 0), 1),
        "mish": z * math.tanh(softplus),
        "gelu": z * 0.5 * math.erfc(-z / math.sqrt(2)),
        "gelu_tanh": 0.5 * z * (1 + math.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))),
    }[name]


@EVERY
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 5e-7), (np.float64, 2e-15)])
def test_activations_are_what_their_names_say(name, dtype, tolerance):
    z = np.linspace(-12, 12, 97).astype(dtype)
    output = activation(z, name).numpy()
    assert output.dtype == dtype
    np.testing.assert_allclose(output, [by_hand(name, float(v)) for v in z], rtol=tolerance * 8, atol=tolerance)


@EVERY
def test_first_and_second_derivatives(name, rng):
    gradcheck(lambda x: activation(x, name), SMOOTH)
    gradcheck(lambda x, b: activation(x, name, b), SMOOTH, rng.uniform(-0.05, 0.05, 4), tolerance=5e-6)


@EVERY
def test_the_kernel_and_its_composite_agree_on_the_derivative_everywhere(name):
    z = np.array([-50.0, -6, -3, -1, -0.5, -1e-9, 0, 1e-9, 0.5, 1, 3, 6, 7, 50], np.float64)
    plain = ops.grad(lambda t: activation(t, name).sum())(z).numpy()
    recorded = ops.grad(lambda t: activation(t, name).sum(), create_graph=True)(z).numpy()
    np.testing.assert_allclose(recorded, plain, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(COMPOSITES[name](Tensor(z)).numpy(), activation(z, name).numpy(), rtol=1e-13, atol=1e-15)


@EVERY
def test_nothing_overflows_and_nan_comes_through(name):
    largest = 80.0 if name == "exponential" else 1e30
    z = np.array([-1e30, -1e4, -200, 200 if name != "exponential" else 80, largest, np.nan], np.float32)
    x = Tensor(z, requires_grad=True)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        output = activation(x, name)
        output.sum().backward()
    assert np.isfinite(output.numpy()[:-1]).all()
    assert np.isfinite(x.grad.numpy()[:-1]).all()
    assert np.isnan(output.numpy()[-1])


@pytest.mark.parametrize("name", ["sigmoid", "silu", "softplus", "gelu", "gelu_tanh", "mish"])
def test_small_results_keep_their_digits_in_float32(name):
    z = np.array([-4.0, -5.5, -7.0], np.float32)
    expected = activation(z.astype(np.float64), name).numpy()
    np.testing.assert_allclose(activation(z, name).numpy(), expected, rtol=1e-5)
    slopes = [ops.grad(lambda t: activation(t, name).sum())(z.astype(d)).numpy() for d in (np.float32, np.float64)]
    np.testing.assert_allclose(slopes[0], slopes[1], rtol=3e-5)


@EVERY
def test_the_input_is_left_alone_and_the_bias_is_added(name, rng):
    x, bias = rng.normal(size=(5, 3)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    before = x.copy()
    with_bias = activation(x, name, Tensor(bias)).numpy()
    np.testing.assert_array_equal(x, before)
    np.testing.assert_allclose(with_bias, activation(before + bias, name).numpy(), rtol=1e-6, atol=1e-7)


@EVERY
def test_empty_single_and_strided_inputs(name, rng):
    assert activation(np.zeros((0, 3), np.float32), name).shape == (0, 3)
    assert activation(np.float64(0.5), name).item() == pytest.approx(by_hand(name, 0.5), abs=1e-14)
    wide = rng.normal(size=(6, 10))
    strided = activation(wide[::2, 1::3].T, name).numpy()
    np.testing.assert_array_equal(strided, activation(np.ascontiguousarray(wide[::2, 1::3].T), name).numpy())


def test_the_bias_gradient_is_the_sum_over_all_other_axes(rng):
    x, bias = rng.normal(size=(2, 3, 4)), Tensor(rng.normal(size=4), requires_grad=True)
    factor = rng.normal(size=(2, 3, 4))
    (activation(x, "tanh", bias) * factor).sum().backward()
    expected = (factor * (1 - np.tanh(x + bias.numpy()) ** 2)).sum(axis=(0, 1))
    np.testing.assert_allclose(bias.grad.numpy(), expected, rtol=1e-12)


def test_integers_become_float32_and_a_bias_takes_the_dtype_of_x():
    assert activation(np.array([-1, 2]), "relu").dtype == np.float32
    assert activation(np.ones((2, 3), np.float32), "tanh", Tensor(np.ones(3))).dtype == np.float32


@pytest.mark.parametrize("shape", [(5, 3), (1, 3), (0, 3), (2, 4, 3), (3,)])
@pytest.mark.parametrize("name", ["linear", "relu", "gelu"])
def test_dense_is_a_product_a_bias_and_an_activation(shape, name, rng):
    x, kernel, bias = rng.normal(size=shape), rng.normal(size=(3, 7)), rng.normal(size=7)
    output = dense(x, Tensor(kernel), Tensor(bias), name)
    assert output.shape == (*shape[:-1], 7)
    np.testing.assert_allclose(output.numpy(), activation(x @ kernel + bias, name).numpy(), rtol=1e-12, atol=1e-14)


def test_dense_derivatives(rng):
    x, kernel, bias = rng.normal(size=(2, 3, 4)), rng.normal(size=(4, 2)), rng.normal(size=2)
    gradcheck(lambda x, k, b: dense(x, k, b, "tanh"), x, kernel, bias)
    gradcheck(lambda x, k: dense(x, k, None, "silu"), x[0], kernel)
    gradcheck(lambda x, k, b: dense(x, k, b, "softplus"), x[:0, 0], kernel, bias)
    gradcheck(lambda k: dense(np.swapaxes(x, 0, 1)[::2], k, None), kernel)


def test_dense_computes_no_gradient_that_nobody_asked_for(monkeypatch, rng):
    from dlgpu.ops.activation import kernels

    asked = []
    original = kernels.dense_backward
    monkeypatch.setattr(kernels, "dense_backward", lambda *args: asked.append(args[-1]) or original(*args))
    kernel = Tensor(rng.normal(size=(3, 2)), requires_grad=True)
    dense(rng.normal(size=(4, 3)), kernel, Tensor(np.zeros(2))).sum().backward()
    assert asked == [(False, True, False)]


def test_dense_computes_in_the_dtype_of_its_kernel():
    kernel = Tensor(np.ones((2, 1), np.float32))
    assert dense(np.ones((3, 2), np.float64), kernel).dtype == np.float32
    assert dense(np.ones((3, 2), np.int64), kernel).dtype == np.float32


def test_wrong_shapes_and_names_are_named():
    with pytest.raises(ValueError, match=r"expected x \(..., features\).* got \(2, 3\) and \(4, 5\)"):
        dense(np.ones((2, 3)), Tensor(np.ones((4, 5))))
    with pytest.raises(ValueError, match=r"bias of shape \(3,\).* got \(2,\)"):
        activation(np.ones((4, 3)), "relu", Tensor(np.ones(2)))
    with pytest.raises(ValueError, match=r"Unknown fused activation 'rleu'\. Did you mean 'relu'"):
        activation(np.ones(3), "rleu")


def test_a_function_is_fused_by_identity_not_by_its_name():
    import functools

    @fuses("tanh")
    def mine(x):
        return ops.tanh(x)

    @functools.wraps(mine)
    def wrapped(x):
        return mine(x) * 2

    x = np.array([[0.5, -1.0]])
    assert (fused_name(mine), fused_name(wrapped), fused_name(object())) == ("tanh", None, None)
    kernel, bias = Tensor(np.eye(2)), Tensor(np.ones(2))
    np.testing.assert_allclose(dense(x, kernel, bias, mine).numpy(), np.tanh(x + 1))
    np.testing.assert_allclose(dense(x, kernel, bias, wrapped).numpy(), 2 * np.tanh(x + 1))


def test_only_activations_that_need_their_input_keep_it():
    from dlgpu.ops.activation import kernels

    x = np.array([0.5, -1.5])
    for name in NAMES:
        output, saved = kernels.bias_activation(x, None, name)
        assert saved is (x if name in FROM_INPUT else output)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 6e-7), (np.float64, 2e-15)])
def test_erfc_is_accurate_near_zero_and_in_the_tail(dtype, tolerance):
    x = np.linspace(-6, 3, 601).astype(dtype)
    expected = np.array([math.erfc(float(v)) for v in x])
    np.testing.assert_allclose(special.erfc(x), expected, rtol=tolerance)
    np.testing.assert_allclose(special.erf(x), [math.erf(float(v)) for v in x], rtol=0, atol=tolerance)
    tail = np.array([4, 6, 8.5], dtype)
    np.testing.assert_allclose(special.erfc(tail), [math.erfc(float(v)) for v in tail], rtol=tolerance * 40)
    assert special.erfc(np.array([np.inf, 100, -np.inf], dtype)).tolist() == [0, 0, 2]
    assert np.isnan(special.erfc(np.array([np.nan], dtype))).all()


def test_smooth_functions_can_be_differentiated_again():
    x = np.array([-2.0, -0.1, 0.0, 0.7, 3.0])
    for function in (erf, erfc, ops.activation.softplus, ops.activation.sigmoid, ops.activation.normal_cdf):
        gradcheck(function, x)
        gradcheck(ops.grad(lambda t, f=function: f(t).sum(), create_graph=True), x, second=False)
