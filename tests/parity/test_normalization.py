"""Normalization gives PyTorch's outputs and gradients, and Keras's moving statistics."""

import keras
import numpy as np
import pytest
import torch

from dlgpu import Tensor, ops
from dlgpu.layers import BatchNormalization, LayerNormalization


def close(ours, theirs):
    theirs = theirs.detach().numpy()
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())


def check(ours, theirs, arrays, rng):
    """Outputs, and gradients by all inputs, of two functions of the same arrays."""
    tensors = [Tensor(a, requires_grad=True) for a in arrays]
    torches = [torch.tensor(a, requires_grad=True) for a in arrays]
    output, expected = ours(*tensors), theirs(*torches)
    factor = rng.normal(size=output.shape).astype(np.float32)
    output.backward(Tensor(factor))
    expected.backward(torch.tensor(factor))
    close(output, expected)
    for tensor, like in zip(tensors, torches):
        close(tensor.grad, like.grad)


@pytest.mark.parametrize("shape", [(7, 3), (4, 5, 3), (2, 4, 5, 3)])
def test_batch_normalization_equals_pytorch(shape, rng):
    x = (rng.normal(size=shape) * 3 + 2).astype(np.float32)
    scale, offset = rng.random((2, 3)).astype(np.float32) + 0.5

    def theirs(x, scale, offset):
        flat = x.reshape(-1, 3)
        return torch.nn.functional.batch_norm(flat, None, None, scale, offset, True, eps=1e-3).reshape(shape)

    check(lambda x, s, o: ops.batch_normalization(x, s, o)[0], theirs, (x, scale, offset), rng)


@pytest.mark.parametrize("axes", [1, 2])
def test_layer_normalization_equals_pytorch(axes, rng):
    x = (rng.normal(size=(4, 5, 6)) * 3 + 2).astype(np.float32)
    shape = x.shape[-axes:]
    scale, offset = (rng.random((2, *shape)) + 0.5).astype(np.float32)
    check(
        lambda x, s, o: ops.layer_normalization(x, s, o, axis=tuple(range(-axes, 0))),
        lambda x, s, o: torch.nn.functional.layer_norm(x, shape, s, o, eps=1e-3),
        (x, scale, offset),
        rng,
    )


@pytest.mark.parametrize("masked", [False, True])
def test_moving_statistics_equal_keras(masked, rng):
    ours, theirs = BatchNormalization(momentum=0.9), keras.layers.BatchNormalization(momentum=0.9)
    mask = rng.random((6, 4)) < 0.6 if masked else None
    for _ in range(3):
        x = (rng.normal(size=(6, 4, 3)) * 2 + 1).astype(np.float32)
        a = ours(x, training=True, mask=None if mask is None else Tensor(mask)).numpy()
        b = theirs(x, training=True, mask=None if mask is None else torch.tensor(mask)).detach().numpy()
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours(x).numpy(), theirs(x, training=False).detach().numpy(), rtol=1e-5, atol=1e-5)


def test_weights_have_keras_names_and_order(rng):
    x = rng.normal(size=(6, 4)).astype(np.float32)
    for ours, theirs in (
        (BatchNormalization(), keras.layers.BatchNormalization()),
        (LayerNormalization(), keras.layers.LayerNormalization()),
    ):
        ours(x), theirs(x)
        assert [w.name for w in ours.weights] == [w.name for w in theirs.weights]
        assert [w.shape for w in ours.weights] == [tuple(w.shape) for w in theirs.weights]
