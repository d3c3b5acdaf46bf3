"""BatchNormalization and LayerNormalization: modes, moving statistics, masks, weights and descriptions."""

import gc

import numpy as np
import pytest

import dlgpu
from dlgpu import Tensor
from dlgpu.layers import BatchNormalization, LayerNormalization


def batch(rng, shape=(8, 3)):
    return (rng.normal(size=shape) * 2 + 5).astype(np.float32)


@pytest.mark.parametrize("shape", [(8, 3), (4, 5, 3), (2, 4, 5, 3)])
def test_batches_come_out_with_mean_0_and_variance_1(shape, rng):
    outputs = BatchNormalization(epsilon=1e-6)(batch(rng, shape), training=True).numpy().reshape(-1, 3)
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(outputs.std(axis=0), 1, atol=1e-4)


def test_moving_statistics_follow_the_batches_in_training_only(rng):
    layer, x = BatchNormalization(momentum=0.75), batch(rng)
    before = layer(x).numpy()
    np.testing.assert_allclose(before, x / np.sqrt(1.001), rtol=1e-6)  # mean 0 and variance 1 to begin with
    np.testing.assert_array_equal(layer.moving_mean.numpy(), 0)
    array = layer.moving_mean.array
    for _ in range(2):
        layer(x, training=True)
    assert layer.moving_mean.array is array  # changed in place, so that views and buffers stay true
    mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    np.testing.assert_allclose(mean, x.mean(axis=0) * (1 - 0.75**2), rtol=1e-5)
    np.testing.assert_allclose(variance, 0.75**2 + x.var(axis=0) * (1 - 0.75**2), rtol=1e-5)
    expected = (x - mean) / np.sqrt(variance + 1e-3)
    np.testing.assert_allclose(layer(x, training=False).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_layer_that_is_not_trainable_only_infers(rng):
    layer, x = BatchNormalization(), batch(rng)
    layer(x)
    layer.trainable = False
    np.testing.assert_array_equal(layer(x, training=True).numpy(), layer(x).numpy())
    np.testing.assert_array_equal(layer.moving_mean.numpy(), 0)
    assert layer.trainable_weights == []


def test_gradients_reach_inputs_gamma_and_beta_in_both_modes(rng):
    layer = BatchNormalization()
    for training in (True, False):
        x = Tensor(batch(rng), requires_grad=True)
        (layer(x, training=training) ** 2).sum().backward()
        assert layer.gamma.grad.shape == layer.beta.grad.shape == (3,)
        assert x.grad.numpy().any()
        assert layer.moving_mean.grad is None
        assert not layer.moving_mean.requires_grad


def test_updates_of_the_moving_statistics_hold_no_memory(rng):
    layer, x = BatchNormalization(), Tensor(batch(rng), requires_grad=True)
    layer(x, training=True)
    gc.collect()
    for _ in range(3):
        layer(x, training=True).sum().backward()
    assert gc.collect() == 0


def test_masked_steps_do_not_count(rng):
    x, mask = batch(rng, (4, 5, 3)), rng.random((4, 5)) < 0.5
    layer, other = BatchNormalization(momentum=0), BatchNormalization(momentum=0)
    outputs = layer(x, training=True, mask=Tensor(mask))
    other(x[mask], training=True)
    for ours, expected in zip(layer.get_weights(), other.get_weights()):
        np.testing.assert_allclose(ours, expected, rtol=1e-5)
    np.testing.assert_array_equal(outputs.mask.numpy(), mask)  # and is handed on


def test_another_axis(rng):
    x = batch(rng, (4, 3, 5))
    ours = BatchNormalization(axis=1)(x, training=True).numpy()
    expected = BatchNormalization()(x.transpose(0, 2, 1), training=True).numpy().transpose(0, 2, 1)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("scale", [True, False])
def test_weights_are_named_and_optional(center, scale, rng):
    wanted = ["gamma"] * scale + ["beta"] * center
    layer, other = BatchNormalization(center=center, scale=scale), LayerNormalization(center=center, scale=scale)
    layer(batch(rng)), other(batch(rng))
    assert [w.name for w in layer.weights] == [*wanted, "moving_mean", "moving_variance"]
    assert [w.name for w in other.weights] == wanted
    assert [w.name for w in layer.trainable_weights] == wanted


@pytest.mark.parametrize("axis", [-1, 1, (1, 2), [-1, -2]])
def test_layer_normalization_over_any_axes(axis, rng):
    x = batch(rng, (4, 5, 3))
    layer = LayerNormalization(axis=axis, epsilon=1e-6)
    outputs = layer(x).numpy()
    axes = tuple(axis) if isinstance(axis, (tuple, list)) else axis
    np.testing.assert_allclose(outputs.mean(axis=axes), 0, atol=1e-5)
    np.testing.assert_allclose(outputs.std(axis=axes), 1, atol=1e-4)
    assert layer.gamma.shape == {-1: (3,), 1: (5,)}.get(axis if isinstance(axis, int) else None, (5, 3))


def test_defaults_and_masks_of_layer_normalization(rng):
    x, mask = Tensor(batch(rng, (4, 5, 3))), rng.random((4, 5)) < 0.5
    x.mask = Tensor(mask)
    layer = LayerNormalization()
    outputs = layer(x)
    np.testing.assert_array_equal(outputs.mask.numpy(), mask)
    centred = x.numpy() - x.numpy().mean(axis=-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(outputs.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert len(layer.weights) == 2


def test_layers_are_described_and_built_again(rng):
    x = batch(rng, (4, 5, 3))
    for layer in (
        BatchNormalization(axis=1, momentum=0.5, epsilon=0.1, scale=False, beta_initializer="ones"),
        LayerNormalization(axis=[1, 2], epsilon=0.1, gamma_regularizer="l2"),
    ):
        again = type(layer).from_config(layer.get_config())
        np.testing.assert_array_equal(again(x, training=True).numpy(), layer(x, training=True).numpy())
        assert len(again.losses) == len(layer.losses)
        assert again.compute_output_shape((None, 5, 3)) == (None, 5, 3)


def test_what_does_not_fit_is_named(rng):
    layer = BatchNormalization(name="norm")
    layer(batch(rng))
    for wrong, words in (
        (lambda: layer(batch(rng, (8, 4))), r"BatchNormalization 'norm': expected inputs of length \(3,\) along axis"),
        (lambda: BatchNormalization(axis=4, name="norm")(batch(rng)), "'norm': axis 4 is out of bounds"),
        (lambda: BatchNormalization(name="norm")(batch(rng, (8,))), "expected inputs of 2 or more dimensions"),
        (lambda: LayerNormalization(name="norm").build((None, None)), "must be known"),
    ):
        with pytest.raises(ValueError, match=words):
            wrong()
    with pytest.raises(TypeError, match="axis must be an integer or several"):
        LayerNormalization(axis=1.5)


def test_float64_throughout(rng):
    x = rng.normal(size=(8, 3))
    for layer in (BatchNormalization(dtype="float64"), LayerNormalization(dtype="float64")):
        assert layer(x, training=True).dtype == np.float64
    with dlgpu.no_grad():
        assert not layer(x).requires_grad
