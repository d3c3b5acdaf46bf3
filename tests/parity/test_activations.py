"""Activations and their gradients: as PyTorch, and as Keras where only Keras has them."""

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dlgpu import Tensor, activations
from dlgpu.layers import ELU, Dense, LeakyReLU, PReLU, ReLU, Softmax

# Odd multiples of 1/32: none is where an activation has a corner, and a Dense layer's logits are exact (see below)
X = ((np.arange(256) - 127.5) / 16).astype(np.float32).reshape(16, 16)
GRAD = np.random.default_rng(0).normal(size=X.shape).astype(np.float32)

TORCH = {
    "celu": (lambda x: activations.celu(x, 0.7), lambda x: F.celu(x, 0.7)),
    "elu": (activations.elu, F.elu),
    "elu with alpha": (lambda x: activations.elu(x, 0.7), lambda x: F.elu(x, 0.7)),
    "exponential": (activations.exponential, torch.exp),
    "gelu": (activations.gelu, F.gelu),
    "gelu approximated": (lambda x: activations.gelu(x, True), lambda x: F.gelu(x, approximate="tanh")),
    "hard_shrink": (activations.hard_shrink, F.hardshrink),
    "hard_sigmoid": (activations.hard_sigmoid, F.hardsigmoid),
    "hard_silu": (activations.hard_silu, F.hardswish),
    "hard_tanh": (activations.hard_tanh, F.hardtanh),
    "leaky_relu": (activations.leaky_relu, lambda x: F.leaky_relu(x, 0.2)),
    "leaky_relu with slope": (lambda x: activations.leaky_relu(x, 0.05), lambda x: F.leaky_relu(x, 0.05)),
    "log_sigmoid": (activations.log_sigmoid, F.logsigmoid),
    "log_softmax": (activations.log_softmax, lambda x: F.log_softmax(x, -1)),
    "log_softmax of axis 0": (lambda x: activations.log_softmax(x, 0), lambda x: F.log_softmax(x, 0)),
    "mish": (activations.mish, F.mish),
    "relu": (activations.relu, F.relu),
    "relu6": (activations.relu6, F.relu6),
    "selu": (activations.selu, F.selu),
    "sigmoid": (activations.sigmoid, torch.sigmoid),
    "silu": (activations.silu, F.silu),
    "soft_shrink": (activations.soft_shrink, F.softshrink),
    "softmax": (activations.softmax, lambda x: F.softmax(x, -1)),
    "softmax of axis 0": (lambda x: activations.softmax(x, 0), lambda x: F.softmax(x, 0)),
    "softplus": (activations.softplus, F.softplus),
    "softsign": (activations.softsign, F.softsign),
    "tanh": (activations.tanh, torch.tanh),
    "tanh_shrink": (activations.tanh_shrink, F.tanhshrink),
    "threshold": (lambda x: activations.threshold(x, 0.3, -2.0), lambda x: F.threshold(x, 0.3, -2.0)),
}
KERAS = {
    "glu": {},
    "relu": {"negative_slope": 0.1, "max_value": 5.0, "threshold": 0.5},
    "sparse_plus": {},
    "sparse_sigmoid": {},
    "squareplus": {"b": 3},
}


def agree(ours, theirs):
    """Outputs and gradients. Near 0 the tolerance is relative to the largest: there PyTorch's own digits are few."""
    x, t = Tensor(X, requires_grad=True), torch.tensor(X, requires_grad=True)
    mine, other = ours(x), theirs(t)
    grad = GRAD[:, : mine.shape[1]]
    mine.backward(Tensor(grad))
    other.backward(torch.tensor(grad))
    for a, b in ((mine.numpy(), other.detach().numpy()), (x.grad.numpy(), t.grad.numpy())):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * max(1, abs(b).max()))


@pytest.mark.parametrize("name", TORCH)
def test_activation_is_torchs(name):
    agree(*TORCH[name])


@pytest.mark.parametrize("name", KERAS)
def test_activation_is_keras(name):
    ours, theirs = getattr(activations, name), getattr(keras.activations, name)
    agree(lambda x: ours(x, **KERAS[name]), lambda x: theirs(x, **KERAS[name]))


def test_every_name_of_keras_is_known_and_means_the_same():
    from keras.src.activations import ALL_OBJECTS_DICT

    assert set(ALL_OBJECTS_DICT) == set(activations.functions)
    # Keras 3.15's sparsemax adds up running sums, so that its outputs do not sum to 1
    for name in set(ALL_OBJECTS_DICT) - {"threshold", "sparsemax"}:
        theirs = keras.ops.convert_to_numpy(keras.activations.get(name)(keras.ops.convert_to_tensor(X)))
        np.testing.assert_allclose(activations.get(name)(Tensor(X)).numpy(), theirs, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ReLU(3.0, 0.1, 0.2), keras.layers.ReLU(3.0, 0.1, 0.2)),
        (LeakyReLU(), keras.layers.LeakyReLU()),
        (ELU(0.4), keras.layers.ELU(0.4)),
        (PReLU(alpha_initializer="ones"), keras.layers.PReLU(alpha_initializer="ones")),
        (Softmax(), keras.layers.Softmax()),
        (Dense(5, "gelu"), keras.layers.Dense(5, "gelu")),
        (Dense(5, "softmax"), keras.layers.Dense(5, "softmax")),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layer_is_keras_layer_with_its_weights(ours, theirs):
    theirs.build(X.shape)
    ours(X)
    assert [w.name for w in ours.weights] == [w.name for w in theirs.weights]
    # Small multiples of 1/64: sums with X are exact in the order of any processor, and no softmax saturates
    rng = np.random.default_rng(0)
    weights = [rng.integers(-16, 17, w.shape).astype(np.float32) / 64 for w in ours.weights]
    ours.set_weights(weights)
    theirs.set_weights(weights)
    agree(ours, theirs)
    for mine, other in zip(ours.trainable_weights, theirs.trainable_weights):
        expected = other.value.grad.numpy()
        np.testing.assert_allclose(mine.grad.numpy(), expected, rtol=1e-5, atol=1e-6 * abs(expected).max())
