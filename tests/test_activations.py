"""Activations by name, and the activation layers."""

import inspect

import numpy as np
import pytest

from dlgpu import Tensor, activations, ops
from dlgpu.layers import ELU, Activation, Dense, LeakyReLU, PReLU, ReLU, Softmax
from dlgpu.ops.activation import COMPOSITES, fused_name
from dlgpu.saving.configurable import serialize
from dlgpu.testing import gradcheck

NAMES = sorted(activations.functions)
X = np.array([[-7.1, -2.2, -0.7, -0.3], [0.2, 0.4, 0.8, 1.3], [2.6, 4.1, 6.6, 8.0]])


def call(name, x):
    arguments = (0.25, 3.0) if name == "threshold" else ()
    return activations.get(name)(x, *arguments)


@pytest.mark.parametrize("name", NAMES)
def test_every_activation_by_name(name):
    assert serialize(activations.get(name)) in (name, name.replace("swish", "silu"))
    gradcheck(lambda x: call(name, x), X)
    assert call(name, X.astype(np.float32)).dtype == np.float32
    assert call(name, np.zeros((0, 4), np.float32)).size == 0


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("softmax", "log_softmax", "sparsemax", "glu")])
def test_nan_is_not_hidden_and_integers_are_taken(name):
    x = np.array([np.nan, 1.0], np.float32)
    assert np.isnan(call(name, Tensor(x)).numpy()).tolist() == [True, False]
    if name != "linear":
        assert call(name, Tensor([1, 2])).dtype == np.float32


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, [0, 0, 0, 0.5, 8]),
        ({"negative_slope": 0.5}, [-2, -0.25, 0, 0.5, 8]),
        ({"max_value": 6.0}, [0, 0, 0, 0.5, 6]),
        ({"threshold": 1.0}, [0, 0, 0, 0, 8]),
        ({"negative_slope": 0.5, "max_value": 6.0, "threshold": 1.0}, [-2.5, -0.75, -0.5, -0.25, 6]),
    ],
)
def test_relu_with_a_slope_a_limit_and_a_threshold(arguments, expected):
    x = np.array([-4, -0.5, 0, 0.5, 8], np.float32)
    np.testing.assert_array_equal(activations.relu(x, **arguments).numpy(), np.float32(expected))
    np.testing.assert_array_equal(ReLU(**arguments)(x[None]).numpy()[0], np.float32(expected))
    gradcheck(lambda t: activations.relu(t, **arguments), X)


def test_options_change_the_function():
    x = np.array([[-3.0, -0.2, 0.4, 2.0]])
    np.testing.assert_allclose(activations.elu(x, 2.0).numpy(), np.where(x > 0, x, 2 * np.expm1(x)))
    np.testing.assert_allclose(activations.celu(x, 2.0).numpy(), np.where(x > 0, x, 2 * np.expm1(x / 2)))
    np.testing.assert_allclose(activations.leaky_relu(x, 0.5).numpy(), np.where(x > 0, x, x / 2))
    np.testing.assert_allclose(activations.soft_shrink(x, 0.3).numpy(), [[-2.7, 0, 0.1, 1.7]])
    np.testing.assert_allclose(activations.hard_shrink(x, 0.3).numpy(), [[-3.0, 0, 0.4, 2.0]])
    np.testing.assert_allclose(activations.threshold(x, 0.4, -1.0).numpy(), [[-1, -1, -1, 2.0]])
    np.testing.assert_allclose(activations.squareplus(x, 9).numpy(), (x + np.sqrt(x * x + 9)) / 2)
    np.testing.assert_allclose(activations.glu(x.T, axis=0).numpy(), x.T[:2] / (1 + np.exp(-x.T[2:])))
    assert not np.allclose(activations.gelu(x).numpy(), activations.gelu(x, approximate=True).numpy(), atol=1e-5)
    for name in ("elu", "celu"):
        gradcheck(lambda t, name=name: activations.get(name)(t, 0.7), X)
    gradcheck(lambda t: activations.gelu(t, True), X)


def test_nothing_overflows_in_a_branch_that_is_not_taken():
    x = np.array([[-1e4, 1e4]], np.float32)
    for function in (lambda t: activations.elu(t, 2.0), lambda t: activations.celu(t, 2.0), activations.log_sigmoid):
        with np.errstate(over="raise", invalid="raise"):
            assert np.isfinite(ops.grad(lambda t, f=function: f(t).sum())(x).numpy()).all()
    assert activations.log_sigmoid(x).numpy().tolist() == [[-1e4, 0]]


@pytest.mark.parametrize("axis", [-1, 0])
def test_sparsemax_is_the_nearest_point_of_the_simplex(axis, rng):
    x = rng.normal(0, 2, (6, 6)).astype(np.float32) + 1000
    y = activations.sparsemax(x, axis).numpy()
    np.testing.assert_allclose(y.sum(axis=axis), 1, rtol=1e-5)
    assert (y == 0).any()
    assert (y >= 0).all()
    gap = np.moveaxis(np.where(y > 0, x - y, np.nan), axis, -1)  # tau, the same for all that are kept
    np.testing.assert_allclose(np.nanmax(gap, -1), np.nanmin(gap, -1), rtol=1e-6)
    left_out = np.moveaxis(np.where(y == 0, x, -np.inf), axis, -1).max(-1)
    assert (left_out <= np.nanmax(gap, -1) + 1e-3).all()


def test_sparsemax_of_ties_and_of_nan():
    np.testing.assert_allclose(activations.sparsemax(np.zeros((1, 4), np.float32)).numpy(), [[0.25] * 4])
    np.testing.assert_allclose(activations.sparsemax(np.array([[2.0, 1.0, 1.0]])).numpy(), [[1, 0, 0]])
    assert np.isnan(activations.sparsemax(np.array([[np.nan, 1.0]])).numpy()).any()


def test_names_functions_and_none():
    assert activations.get(None) is activations.linear
    assert activations.get("swish") is activations.silu
    assert activations.get(np.tanh) is np.tanh
    with pytest.raises(ValueError, match=r"Unknown activation 'sigmid'\. Did you mean 'sigmoid'\?"):
        activations.get("sigmid")
    with pytest.raises(TypeError, match="name of an activation or a function, got 5"):
        activations.get(5)
    with pytest.raises(ValueError, match="even length"):
        activations.glu(np.ones((2, 3)))


def test_a_fused_activation_is_the_function_called_with_x_alone():
    marked = {fused_name(f): f for f in activations.functions.values() if fused_name(f)}
    assert {*marked, "gelu_tanh"} == set(COMPOSITES)
    for name, function in marked.items():
        np.testing.assert_array_equal(function(Tensor(X)).numpy(), ops.activation.activation(X, name).numpy())
        assert all(p.default is not p.empty for p in list(inspect.signature(function).parameters.values())[1:])


@pytest.mark.parametrize("activation", ["relu", "softmax", "gelu", lambda t: ops.tanh(t) * 2])
def test_dense_applies_its_activation_fused_or_not(activation, rng):
    layer, plain = Dense(3, activation), Dense(3)
    x = rng.normal(size=(4, 5)).astype(np.float32)
    plain(x)
    layer(x)
    plain.set_weights(layer.get_weights())
    expected = activations.get(activation)(plain(x)).numpy()
    np.testing.assert_allclose(layer(x).numpy(), expected, rtol=1e-6, atol=1e-7)


def test_activation_layers_compute_their_functions_and_hand_the_mask_on(rng):
    x = rng.normal(size=(2, 3, 4)).astype(np.float32)
    pairs = [
        (Activation("tanh"), np.tanh(x)),
        (Activation(activations.softplus), np.log1p(np.exp(x))),
        (LeakyReLU(), np.where(x > 0, x, np.float32(0.3) * x)),
        (ELU(0.5), np.where(x > 0, x, 0.5 * np.expm1(x))),
        (Softmax(axis=1), np.exp(x) / np.exp(x).sum(1, keepdims=True)),
        (Softmax(axis=[1, 2]), np.exp(x) / np.exp(x).sum((1, 2), keepdims=True)),
    ]
    for layer, expected in pairs:
        inputs = Tensor(x)
        inputs.mask = Tensor(np.ones((2, 3), bool))
        outputs = layer(inputs)
        np.testing.assert_allclose(outputs.numpy(), expected, rtol=2e-6, atol=1e-7)
        assert outputs.mask is inputs.mask
        assert layer.compute_output_shape((None, 3, 4)) == (None, 3, 4)
        assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()


def test_prelu_learns_one_slope_for_each_value_or_shares_it(rng):
    x = rng.normal(size=(5, 2, 3)).astype(np.float32)
    layer = PReLU(alpha_initializer="ones", shared_axes=1)
    np.testing.assert_array_equal(layer(x).numpy(), x)
    assert [(w.name, w.shape) for w in layer.weights] == [("alpha", (1, 3))]
    layer.alpha.assign(np.array([[0.1, 0.2, 0.3]]))
    np.testing.assert_allclose(layer(x).numpy(), np.where(x > 0, x, x * np.float32([0.1, 0.2, 0.3])), rtol=1e-6)
    layer(x).sum().backward()
    np.testing.assert_allclose(layer.alpha.grad.numpy()[0], np.minimum(x, 0).sum((0, 1)), rtol=1e-5)
    assert PReLU().build((None, 2, 3)) is None
    with pytest.raises(ValueError, match=r"expected inputs of shape \(batch, 1, 3\), got \(5, 2, 4\)"):
        layer(np.ones((5, 2, 4)))
    with pytest.raises(ValueError, match="shared_axes must be from 1 to 2"):
        PReLU(shared_axes=[3])(x)


def test_softmax_gives_masked_values_nothing():
    x = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]], np.float32)
    y = Softmax()(x, mask=np.array([[1, 1, 0], [0, 0, 0]])).numpy()
    np.testing.assert_allclose(y, [[1 / (1 + np.e), np.e / (1 + np.e), 0], [0, 0, 0]], rtol=1e-6)
    assert Softmax()(x, mask=np.ones((2, 3))).mask is None  # a mask of values is not one of steps
    steps = Tensor(np.ones((2, 3, 4), np.float32))
    steps.mask = Tensor(np.array([[True, False, True]] * 2))
    np.testing.assert_array_equal(Softmax()(steps).numpy()[0], [[0.25] * 4, [0] * 4, [0.25] * 4])
    with pytest.raises(ValueError, match=r"Softmax 'head': expected a mask that broadcasts .* \(2, 3\), got \(2, 2\)"):
        Softmax(name="head")(x, mask=np.ones((2, 2)))


@pytest.mark.parametrize(
    "make", [lambda: ReLU(max_value=-1), lambda: ReLU(negative_slope=-1), lambda: ReLU(threshold=-1)]
)
def test_relu_refuses_negative_limits(make):
    with pytest.raises(ValueError, match=r"ReLU .*must be at least 0.*, got -1"):
        make()
    with pytest.raises(ValueError, match="negative_slope must be at least 0, got -1"):
        LeakyReLU(-1)
