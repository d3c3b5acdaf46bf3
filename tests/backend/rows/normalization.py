"""Normalization against their references, where they could break."""

import numpy as np
import pytest

from dlgpu.backend.reference import normalization as reference
from tests.backend.column import agree
from tests.backend.rows import normal

SHAPES = [
    (0, 3),
    (1, 1),
    (2, 0),
    (5, 2),
    (1, 31),
    (3, 32),
    (33, 33),
    (131, 10),
    (3, 1025),
    (2500, 33),
    (5000, 3),
    (70000, 3),
]


def wide(x):
    """x in the dtype of what goes beside it."""
    return x.astype(np.promote_types(x.dtype, "f"))


def batch(x, grad, scale, offset, mask=None, epsilon=1e-3, **options):
    agree("batch_normalization", x, scale, offset, epsilon, mask, **options)
    _, mean, variance = reference.batch_normalization.reference(wide(x), scale, offset, epsilon, mask)
    agree("batch_normalization_backward", grad, x, mean, variance, scale, epsilon, mask, **options)
    agree("normalize", x, mean, variance, scale, offset, epsilon, **options)


def layer(x, grad, scale, offset, epsilon=1e-3, **options):
    agree("layer_normalization", x, scale, offset, epsilon, **options)
    _, mean, variance = reference.layer_normalization.reference(wide(x), scale, offset, epsilon)
    agree("layer_normalization_backward", grad, x, mean, variance, scale, epsilon, **options)


@pytest.mark.parametrize("shape", SHAPES)
def test_batch_normalization(shape, rng):
    x, grad = normal(rng, *shape), normal(rng, *shape)
    scale, offset = normal(rng, shape[1]), normal(rng, shape[1])
    batch(x, grad, scale, offset, size=shape[0])
    batch(x, grad, None, offset, size=shape[0])
    batch(x, grad, scale, None, rng.uniform(size=shape[0]) < 0.6, size=shape[0])
    batch(x, grad, None, None, np.zeros(shape[0], bool), size=shape[0])


@pytest.mark.parametrize("shape", SHAPES)
def test_layer_normalization(shape, rng):
    x, grad = normal(rng, *shape), normal(rng, *shape)
    scale, offset = normal(rng, shape[1]), normal(rng, shape[1])
    # of two features the gradient is what is left of a difference, epsilon's part in it
    options = {"size": max(shape), "ulps": 16}
    layer(x, grad, scale, offset, **options)
    layer(x, grad, None, offset, **options)
    layer(x, grad, scale, None, **options)


def test_values_far_from_zero_keep_their_variance(rng):
    # squares and their mean agree in all of float32's digits
    x, grad = 3000 + normal(rng, 700, 40), normal(rng, 700, 40)
    ulps = 3000  # a mean of 3000 deviations is rounded to a unit in its own last place
    batch(x, grad, None, None, ulps=ulps)
    batch(x, grad, None, None, rng.uniform(size=700) < 0.6, ulps=ulps)
    layer(x, grad, None, None, ulps=ulps)


@pytest.mark.parametrize("size", [1e15, 1e4, 1e-6])
def test_large_and_tiny_values(size, rng):
    x, grad, scale = size * normal(rng, 40, 35), normal(rng, 40, 35), normal(rng, 35)
    batch(x.astype("f"), grad, scale, scale, size=40)
    layer(x.astype("f"), grad, scale, scale, size=40)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_other_dtypes(dtype, rng):
    beside = dtype if dtype == "float64" else "float32"
    x, grad = (normal(rng, 50, 33, dtype=dtype) for _ in range(2))
    scale, offset = (normal(rng, 33, dtype=beside) for _ in range(2))
    batch(x, grad, scale, offset, rng.uniform(size=50) < 0.6, size=50)
    layer(x, grad, scale, offset, size=50)


def test_nan_stays_where_it_is(rng):
    x = normal(rng, 40, 35)
    x[7, 3] = np.nan
    batch(x, normal(rng, 40, 35), None, None, size=40)
    layer(x, normal(rng, 40, 35), None, None, size=40)


def test_inputs_that_are_not_contiguous(rng):
    x, grad = normal(rng, 35, 80)[:, ::2].T, normal(rng, 40, 70)[:, ::2]
    scale, offset, mask = normal(rng, 70)[::2], normal(rng, 70)[::2], rng.uniform(size=80)[::2] < 0.5
    batch(x, grad, scale, offset, mask, size=40)
    layer(x, grad, scale, offset, size=40)


def test_more_rows_than_a_grid_has_blocks(rng):
    x = normal(rng, 140000, 2)
    batch(x, x[::-1], None, None, size=len(x))
    layer(x, x[::-1], None, None, size=len(x))
