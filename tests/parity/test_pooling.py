"""Pooling beside PyTorch, and for padding="same" and masks, beside Keras: outputs and gradients to 1e-5."""

import keras
import numpy as np
import pytest
import torch

from dlgpu import layers
from dlgpu.ops.pooling import average_pool, max_pool
from dlgpu.tensor import Tensor

random = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("window", "strides", "padding"), [((2, 2), (2, 2), (0, 0)), ((3, 2), (2, 1), (1, 1)), ((2, 3), (3, 4), (0, 1))]
)
@pytest.mark.parametrize("integers", [False, True])  # integers have ties
def test_max_pool_is_pytorchs(window, strides, padding, integers):
    x = random.normal(size=(2, 9, 11, 3)).astype(np.float32)
    x = np.round(x) if integers else x
    tensor, image = Tensor(x, requires_grad=True), torch.tensor(x.transpose(0, 3, 1, 2)).requires_grad_()
    out = max_pool(tensor, window, strides, tuple((p, p) for p in padding))
    expected = torch.nn.functional.max_pool2d(image, window, strides, padding)
    (out * out).sum().backward()
    (expected * expected).sum().backward()
    np.testing.assert_array_equal(out.numpy(), expected.detach().permute(0, 2, 3, 1))
    np.testing.assert_allclose(tensor.grad.numpy(), image.grad.permute(0, 2, 3, 1), rtol=1e-5)


def test_average_pool_is_pytorchs():
    x = random.normal(size=(2, 9, 11, 3)).astype(np.float32)
    tensor, image = Tensor(x, requires_grad=True), torch.tensor(x.transpose(0, 3, 1, 2)).requires_grad_()
    out = average_pool(tensor, (3, 2), (2, 1), ((1, 1), (1, 1)))
    expected = torch.nn.functional.avg_pool2d(image, (3, 2), (2, 1), 1, count_include_pad=False)
    (out * out).sum().backward()
    (expected * expected).sum().backward()
    np.testing.assert_allclose(out.numpy(), expected.detach().permute(0, 2, 3, 1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tensor.grad.numpy(), image.grad.permute(0, 2, 3, 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "shape", "arguments"),
    [
        ("MaxPooling2D", (7, 10, 3), {"pool_size": (2, 3), "padding": "same"}),
        ("MaxPooling2D", (7, 10, 3), {"pool_size": 3, "strides": (2, 1)}),
        ("MaxPooling1D", (11, 3), {"pool_size": 4, "strides": 3, "padding": "same"}),
        # as much padding before as after: otherwise Keras on PyTorch, and it alone, counts repeated edges into the mean
        ("AveragePooling2D", (7, 11, 3), {"pool_size": 3, "strides": 2, "padding": "same"}),
        ("AveragePooling1D", (11, 3), {"pool_size": 2}),
        ("GlobalMaxPooling1D", (11, 3), {}),
        ("GlobalMaxPooling2D", (7, 10, 3), {"keepdims": True}),
        ("GlobalAveragePooling1D", (11, 3), {}),
        ("GlobalAveragePooling2D", (7, 10, 3), {"keepdims": True}),
    ],
)
def test_layers_are_keras_layers(kind, shape, arguments):
    x = random.normal(size=(2, *shape)).astype(np.float32)
    tensor, image = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    out, expected = getattr(layers, kind)(**arguments)(tensor), getattr(keras.layers, kind)(**arguments)(image)
    (out * out).sum().backward()
    (expected * expected).sum().backward()
    np.testing.assert_allclose(out.numpy(), expected.detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tensor.grad.numpy(), image.grad, rtol=1e-5, atol=1e-6)


def test_masked_global_average_is_kerass():
    x = random.normal(size=(2, 5, 3)).astype(np.float32)
    mask = np.array([[1, 1, 0, 1, 0], [0, 1, 1, 1, 1]], bool)
    tensor, steps = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    out = layers.GlobalAveragePooling1D()(tensor, mask=Tensor(mask))
    expected = keras.layers.GlobalAveragePooling1D()(steps, mask=torch.tensor(mask))
    (out * out).sum().backward()
    (expected * expected).sum().backward()
    np.testing.assert_allclose(out.numpy(), expected.detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tensor.grad.numpy(), steps.grad, rtol=1e-5, atol=1e-6)
