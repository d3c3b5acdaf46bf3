"""Convolution layers: shapes, weights, configuration and errors. What they compute is tested in ops and parity."""

import numpy as np
import pytest

from dlgpu.layers import (
    Conv1D,
    Conv2D,
    Conv2DTranspose,
    Convolution2D,
    DepthwiseConv2D,
    Layer,
    SeparableConv2D,
)
from dlgpu.layers.symbol import Symbol
from dlgpu.ops.convolution import conv2d
from dlgpu.tensor import Tensor

random = np.random.default_rng(0)

LAYERS = [
    (Conv1D(3, 4, padding="causal", dilation_rate=2), (7, 2), (7, 3)),
    (Conv1D(4, 3, strides=2, groups=2), (8, 2), (3, 4)),
    (Conv2D(5, (3, 2), (2, 1), padding="SAME", activation="relu"), (5, 4, 2), (3, 4, 5)),
    (Conv2D(5, 3, dilation_rate=(2, 1), activation=abs, use_bias=False), (6, 4, 1), (2, 2, 5)),
    (DepthwiseConv2D(3, depth_multiplier=2), (5, 5, 3), (3, 3, 6)),
    (SeparableConv2D(4, 3, padding="same", activation="tanh"), (5, 4, 3), (5, 4, 4)),
    (Conv2DTranspose(2, 3, strides=(2, 1)), (3, 4, 3), (7, 6, 2)),
]


@pytest.mark.parametrize(("layer", "inside", "outside"), LAYERS, ids=lambda x: type(x).__name__)
def test_output_shapes_are_stated_before_they_are_computed(layer, inside, outside):
    assert layer(Symbol((None, *inside))).shape == (None, *outside)
    unknown = (None, *(None for _ in inside[1:]), inside[-1])
    assert layer.compute_output_shape(unknown) == (*(None for _ in inside), outside[-1])
    for batch in (0, 1, 3):
        out = layer(random.normal(size=(batch, *inside)).astype(np.float32))
        assert out.shape == (batch, *outside)
        assert out.dtype == np.float32


@pytest.mark.parametrize(("layer", "inside", "outside"), LAYERS[:3] + LAYERS[4:], ids=lambda x: type(x).__name__)
def test_a_layer_built_from_its_configuration_computes_the_same(layer, inside, outside):
    x = random.normal(size=(2, *inside)).astype(np.float32)
    expected = layer(x).numpy()
    copy = type(layer).from_config(layer.get_config())
    copy(x)
    copy.set_weights(layer.get_weights())
    np.testing.assert_array_equal(copy(x).numpy(), expected)


@pytest.mark.parametrize(("layer", "inside", "outside"), LAYERS, ids=lambda x: type(x).__name__)
def test_every_weight_gets_a_gradient(layer, inside, outside):
    layer(random.normal(size=(2, *inside)).astype(np.float32)).sum().backward()
    assert all(w.grad is not None and w.grad.shape == w.shape for w in layer.weights)


def test_weights_have_the_names_shapes_and_order_of_keras():
    layer = SeparableConv2D(4, (3, 2), depth_multiplier=2)
    layer(np.zeros((1, 5, 5, 3), np.float32))
    assert [(w.name, w.shape) for w in layer.weights] == [
        ("depthwise_kernel", (3, 2, 3, 2)),
        ("pointwise_kernel", (1, 1, 6, 4)),
        ("bias", (4,)),
    ]
    layer = Conv2D(6, 3, groups=2)
    layer(np.zeros((1, 5, 5, 4), np.float32))
    assert [(w.name, w.shape) for w in layer.weights] == [("kernel", (3, 3, 2, 6)), ("bias", (6,))]


def test_an_activation_that_is_not_fused_comes_after_the_bias():
    layer = Conv2D(2, 1, activation=lambda z: z * z, bias_initializer="ones")
    x = random.normal(size=(1, 2, 2, 1)).astype(np.float32)
    out = layer(x).numpy()
    np.testing.assert_allclose(out, (conv2d(x, layer.kernel).numpy() + 1) ** 2, rtol=1e-5)


def test_a_frozen_kernel_gets_no_gradient_and_the_input_still_does():
    layer = Conv2D(2, 3, trainable=False)
    x = Tensor(np.ones((1, 4, 4, 1), np.float32), requires_grad=True)
    layer(x).sum().backward()
    assert layer.kernel.grad is None
    assert x.grad is not None


def test_layers_are_found_by_their_other_names():
    assert Layer.class_named("convolution2d") is Conv2D is Convolution2D


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conv2D(0, 3, name="c"), "Conv2D 'c': filters must be a positive integer, got 0"),
        (lambda: Conv2D(4, (3, 3, 3)), "kernel_size must be an integer or 2 integers"),
        (lambda: Conv2D(4, 2.5), "kernel_size must be"),
        (lambda: Conv1D(4, 3, strides=0), "strides must be an integer of at least 1"),
        (lambda: Conv2D(4, 3, padding="causal"), "padding must be one of 'valid', 'same', got 'causal'"),
        (lambda: Conv2D(4, 3, groups=3), "filters must divide by groups, got 4 filters and 3 groups"),
        (lambda: Conv2D(4, 3, strides=2, dilation_rate=2), "strides > 1 do not go with dilation_rate > 1"),
        (lambda: SeparableConv2D(4, 3, depth_multiplier=0), "depth_multiplier must be a positive integer"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (Conv2D(4, 3, name="c"), (2, 8, 8), r"Conv2D 'c': expected inputs of shape \(batch, height, width, channels\)"),
        (Conv1D(4, 3, name="c"), (2, 8, 8, 1), r"Conv1D 'c': expected inputs of shape \(batch, time, channels\)"),
        (Conv2D(4, 5, name="c"), (2, 8, 3, 1), "Conv2D 'c': a window of 5 does not fit into an input of width 3"),
        (Conv2D(4, 3, groups=2, name="c"), (2, 8, 8, 3), "channels must divide by groups, got 3 channels and 2 groups"),
        (Conv2D(4, 3, name="c"), (None, 8, 8, None), "the number of channels must be known"),
        (Conv2DTranspose(4, 3, name="c"), (2, 8, 8), "Conv2DTranspose 'c': expected inputs"),
    ],
)
def test_inputs_that_do_not_fit_name_the_layer(layer, shape, message):
    with pytest.raises(ValueError, match=message):
        layer(Symbol(shape) if None in shape else np.zeros(shape, np.float32))


@pytest.mark.parametrize("kind", [Conv2D, DepthwiseConv2D, Conv2DTranspose])
def test_another_number_of_channels_than_at_first_is_an_error(kind):
    layer = kind(4, 3, name="c")
    layer(np.zeros((1, 5, 5, 3), np.float32))
    with pytest.raises(
        ValueError, match=r"'c': expected inputs of shape \(batch, height, width, 3\), got \(1, 5, 5, 1\)"
    ):
        layer(np.zeros((1, 5, 5, 1), np.float32))
