"""The optimizer steps against their reference, where they could break."""

import numpy as np
import pytest

import dlgpu
from dlgpu.backend.reference import update
from tests.backend.cuda.hostile import agree, covers, on_device

EDGES = [0.0, -0.0, 1e-30, -1e-30, 1e4, -1e4, np.inf, -np.inf, np.nan]
SIZES = [0, 1, 31, 32, 33, 1025, 70001]
RATES = 0.01, 0.9, 0.999, 1e-7


def values(rng, size, dtype="f", edges=True):
    """Normally distributed values; the last ones lie at the edges."""
    x = rng.standard_normal(size).astype(dtype)
    if edges and x.size > len(EDGES):
        x.flat[-len(EDGES) :] = np.array(EDGES, dtype)
    return x


def steps(rng, size, dtype="f"):
    """Each step with each of its options: a name, buffers and numbers."""

    def some():
        return values(rng, size, dtype, edges=False)

    def gradients():
        return values(rng, size, dtype)

    def positive():
        return some() ** 2

    yield "sgd_step", some(), gradients(), None, 0.1, 0.0, False
    yield "sgd_step", some(), gradients(), some(), 0.1, 0.9, False
    yield "sgd_step", some(), gradients(), some(), 0.1, 0.9, True
    yield "rmsprop_step", some(), gradients(), positive(), None, None, 0.01, 0.9, 0.0, 1e-3
    yield "rmsprop_step", some(), gradients(), positive() + 9, some() / 9, some(), 0.01, 0.9, 0.5, 1e-3
    yield "adagrad_step", some(), gradients(), positive(), 0.01, 1e-3
    yield "adam_step", some(), gradients(), some(), positive(), None, *RATES
    yield "adam_step", some(), gradients(), some(), positive(), positive(), *RATES
    yield "nadam_step", some(), gradients(), some(), positive(), 0.02, 0.03, 1.5, 0.9, 0.99, 1e-3
    yield "decay_weights", gradients(), 0.99
    yield "clip_value", gradients(), 0.5


@covers(
    "sgd_step", "rmsprop_step", "adagrad_step", "adam_step", "nadam_step", "decay_weights", "clip_value", "clip_norm"
)
@pytest.mark.parametrize("size", SIZES)
def test_steps_of_sizes_that_are_no_multiple_of_anything(size, rng):
    for name, *args in steps(rng, size):
        agree(name, *args)
    agree("clip_norm", values(rng, size), np.array(1e6), 1.0)


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_dtypes(dtype, rng):
    for name, *args in steps(rng, 33, dtype):
        agree(name, *args)
    agree("clip_norm", values(rng, 33, dtype), np.array(1e6), 1.0)


def test_buffers_that_are_not_contiguous_change_in_place(rng):
    for name, *args in steps(rng, 66):
        agree(name, *(a[::2] if isinstance(a, np.ndarray) else a for a in args))
    agree("clip_norm", values(rng, (6, 8)).T[::2], np.array(4.0), 1.0)


def test_a_variance_that_rounds_below_zero_counts_as_zero(rng):
    gradients = np.full(40, 3.1, "f")
    mean, square = gradients.copy(), gradients**2
    square -= 1e-5
    agree("rmsprop_step", np.ones(40, "f"), gradients, square, mean, None, 0.01, 0.9, 0.0, 1e-2)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("size", [*SIZES, 300001])
@covers("square_norm")
def test_the_norm_is_summed_in_double_precision_and_always_alike(size, dtype, rng):
    x = values(rng, size, dtype, edges=False)
    if dtype != "float16":
        x *= 1e30  # the squares do not fit into float32
    found, again = on_device(update.square_norm, x), on_device(update.square_norm, x)
    assert found.dtype == np.float64
    assert found.shape == ()
    np.testing.assert_allclose(found, update.square_norm.reference(x), rtol=1e-13)
    assert found == again


def test_the_norm_of_what_is_not_contiguous_or_not_finite(rng):
    x = values(rng, (35, 66), edges=False)
    with dlgpu.device("emulator"):
        np.testing.assert_allclose(
            update.square_norm(x[::2, ::2]), update.square_norm.reference(x[::2, ::2]), rtol=1e-13
        )
        x[34, 65] = np.inf
        assert update.square_norm(x) == np.inf
        x[0, 0] = np.nan
        assert np.isnan(update.square_norm(x))


@pytest.mark.parametrize("square", [0.0, 0.25, 1.0, 1.0001, 4.0, 1e300, np.inf, np.nan])
@pytest.mark.parametrize("limit", [1.0, 0.3])
def test_clipping_by_norms_at_the_edges(square, limit, rng):
    agree("clip_norm", values(rng, 300, edges=False), np.array(square), limit)


def test_a_norm_may_be_a_number():
    x = np.full(5, 2, "f")
    with dlgpu.device("emulator"):
        update.clip_norm(x, np.float64(16.0), 1.0)
    np.testing.assert_array_equal(x, np.full(5, 0.5, "f"))
