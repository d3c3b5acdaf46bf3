"""The layers that add noise: active only in training, with noise that a seed repeats."""

import math

import numpy as np
import pytest

import dlgpu
from dlgpu.layers import Dropout, GaussianDropout, GaussianNoise, SpatialDropout1D, SpatialDropout2D
from dlgpu.tensor import Tensor

MAKERS = [
    lambda **kwargs: Dropout(0.5, **kwargs),
    lambda **kwargs: GaussianNoise(0.5, **kwargs),
    lambda **kwargs: GaussianDropout(0.5, **kwargs),
    lambda **kwargs: SpatialDropout1D(0.5, **kwargs),
]
X = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)


@pytest.mark.parametrize("make", MAKERS)
def test_noise_only_while_training(make):
    layer = make()
    np.testing.assert_array_equal(layer(X).numpy(), X)
    np.testing.assert_array_equal(layer(X, training=False).numpy(), X)
    noisy = layer(X, training=True)
    assert noisy.dtype == np.float32
    assert noisy.shape == X.shape == layer.compute_output_shape(X.shape)
    assert (noisy.numpy() != X).any()
    assert layer.weights == []


@pytest.mark.parametrize("make", MAKERS)
def test_the_process_seed_repeats_the_noise(make):
    dlgpu.set_random_seed(1)
    first, second = (layer := make())(X, training=True).numpy(), layer(X, training=True).numpy()
    assert (first != second).any()
    dlgpu.set_random_seed(1)
    np.testing.assert_array_equal(layer(X, training=True).numpy(), first)
    np.testing.assert_array_equal(layer(X, training=True).numpy(), second)


@pytest.mark.parametrize("make", MAKERS)
def test_a_layers_seed_makes_it_independent_of_the_process(make):
    dlgpu.set_random_seed(1)
    first = make(seed=3)(X, training=True).numpy()
    dlgpu.set_random_seed(2)
    layer = make(seed=3)
    np.testing.assert_array_equal(layer(X, training=True).numpy(), first)
    assert (layer(X, training=True).numpy() != first).any()


def test_dropped_values_are_zero_and_the_others_grow():
    ones = np.ones((200, 100), np.float32)
    values = np.unique(Dropout(0.2)(ones, training=True).numpy())
    np.testing.assert_allclose(values, [0, 1.25])
    np.testing.assert_array_equal(Dropout(1.0)(ones, training=True).numpy(), 0)
    np.testing.assert_array_equal(Dropout(0)(ones, training=True).numpy(), 1)


def test_gaussian_layers_have_the_said_moments():
    ones, n = np.ones((200, 500), np.float32), 100_000
    for layer, stddev in [(GaussianNoise(0.3), 0.3), (GaussianDropout(0.2), 0.5)]:
        noisy = layer(ones, training=True).numpy().astype(np.float64)
        assert abs(noisy.mean() - 1) < 5 * stddev / math.sqrt(n)
        assert abs(noisy.std() / stddev - 1) < 5 / math.sqrt(2 * n)


def test_gradients_flow_through_the_same_noise():
    x = Tensor(np.ones((50, 4), np.float32), requires_grad=True)
    for layer in [Dropout(0.5), GaussianDropout(0.5)]:
        x.grad = None
        y = layer(x, training=True)
        y.sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), y.numpy(), rtol=1e-6)


def test_spatial_dropout_drops_whole_channels():
    y = SpatialDropout1D(0.5)(np.ones((8, 5, 6), np.float32), training=True).numpy()
    assert (y == y[:, :1]).all()
    assert len(np.unique(y[:, 0], axis=0)) > 1
    y = SpatialDropout2D(0.5)(np.ones((8, 3, 5, 6), np.float32), training=True).numpy()
    assert (y == y[:, :1, :1]).all()
    assert len(np.unique(y[:, 0, 0], axis=0)) > 1


def test_noise_shape():
    y = Dropout(0.5, noise_shape=(None, 1, None))(np.ones((8, 5, 6), np.float32), training=True).numpy()
    assert (y == y[:, :1]).all()
    again = Dropout.from_config(Dropout(0.5, noise_shape=[None, 1, None], seed=2).get_config())
    assert (again.rate, again.noise_shape, again.seed) == (0.5, (None, 1, None), 2)


@pytest.mark.parametrize("make", MAKERS)
def test_masks_are_handed_on(make):
    x = Tensor(X)
    x.mask = Tensor(np.ones((4, 5), bool))
    assert make()(x, training=True).mask is x.mask


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Dropout(1.5, name="d"), r"Dropout 'd': rate must be in \[0, 1\], got 1.5"),
        (lambda: Dropout("0.5"), "rate must be"),
        (lambda: GaussianDropout(1), r"rate must be in \[0, 1\), got 1"),
        (lambda: GaussianNoise(-1), "stddev"),
        (lambda: Dropout(0.5, noise_shape=(0, 1)), "positive integers"),
        (lambda: Dropout(0.5, noise_shape="ab"), "noise_shape must be a tuple"),
        (lambda: Dropout(0.5, (None, 2), name="d")(X[0], training=True), r"Dropout 'd': noise_shape \(None, 2\)"),
        (lambda: SpatialDropout1D(0.5)(X[0], training=True), "expected inputs of 3 axes"),
        (lambda: Dropout(0.5, seed=-1), "seed"),
    ],
)
def test_nonsense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
