"""Convolution beside PyTorch, and where only Keras has it, beside Keras: outputs and gradients to 1e-5."""

import keras
import numpy as np
import pytest
import torch

from dlgpu import layers
from dlgpu.ops.convolution import conv1d, conv2d, conv2d_max_pool
from dlgpu.tensor import Tensor

random = np.random.default_rng(0)


def normal(*shape):
    return random.normal(size=shape).astype(np.float32)


def close(ours, theirs):
    """To 1e-5 of the largest value."""
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else np.asarray(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * abs(theirs).max())


@pytest.mark.parametrize(
    ("size", "channels", "window", "filters", "strides", "padding", "dilation", "groups"),
    [
        ((12, 13), 3, (3, 3), 8, (1, 1), (0, 0), (1, 1), 1),
        ((12, 13), 8, (5, 2), 6, (2, 3), (2, 1), (1, 1), 2),
        ((11, 9), 4, (3, 2), 8, (1, 1), (1, 3), (2, 3), 4),
        ((7, 7), 16, (1, 1), 4, (2, 2), (0, 0), (1, 1), 1),
    ],
)
@pytest.mark.parametrize("pooled", [False, True])
def test_conv2d_is_pytorchs(size, channels, window, filters, strides, padding, dilation, groups, pooled):
    x, kernel, bias = normal(3, *size, channels), normal(*window, channels // groups, filters), normal(filters)
    ours = [Tensor(a, requires_grad=True) for a in (x, kernel, bias)]
    pairs = tuple((p, p) for p in padding)
    out = (conv2d_max_pool if pooled else conv2d)(*ours, strides, pairs, dilation, groups, "relu")
    grad = normal(*out.shape)
    out.backward(Tensor(grad))

    image, weight = torch.tensor(x.transpose(0, 3, 1, 2)), torch.tensor(kernel.transpose(3, 2, 0, 1))
    theirs = [t.requires_grad_() for t in (image, weight, torch.tensor(bias))]
    expected = torch.relu(torch.nn.functional.conv2d(*theirs, strides, padding, dilation, groups))
    expected = torch.nn.functional.max_pool2d(expected, 2) if pooled else expected
    expected.backward(torch.tensor(grad.transpose(0, 3, 1, 2)))
    close(out.numpy(), expected.permute(0, 2, 3, 1))
    close(ours[0].grad.numpy(), theirs[0].grad.permute(0, 2, 3, 1))
    close(ours[1].grad.numpy(), theirs[1].grad.permute(2, 3, 1, 0))
    close(ours[2].grad.numpy(), theirs[2].grad)


def test_conv1d_is_pytorchs():
    x, kernel = normal(2, 20, 4), normal(5, 2, 6)
    ours = [Tensor(a, requires_grad=True) for a in (x, kernel)]
    out = conv1d(*ours, None, 2, (3, 3), 2, 2)
    (out * out).sum().backward()
    theirs = [torch.tensor(a.transpose(*order)).requires_grad_() for a, order in ((x, (0, 2, 1)), (kernel, (2, 1, 0)))]
    expected = torch.nn.functional.conv1d(*theirs, None, 2, 3, 2, 2)
    (expected * expected).sum().backward()
    close(out.numpy(), expected.permute(0, 2, 1))
    close(ours[0].grad.numpy(), theirs[0].grad.permute(0, 2, 1))
    close(ours[1].grad.numpy(), theirs[1].grad.permute(2, 1, 0))


@pytest.mark.parametrize(
    ("kind", "shape", "arguments"),
    [
        ("Conv2D", (9, 10, 3), {"filters": 4, "kernel_size": (3, 4), "strides": (2, 3), "padding": "same"}),
        (
            "Conv2D",
            (9, 10, 4),
            {"filters": 6, "kernel_size": 3, "dilation_rate": (2, 1), "padding": "same", "groups": 2},
        ),
        ("Conv1D", (11, 3), {"filters": 4, "kernel_size": 4, "strides": 3, "padding": "same", "activation": "tanh"}),
        ("Conv1D", (11, 3), {"filters": 4, "kernel_size": 3, "dilation_rate": 2, "padding": "causal"}),
        ("Conv1D", (11, 3), {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "causal", "use_bias": False}),
        ("DepthwiseConv2D", (8, 9, 3), {"kernel_size": 3, "strides": 2, "padding": "same", "depth_multiplier": 2}),
        (
            "SeparableConv2D",
            (8, 9, 3),
            {"filters": 5, "kernel_size": (2, 3), "depth_multiplier": 2, "activation": "relu"},
        ),
        ("Conv2DTranspose", (4, 5, 3), {"filters": 2, "kernel_size": (3, 4), "strides": (2, 3)}),
        ("Conv2DTranspose", (4, 5, 3), {"filters": 2, "kernel_size": 3, "strides": 2, "padding": "same"}),
    ],
)
def test_layers_are_keras_layers(kind, shape, arguments):
    ours, theirs = getattr(layers, kind)(**arguments), getattr(keras.layers, kind)(**arguments)
    x = normal(2, *shape)
    theirs.build((None, *shape))
    ours(x)
    assert [w.shape for w in ours.get_weights()] == [w.shape for w in theirs.get_weights()]
    assert [w.name for w in ours.weights] == [w.name for w in theirs.weights]
    weights = [normal(*w.shape) for w in theirs.get_weights()]
    ours.set_weights(weights)
    theirs.set_weights(weights)

    tensor, image = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    out, expected = ours(tensor), theirs(image)
    grad = normal(*out.shape)
    out.backward(Tensor(grad))
    expected.backward(torch.tensor(grad))
    close(out.numpy(), expected)
    close(tensor.grad.numpy(), image.grad)
    for w, v in zip(ours.weights, theirs.weights):
        close(w.grad.numpy(), v.value.grad)
