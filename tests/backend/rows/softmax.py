"""The softmax and cross-entropy kernels against their references, where they could break."""

import numpy as np
import pytest

from dlgpu.backend.reference import softmax as reference
from tests.backend.column import agree
from tests.backend.rows import normal

SHAPES = [(0, 3), (1, 1), (5, 2), (1, 31), (3, 32), (2, 33), (131, 10), (2, 1024), (3, 1025), (70000, 1)]
HOSTILE = [1e4, -1e4, 1e-30, np.inf, -np.inf, np.nan, 3e38, -3e38]


def positive(rng, *shape, dtype="f"):
    """Probabilities well inside (0, 1)."""
    return rng.uniform(0.01, 0.99, shape).astype(dtype)


def along(x, grad, axis, **options):
    agree("softmax", x, axis, **options)
    agree("log_softmax", x, axis, **options)
    y, logarithms = reference.softmax.reference(x, axis), reference.log_softmax.reference(x, axis)
    agree("softmax_backward", grad, y.astype(x.dtype), axis, **options)
    agree("log_softmax_backward", grad, logarithms.astype(x.dtype), axis, **options)


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_of_every_length(shape, rng):
    along(3 * normal(rng, *shape), normal(rng, *shape), -1, size=shape[1])


@pytest.mark.parametrize("axis", [0, 1, 2, -2, (0, 1), (1, 2), (0, 2), (2, 0, 1), (), None])
@pytest.mark.parametrize("shape", [(3, 5, 2), (2, 33, 40)])
def test_any_axis(axis, shape, rng):
    x, grad = normal(rng, *shape), normal(rng, *shape)
    along(x, grad, axis, size=x.size)
    along(x[::-1, ::2].T, grad[::-1, ::2].T, axis, size=x.size)


def test_a_single_value(rng):
    along(normal(rng), normal(rng), None)


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_dtypes(dtype, rng):
    x, grad = normal(rng, 3, 45, dtype=dtype), normal(rng, 3, 45, dtype=dtype)
    along(x, grad, 1)
    labels, dense, p = rng.integers(0, 45, 3), positive(rng, 3, 45, dtype=dtype), positive(rng, 3, 45, dtype=dtype)
    for name in ("softmax_cross_entropy", "categorical_cross_entropy"):
        both_ways(name, p, labels)
        both_ways(name, p, dense)
    both_ways("sigmoid_cross_entropy", x, dense)
    both_ways("binary_cross_entropy", p, dense)


@pytest.mark.parametrize("columns", [3, 40, 1025])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("value", HOSTILE)
def test_softmax_of_hostile_values(value, place, columns, rng):
    x = normal(rng, 3, columns)
    x[1, place] = value
    x[2] = value  # nothing else in the row
    agree("softmax", x, 1, size=columns)
    agree("log_softmax", x, 1, size=columns)
    agree("softmax_cross_entropy", x, np.array([0, place, columns - 1]), size=columns)


def test_softmax_of_rising_and_falling_values():
    x = np.stack([np.linspace(-1e4, 1e4, 1025), np.linspace(1e4, -1e4, 1025)]).astype("f")
    agree("softmax", x, 1, size=1025)
    agree("log_softmax", x, 1, size=1025)


def test_more_rows_than_a_grid_has_blocks(rng):
    x = normal(rng, 66000, 1)
    agree("softmax", np.repeat(x, 2, axis=1), 1)
    agree("sigmoid_cross_entropy", x, np.ones_like(x))
    x = normal(rng, 2, 66000)
    agree("softmax", x, 1, size=66000)


def both_ways(name, x, targets, ulps=8, size=1):
    agree(name, x, targets, ulps=ulps, size=size)
    _, saved = getattr(reference, name).reference(x.astype("d"), targets)
    if isinstance(saved, tuple):  # sums are not rounded
        saved = saved[0].astype(np.promote_types(x.dtype, "f")), saved[1].astype(x.dtype)
    else:
        saved = saved.astype(x.dtype)
    grad = np.linspace(-2, 3, len(x)).astype(x.dtype)
    agree(f"{name}_backward", grad, saved, targets, ulps=ulps, size=size)


@pytest.mark.parametrize("shape", SHAPES)
def test_softmax_cross_entropy(shape, rng):
    logits, size = 3 * normal(rng, *shape), shape[1]
    both_ways("softmax_cross_entropy", logits, rng.integers(0, shape[1], shape[0]), size=size)
    both_ways("softmax_cross_entropy", logits, rng.integers(0, shape[1], shape[0]).astype("u1"), size=size)
    both_ways("softmax_cross_entropy", logits, positive(rng, *shape), size=size)


@pytest.mark.parametrize("shape", SHAPES)
def test_categorical_cross_entropy(shape, rng):
    p, size = positive(rng, *shape), shape[1]
    if size == 1:
        p = p.astype("d")  # the quotient is 1, and float32 rounds 1 - EPSILON
    both_ways("categorical_cross_entropy", p, rng.integers(0, shape[1], shape[0]), size=size)
    both_ways("categorical_cross_entropy", p, positive(rng, *shape, dtype=p.dtype), size=size)


@pytest.mark.parametrize("shape", [*SHAPES, (300, 1)])
def test_losses_of_yes_and_no(shape, rng):
    targets, size = positive(rng, *shape), shape[1]
    both_ways("sigmoid_cross_entropy", 3 * normal(rng, *shape), targets, size=size)
    both_ways("binary_cross_entropy", positive(rng, *shape), targets, ulps=32, size=size)


@pytest.mark.parametrize("name", ["softmax_cross_entropy", "categorical_cross_entropy"])
@pytest.mark.parametrize("label", [-1, 4, 2**40, -(2**40)])
def test_a_label_that_is_no_class_makes_its_row_nan(name, label, rng):
    both_ways(name, positive(rng, 3, 4), np.array([1, label, 3]))


ALL = ["softmax_cross_entropy", "categorical_cross_entropy", "sigmoid_cross_entropy", "binary_cross_entropy"]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_gradients_of_all_sizes(name, scale, rng):
    x, targets = positive(rng, 9, 4), positive(rng, 9, 4)
    saved = getattr(reference, name).reference(x, targets)[1]
    grad = (scale * rng.standard_normal(9)).astype("f")
    agree(f"{name}_backward", grad, saved, targets, ulps=32)
    agree(f"{name}_backward", np.where(grad > 0, grad, np.nan), saved, targets, ulps=32)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_softmax_gradients_of_all_sizes(scale, rng):
    along(normal(rng, 9, 40), scale * normal(rng, 9, 40), 1, size=40)
    along(normal(rng, 9, 40), np.where(rng.random((9, 40)) < 0.01, np.nan, normal(rng, 9, 40)), 1, size=40)


def test_probabilities_at_the_edges(rng):
    edges = np.array([0, 1e-9, 1e-7, 2e-7, 0.5, 1 - 1e-7, 1, 1.5, -0.5, 1e5, -1e5, np.nan])
    p, targets = np.repeat(edges, 3)[:, None], np.tile([0, 1, 0.3], len(edges))[:, None]
    both_ways("binary_cross_entropy", p, targets)
    both_ways("categorical_cross_entropy", np.hstack([p, 1 - p]), np.hstack([targets, 1 - targets]))
    both_ways("categorical_cross_entropy", np.hstack([p, 1 - p]), np.arange(len(p)) % 2)


def test_logits_at_the_edges():
    z = np.array([0, 1e4, -1e4, 1e-30, 88, -88, np.nan], "f")[:, None]
    for target in (0, 1, 0.5):
        both_ways("sigmoid_cross_entropy", z, np.full_like(z, target))


def test_inputs_that_are_not_contiguous(rng):
    x, targets = normal(rng, 34, 6)[::2].T, positive(rng, 12, 17)[::2]
    both_ways("softmax_cross_entropy", x, np.arange(12)[::2])
    both_ways("softmax_cross_entropy", x, targets)
    both_ways("sigmoid_cross_entropy", x, targets)
    both_ways("binary_cross_entropy", positive(rng, 34, 6)[::2].T, targets, ulps=32)
    both_ways("categorical_cross_entropy", positive(rng, 34, 6)[::2].T, targets)
