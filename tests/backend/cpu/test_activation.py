"""The compiled activations, with the gradients of biases and with the product before them."""

import numpy as np
import pytest

from dlgpu.backend.cpu import threads
from dlgpu.backend.reference.activation import bias_activation, bias_activation_backward
from tests.backend.column import agree
from tests.backend.rows.activation import *


@pytest.mark.parametrize("name", ["relu", "silu"])
@pytest.mark.parametrize("rows", [0, 1, 3, 257])
def test_what_may_be_overwritten_is(name, rows, rng):
    x, bias = rng.standard_normal((rows, 5)).astype("f"), rng.standard_normal(5).astype("f")
    wanted = bias_activation.reference(x.astype("d"), bias.astype("d"), name)
    output, saved = bias_activation(x, bias, name, overwrite=True)
    assert saved is x
    np.testing.assert_allclose(output, wanted[0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(saved, wanted[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["linear", "tanh", "gelu"])
@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (255, 2), (257, 33), (70001, 3), (2, 3, 300, 5)])
def test_bias_gradients(name, shape, rng):
    x = rng.standard_normal(shape).astype("f")
    agree("bias_activation_backward", rng.standard_normal(shape).astype("f"), x, name, size=x.size // shape[-1])


@pytest.mark.parametrize("sizes", [(0, 3, 2), (1, 1, 1), (32, 20, 64), (33, 65, 1), (300, 7, 31)])
@pytest.mark.parametrize("name", ["linear", "sigmoid", "silu"])
def test_dense_both_ways(sizes, name, rng):
    rows, features, units = sizes
    x, kernel, bias = (rng.standard_normal(s).astype("f") for s in ((rows, features), (features, units), (units,)))
    agree("dense", x, kernel, bias, name, size=features)
    agree("dense", x[:, ::-1], kernel, None, name, size=features)
    grad = rng.standard_normal((rows, units)).astype("f")
    for needed in [(True, True, True), (False, True, False)]:
        agree("dense_backward", grad, x, kernel, grad / 2, name, needed, size=rows + units)


def test_threads_do_not_change_bits(rng, monkeypatch):
    x, saved, bias = rng.standard_normal((5001, 67)).astype("f"), rng.random((5001, 67)).astype("f"), np.ones(67, "f")
    found = []
    for count in (1, 2, 3):
        monkeypatch.setattr(threads, "THREADS", count)
        found.append((*bias_activation(x, bias, "tanh"), *bias_activation_backward(x, saved, "tanh")))
    for others in found[1:]:
        for a, b in zip(found[0], others):
            np.testing.assert_array_equal(a, b)
