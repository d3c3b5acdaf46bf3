"""The compiled activations against their reference, where they could break."""

import numpy as np
import pytest

from dlgpu.backend.cpu import activation, threads  # noqa: F401
from dlgpu.backend.reference.activation import FROM_INPUT, NAMES, bias_activation, bias_activation_backward
from tests.backend.cpu.agree import agree

EDGES = [0.0, -0.0, 1e-30, -1e-30, 2.9999, 3.0, -3.0, 6.0, 20.0, -20.0, 88.0, -88.0, 1e4, -1e4, np.inf, -np.inf, np.nan]


def values(rng, *shape, dtype=np.float32):
    """Normally distributed values; the first ones lie at the edges."""
    x = (rng.standard_normal(shape) * 3).astype(dtype)
    x.flat[: min(x.size, len(EDGES))] = np.array(EDGES, dtype)[: x.size]
    return x


@pytest.mark.parametrize("name", NAMES)
def test_each_activation_at_the_edges_of_the_range(name, rng):
    x = values(rng, 5, 33)
    agree("bias_activation", x, None, name)
    ulps = 100 if name == "exponential" else 8  # exp multiplies the rounding of x + bias by up to 88
    agree("bias_activation", x, rng.standard_normal(33).astype("f"), name, ulps=ulps)
    with np.errstate(over="ignore"):
        saved = x if name in FROM_INPUT else bias_activation.reference(x, None, name)[0]
    agree("activation_backward", rng.standard_normal(x.shape).astype("f"), saved, name)


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (3, 1025), (2, 3, 31), (70000, 1), (7,)])
def test_shapes_that_are_no_multiple_of_anything(shape, rng):
    x = rng.standard_normal(shape).astype("f")
    agree("bias_activation", x, rng.standard_normal(shape[-1]).astype("f"), "relu")
    agree("activation_backward", x, x, "relu")


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_dtypes(dtype, rng):
    x = values(rng, 4, 33, dtype=dtype)
    agree("bias_activation", x, rng.standard_normal(33).astype(dtype), "silu")
    agree("activation_backward", np.ones_like(x), x, "silu")


def test_inputs_that_are_not_contiguous(rng):
    x = values(rng, 6, 34)[::2, ::2]
    agree("bias_activation", x, rng.standard_normal(34).astype("f")[::2], "relu")
    agree("activation_backward", x.T, x.T, "relu")


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
