"""Every kind of layer, inside of a small model: outputs, and gradients by the inputs and all weights, are Keras's."""

import keras
import numpy as np
import pytest
import torch

import dlgpu
from dlgpu import Tensor
from tests.parity.layer_cases import CASES, NOISE, build, data


def close(ours, theirs):
    """To 1e-5 of the largest value."""
    theirs = theirs.detach().numpy()
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5, atol=1e-5 * abs(theirs).max(initial=1e-3))


@pytest.mark.parametrize("name", [*CASES, *NOISE])
def test_outputs_and_gradients_are_kerass(name, rng):
    ours, theirs = build(dlgpu, name), build(keras, name)
    weights = [rng.uniform(0.1, 0.6, w.shape) * rng.choice([-1, 1], w.shape) for w in theirs.get_weights()]
    if name == "BatchNormalization":
        weights[-3] = abs(weights[-3])  # the moving variance
    ours.set_weights(weights)
    theirs.set_weights(weights)
    x, training = data(name, rng), name in CASES
    inputs, like = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    output, expected = ours(inputs, training=training), theirs(like, training=training)
    factor = rng.normal(size=output.shape).astype(np.float32)
    output.backward(Tensor(factor))
    expected.backward(torch.tensor(factor))
    close(output, expected)
    if name != "Embedding":
        close(inputs.grad, like.grad)
    assert [w.name for w in ours.trainable_weights] == [w.name for w in theirs.trainable_weights]
    for mine, other in zip(ours.trainable_weights, theirs.trainable_weights, strict=True):
        close(mine.grad, other.value.grad)
