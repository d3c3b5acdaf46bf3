"""Activations against their reference, where they could break."""

import numpy as np
import pytest

from dlgpu.backend.reference.activation import FROM_INPUT, NAMES, bias_activation
from tests.backend.column import agree

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


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (3, 1025), (2, 3, 31), (2, 32), (70000, 1), (7,)])
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
