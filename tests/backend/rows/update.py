"""The optimizer steps against their reference, where they could break."""

import numpy as np
import pytest

from dlgpu.backend.reference import update
from tests.backend.column import agree, on_device, tried
from tests.backend.comparison import FLOATS

EDGES = [0.0, -0.0, 1e-30, -1e-30, 1e4, -1e4, np.inf, -np.inf, np.nan]
SIZES = [0, 1, 31, 32, 33, 1025, 70001]
BETAS = 0.9, 0.999, 1e-7


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

    rate = np.array([0.1])
    yield "sgd_step", some(), gradients(), None, rate, 0.0, 0.0, False
    yield "sgd_step", some(), gradients(), some(), rate, 0.1, 0.9, False
    yield "sgd_step", some(), gradients(), some(), rate, 0.0, 0.9, True
    yield "rmsprop_step", some(), gradients(), positive(), None, None, rate, 0.1, 0.9, 0.0, 1e-3
    yield "rmsprop_step", some(), gradients(), positive() + 9, some() / 9, some(), rate, 0.0, 0.9, 0.5, 1e-3
    yield "adagrad_step", some(), gradients(), positive(), rate, 0.1, 1e-3
    yield "adam_step", some(), gradients(), some(), positive(), None, np.array([0.01, 0.0, 0.0]), 0.0, *BETAS
    yield "adam_step", some(), gradients(), some(), positive(), positive(), np.array([0.01, 41.0, 0.0]), 0.1, *BETAS
    yield "nadam_step", some(), gradients(), some(), positive(), np.array([0.02, 2.0, 0.3, 0.0]), 0.1, 0.9, 0.99, 1e-3
    yield "decay_weights", gradients(), rate, 0.1
    yield "clip_value", gradients(), 0.5


@pytest.mark.parametrize("size", SIZES)
def test_steps_of_sizes_that_are_no_multiple_of_anything(size, rng):
    for name, *args in steps(rng, size):
        agree(name, *args)
    agree("clip_norm", values(rng, size), np.array(1e6), 1.0)


@pytest.mark.parametrize("dtype", ["float64"])
def test_other_dtypes(dtype, rng):
    for name, *args in steps(rng, 33, dtype):
        agree(name, *args)
    agree("clip_norm", values(rng, 33, dtype), np.array(1e6), 1.0)


def test_buffers_that_are_not_contiguous_change_in_place(rng):
    for name, *args in steps(rng, 66):
        agree(name, *(a[::2] if isinstance(a, np.ndarray) and a.size == 66 else a for a in args))
    agree("clip_norm", values(rng, (6, 8)).T[::2], np.array(4.0), 1.0)


def test_a_variance_that_rounds_below_zero_counts_as_zero(rng):
    gradients = np.full(40, 3.1, "f")
    mean, square = gradients.copy(), gradients**2
    square -= 1e-5
    agree("rmsprop_step", np.ones(40, "f"), gradients, square, mean, None, np.array([0.01]), 0.0, 0.9, 0.0, 1e-2)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [*SIZES, 300001])
def test_the_norm_is_summed_in_double_precision_and_always_alike(size, dtype, rng):
    x = values(rng, size, dtype, edges=False)
    if dtype != "float16":
        x *= 1e30  # the squares do not fit into float32
    x[:3] = 1e-7
    tried("square_norm", x)
    found, again = (on_device(update.square_norm, x) for _ in range(2))
    assert found.dtype == np.float64
    assert found.shape == ()
    np.testing.assert_allclose(found, update.square_norm.reference(x.astype("d")), rtol=1e-13)
    assert found == again


def test_the_norm_of_what_is_not_contiguous_or_not_finite(rng):
    x = values(rng, (35, 66), edges=False)
    wanted = update.square_norm.reference(x[::2, ::2])
    np.testing.assert_allclose(on_device(update.square_norm, x[::2, ::2]), wanted, rtol=1e-13)
    x[34, 65] = np.inf
    assert on_device(update.square_norm, x) == np.inf
    x[0, 0] = np.nan
    assert np.isnan(on_device(update.square_norm, x))
    tried("square_norm", x[::2, ::2])


@pytest.mark.parametrize("square", [0.0, 0.25, 1.0, 1.0001, 4.0, 1e300, np.inf, np.nan])
@pytest.mark.parametrize("limit", [1.0, 0.3])
def test_clipping_by_norms_at_the_edges(square, limit, rng):
    agree("clip_norm", values(rng, 300, edges=False), np.array(square), limit)


def test_a_norm_may_be_a_number():
    x = np.full(5, 2, "f")
    on_device(update.clip_norm, x, np.float64(16.0), 1.0)
    np.testing.assert_array_equal(x, np.full(5, 0.5, "f"))


# -- steps in a row: the device counts, and reads the learning rate where it was written

COUNTING = [("adam_step", 3, [np.nan, 0.0, 0.0]), ("nadam_step", 2, [np.nan, 0.0, 1.0, 0.0])]


@pytest.mark.parametrize(("name", "slots", "scalars"), COUNTING)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [0, 1, 33, 1025, 70001])
def test_steps_in_a_row_count_on_the_device(name, slots, scalars, dtype, size, rng):
    kernel, first = update.__dict__[name], values(rng, size, dtype, edges=False)
    found = [first, *(np.zeros_like(first) for _ in range(slots)), np.array(scalars)]
    wanted = [x.astype(np.float64) for x in found]
    for step in range(1, 7):
        gradients = values(rng, size, dtype, edges=False)
        for buffers in found, wanted:
            buffers[-1][0] = 0.1 if step < 4 else 0.03
        on_device(kernel, found[0], gradients, *found[1:], 0.05, 0.9, 0.99, 1e-5)
        kernel.reference(wanted[0], gradients.astype(np.float64), *wanted[1:], 0.05, 0.9, 0.99, 1e-5)
        assert found[-1][1] == step
    for a, b in zip(found, wanted):
        precision = 50 * float(np.finfo(a.dtype).eps)
        np.testing.assert_allclose(a, b, rtol=precision, atol=precision)


# -- a norm for each parameter

LENGTHS = [0, 1, 31, 33, 1025, 256 * 33]


@pytest.mark.parametrize("size", SIZES)
def test_one_segment_of_every_size(size, rng):
    gradients = values(rng, size, edges=False)
    gradients[2:5] = 1e-7
    agree("clip_norms", gradients, np.array([[0, size]]), 0.5)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_each_segment_is_clipped_by_its_own_norm_and_the_gaps_stay(dtype, rng):
    starts = np.cumsum([5, *(n + 7 for n in LENGTHS[:-1])])
    segments = np.stack([starts, starts + LENGTHS], axis=1)
    gradients = values(rng, segments.max() + 3, dtype, edges=False)
    gradients[slice(*segments[2])] = 0
    agree("clip_norms", gradients, segments, 3.0)
    gradients[segments[3, 0] + 7], gradients[segments[5, 1] - 1] = np.inf, np.nan
    agree("clip_norms", gradients, segments, 3.0)


def test_segments_may_be_none_or_many_and_their_buffer_not_contiguous(rng):
    agree("clip_norms", np.zeros(0, "f"), np.zeros((0, 2), np.int64), 1.0)
    agree("clip_norms", np.zeros(0, "f"), np.zeros((2, 2), np.int64), 1.0)
    edges = np.arange(71)
    agree("clip_norms", values(rng, 140, edges=False)[::2], np.stack([edges[:-1], edges[1:]], axis=1), 0.5)
