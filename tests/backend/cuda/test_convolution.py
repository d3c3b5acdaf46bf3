"""The convolution kernels, also on a grid that is too small, and of 16 bits."""

import ml_dtypes
import numpy as np
import pytest

import dlgpu
from dlgpu import layers
from dlgpu.backend.cuda import geometry
from dlgpu.backend.reference.activation import FROM_INPUT, NAMES
from dlgpu.backend.reference.convolution import (
    POOLING,
    convolution,
    convolution_kernel_gradient,
    convolution_pooled,
    convolution_pooled_backward,
)
from dlgpu.backend.reference.pooling import max_pool, max_pool_gather
from tests.backend.column import agree, on_device, tried
from tests.backend.comparison import FLOATS
from tests.backend.rows.convolution import *
from tests.backend.rows.convolution import GEOMETRIES, NONE, check, test_other_dtypes

PLAIN = (1, 1), NONE, (1, 1), 1


@pytest.mark.parametrize("groups", [1, 3])
def test_bfloat16(groups, rng):
    test_other_dtypes("bfloat16", groups, rng)


@pytest.mark.parametrize("groups", [1, 2])
def test_more_pixels_and_more_elements_than_a_grid_has(groups, rng, monkeypatch):
    check(rng, (35000, 2, 1, 2), (1, 1), 2, groups=groups)
    monkeypatch.setattr(geometry, "MAX_BLOCKS", 2)
    check(rng, (1, 5, 5, 24), (3, 3), 24, groups=groups)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("width", [1, 3, 41])
def test_weights_summed_over_slices(groups, width, rng):
    check(rng, (5, 2100 // width // 5, width, 4), (1, 1), 4, strides=(1, 1), groups=groups, name="relu")


@pytest.mark.parametrize("groups", [1, 3])
def test_values_that_are_no_numbers_reach_what_they_touch_and_no_more(groups, rng):
    x = rng.standard_normal((2, 6, 7, 3)).astype("f")
    kernel = rng.standard_normal((3, 3, 3 // groups, 6)).astype("f")
    grad = rng.standard_normal((2, 6, 7, 6)).astype("f")
    x[0, 1, 2, 0], x[1, 5, 6, 2] = np.nan, np.inf
    grad[1, 2, 3, 4], grad[0, 4, 1, 0] = np.nan, -np.inf
    placed = (1, 1), ((1, 1), (1, 1)), (1, 1), groups
    agree("convolution", x, kernel, None, "relu", *placed, size=27)
    agree("convolution_data_gradient", grad, kernel, (6, 7), *placed, size=54)
    every = (True, True, True)
    agree("convolution_backward", grad, np.ones_like(x), kernel, grad, "linear", every, *placed, size=84)
    agree("convolution_kernel_gradient", np.nan_to_num(x, posinf=1), grad, (3, 3), *placed, size=84)


def test_the_same_weights_gradient_every_time(rng):
    x, grad = rng.standard_normal((2, 4, 20, 20, 3)).astype("f")
    with dlgpu.device("emulator"):
        once, again = (
            convolution_kernel_gradient(x, grad, (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 1) for _ in range(2)
        )
    assert once.tobytes() == again.tobytes()


# -- pooled in the same pass


def in_two(x, kernel, bias, name, *geometry):
    """What `convolution_pooled` returns, of the largest values alone, by two kernels."""
    output, saved = convolution(x, kernel, bias, name, *geometry)
    values, indices = max_pool(output, *POOLING)
    return values, max_pool_gather(saved, indices, *POOLING) if name in FROM_INPUT else values, indices


def pooled(x, kernel, bias, name="relu", geometry=PLAIN):
    """Assert that one pass gives the bits of two; returns what it gives."""
    args = x, kernel, bias, name, *geometry
    tried("convolution_pooled", *args)
    found, wanted = on_device(convolution_pooled, *args), on_device(in_two, *args)
    for f, w in zip(found, wanted):
        assert (f.shape, f.dtype) == (w.shape, w.dtype)
        assert f.tobytes() == w.tobytes()
    return found


def operands(rng, image, window=(3, 3), filters=5, groups=1, dtype="f", scale=1.0):
    """An image, a kernel and a bias."""
    shapes = image, (*window, image[3] // groups, filters), (filters,)
    return [(scale**n * rng.standard_normal(s)).astype(dtype) for n, s in zip((1, 0, 1), shapes)]


@pytest.mark.parametrize("name", NAMES)
def test_pooled_in_one_pass_gives_the_bits_of_two(name, rng):
    x, kernel, bias = operands(rng, (2, 9, 8, 3))
    pooled(x, kernel, bias, name)
    pooled(x, kernel, None, name)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["linear", "relu", "silu"])
def test_pooled_of_all_dtypes(dtype, name, rng):
    """Among large values of 16 bits there are ties of what differs before it is rounded."""
    x, kernel, bias = operands(rng, (2, 10, 12, 4), dtype=dtype)
    pooled(x, kernel, bias + bias.dtype.type(1000), name)


@pytest.mark.parametrize("geometry", [g for g in GEOMETRIES if g != {"strides": (4, 6), "dilation": (6, 4)}], ids=str)
@pytest.mark.parametrize("groups", [1, 2])
def test_pooled_with_strides_padding_dilation_and_groups(geometry, groups, rng):
    placed = {"strides": (1, 1), "padding": NONE, "dilation": (1, 1)} | geometry
    pooled(*operands(rng, (2, 15, 19, 6), (3, 2), 34, groups), geometry=(*placed.values(), groups))


@pytest.mark.parametrize("image", [(2, 2), (2, 3), (3, 2), (3, 3), (7, 2), (4, 9), (16, 33)], ids=str)
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_pooled_windows_lie_side_by_side_and_what_is_left_over_is_in_none(image, batch, rng):
    values, _, _ = pooled(*operands(rng, (batch, *image, 3), (1, 1)))
    assert values.shape == (batch, image[0] // 2, image[1] // 2, 5)


@pytest.mark.parametrize("filters", [1, 31, 32, 33, 64, 65, 1025])
def test_pooled_numbers_of_filters_that_are_no_multiple_of_a_tile(filters, rng):
    pooled(*operands(rng, (1, 5, 6, filters), (2, 2), 7))
    pooled(*operands(rng, (3, 5, 6, 2), (2, 2), filters))


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_pooled_values_of_all_sizes(scale, rng):
    pooled(*operands(rng, (2, 7, 9, 3), scale=scale), "gelu")


def test_pooled_more_pixels_than_a_grid_has(rng):
    pooled(*operands(rng, (35000, 2, 2, 1), (1, 1), 2))


def test_pooled_inputs_that_are_not_contiguous(rng):
    x, kernel, bias = (np.stack([a, a], -1)[..., 0] for a in operands(rng, (2, 7, 9, 3)))
    assert not any(a.flags.c_contiguous for a in (x, kernel, bias))
    pooled(x, kernel, bias)


@pytest.mark.parametrize("name", ["linear", "relu", "tanh"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_the_first_of_equal_values_wins_as_in_the_reference(name, dtype, rng):
    """Integers, of which all sums are exact, and many equal."""
    x, kernel = (rng.integers(-1, 2, s).astype(dtype) for s in ((2, 9, 11, 2), (2, 2, 2, 3)))
    values, _, indices = on_device(convolution_pooled, x, kernel, None, name, *PLAIN)
    with dlgpu.device("cpu"):
        wanted, _, places = convolution_pooled(x.astype("d"), kernel.astype("d"), None, name, *PLAIN)
    np.testing.assert_allclose(values.astype("d"), wanted, rtol=4 * float(ml_dtypes.finfo(values.dtype).eps))
    np.testing.assert_array_equal(indices, places)
    assert len(np.unique(indices)) == 4


@pytest.mark.parametrize("name", ["linear", "relu", "gelu"])
def test_the_first_nan_of_a_window_is_its_largest_and_infinities_have_their_places(name, rng):
    one = np.ones((1, 1, 1, 1), "f")
    for _ in range(3):
        x = rng.choice(np.array([0.0, -0.0, 1, np.inf, -np.inf, np.nan], "f"), (5, 8, 8, 1))
        pooled(x, one, None, name)
    for place in range(4):
        x = np.full((1, 2, 2, 1), np.nan, "f")
        x.reshape(-1)[:place] = np.inf
        values, _, indices = pooled(x, one, None, name)
        assert np.isnan(values).all()
        assert indices.item() == place


@pytest.mark.parametrize("name", ["linear", "relu", "tanh", "silu"])
@pytest.mark.parametrize("groups", [1, 6])  # of few filters, which two kernels do
def test_the_gradients_of_what_is_pooled_are_the_references(name, groups, rng):
    x, kernel, bias = operands(rng, (2, 8, 9, 6), filters=12, groups=groups)
    grad, geometry = rng.standard_normal((2, 3, 3, 12)).astype("f"), (*PLAIN[:3], groups)

    def gradients(grad, x, kernel, bias, needed):
        _, *kept = convolution_pooled(x, kernel, bias, name, *geometry)
        return convolution_pooled_backward(grad, x, kernel, *kept, name, needed, *geometry)

    for needed in (True, True, True), (False, True, False):
        found = on_device(gradients, grad, x, kernel, bias, needed)
        with dlgpu.device("cpu"):
            wanted = gradients(*(a.astype("d") for a in (grad, x, kernel, bias)), needed)
        for f, w, n in zip(found, wanted, needed):
            assert (f is None) == (w is None) == (not n)
            if n:
                np.testing.assert_allclose(f, w, rtol=1e-4, atol=1e-4)


def test_in_a_model_what_is_not_pooled_is_never_written(rng, launches):
    with dlgpu.device("emulator"):
        model = dlgpu.Sequential([layers.Conv2D(4, 3, activation="relu"), layers.MaxPooling2D()])
        model.build((None, 7, 8, 3))
        launches.clear()
        model(dlgpu.Tensor(rng.standard_normal((2, 7, 8, 3)).astype("f"))).sum().backward()
    assert launches[0] == "convolution_pooled"
    assert [n for n in launches if "pool" in n or "forward" in n] == ["convolution_pooled", "max_pool_scatter"]
    assert launches.index("activation_backward") < launches.index("max_pool_scatter")  # of the largest values alone
