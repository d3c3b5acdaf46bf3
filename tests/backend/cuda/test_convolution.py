"""The convolution kernels against their reference, where they could break."""

import numpy as np
import pytest

import dlgpu
from dlgpu.backend import windows
from dlgpu.backend.cuda import geometry
from dlgpu.backend.reference.activation import FROM_INPUT
from dlgpu.backend.reference.convolution import convolution, convolution_kernel_gradient
from tests.backend.cuda.hostile import agree


def check(rng, image, window, filters, strides=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=1, **options):
    """All four kernels on one geometry; image is (batch, height, width, channels)."""
    dtype, name = options.get("dtype", "float32"), options.get("name", "linear")
    size = windows.output_size(image[1:3], window, strides, padding, dilation)
    x = (options.get("scale", 1.0) * rng.standard_normal(image)).astype(dtype)
    kernel = rng.standard_normal((*window, image[3] // groups, filters)).astype(dtype)
    bias = rng.standard_normal(filters).astype(dtype)
    grad = (options.get("scale", 1.0) * rng.standard_normal((image[0], *size, filters))).astype(dtype)
    placed = strides, padding, dilation, groups
    depth, pixels = kernel[..., 0].size, grad[..., 0].size
    by_data = window[0] * window[1] * filters // groups
    agree("convolution", x, kernel, bias, name, *placed, size=depth + 1)
    agree("convolution_data_gradient", grad, kernel, image[1:3], *placed, size=by_data)
    agree("convolution_kernel_gradient", x, grad, window, *placed, size=max(1, pixels))
    saved = convolution.reference(x, kernel, bias, name, *placed)[1]
    needed = options.get("needed", (True, True, True))
    agree("convolution_backward", grad, x, kernel, saved, name, needed, *placed, size=max(by_data, pixels))


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_batches(batch, rng):
    check(rng, (batch, 7, 9, 3), (3, 3), 5)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
@pytest.mark.parametrize("groups", [1, 3])
def test_values_of_all_sizes(scale, groups, rng):
    check(rng, (2, 7, 9, 3), (3, 3), 6, groups=groups, scale=scale)


@pytest.mark.parametrize("groups", [1, 2])
def test_more_pixels_and_more_elements_than_a_grid_has(groups, rng, monkeypatch):
    check(rng, (35000, 2, 1, 2), (1, 1), 2, groups=groups)
    monkeypatch.setattr(geometry, "MAX_BLOCKS", 2)
    check(rng, (1, 5, 5, 24), (3, 3), 24, groups=groups)


@pytest.mark.parametrize(
    ("channels", "filters"), [(1, 1), (31, 33), (32, 32), (33, 31), (64, 64), (65, 129), (2, 1025), (1025, 2)]
)
def test_numbers_of_channels_that_are_no_multiple_of_a_tile(channels, filters, rng):
    check(rng, (2, 5, 6, channels), (2, 3), filters, padding=((1, 0), (1, 1)))


GEOMETRIES = [
    {"strides": (2, 3)},
    {"dilation": (2, 3)},
    {"strides": (2, 2), "dilation": (2, 2)},  # every second value of the gradient by x is zero
    {"strides": (4, 6), "dilation": (6, 4)},
    {"strides": (5, 4)},  # longer than the window: some inputs are never seen
    {"padding": ((3, 1), (0, 4))},
    {"strides": (3, 2), "padding": ((2, 5), (4, 1)), "dilation": (2, 1)},
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("groups", [1, 2, 6])  # tiles; one thread a result, with and without depth
def test_strides_padding_and_dilation(geometry, groups, rng):
    check(rng, (2, 15, 19, 6), (3, 2), 12, groups=groups, **geometry)


@pytest.mark.parametrize("groups", [2, 3])
def test_groups_that_fill_tiles(groups, rng):
    check(rng, (2, 6, 5, 17 * groups), (2, 2), 70 * groups, strides=(1, 2), groups=groups)


@pytest.mark.parametrize("channels", [1, 33, 260])
@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise(channels, multiplier, rng):
    padding = ((1, 1), (1, 1))
    check(rng, (2, 6, 5, channels), (3, 3), channels * multiplier, padding=padding, groups=channels)


def test_groups_with_few_filters_but_many_channels_and_the_reverse(rng):
    check(rng, (2, 5, 4, 40), (2, 2), 6, groups=2)
    check(rng, (2, 5, 4, 6), (2, 2), 40, groups=2)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("width", [1, 3, 41])
def test_weights_summed_over_slices(groups, width, rng):
    check(rng, (5, 2100 // width // 5, width, 4), (1, 1), 4, strides=(1, 1), groups=groups, name="relu")


@pytest.mark.parametrize("name", ["relu", "silu", "gelu"])
@pytest.mark.parametrize("groups", [1, 3])
def test_activation_in_the_same_pass(name, groups, rng):
    check(rng, (2, 6, 7, 3), (3, 3), 6, groups=groups, name=name)


def test_what_the_backward_of_silu_needs_includes_the_bias(rng):
    assert "silu" in FROM_INPUT
    x, kernel = rng.standard_normal((1, 3, 3, 2)).astype("f"), rng.standard_normal((1, 1, 2, 4)).astype("f")
    plain = (1, 1), ((0, 0), (0, 0)), (1, 1), 1
    agree("convolution", x, kernel, None, "silu", *plain)
    agree("convolution", x, kernel, np.full(4, 100, "f"), "silu", *plain)


@pytest.mark.parametrize("needed", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (0, 0, 0)], ids=str)
@pytest.mark.parametrize("groups", [1, 3])
def test_gradients_that_are_not_needed_are_not_made(needed, groups, rng):
    check(rng, (2, 6, 7, 3), (3, 3), 6, groups=groups, name="relu", needed=tuple(map(bool, needed)))


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize("groups", [1, 3])
def test_other_dtypes(dtype, groups, rng):
    check(rng, (2, 6, 7, 9), (3, 3), 6, (2, 1), ((1, 0), (1, 1)), groups=groups, dtype=dtype, name="relu")


@pytest.mark.parametrize("groups", [1, 3])
def test_inputs_that_are_not_contiguous(groups, rng):
    x = rng.standard_normal((7, 2, 6, 6)).astype("f").transpose(1, 2, 0, 3)[..., ::2]
    kernel = rng.standard_normal((6, 3 // groups, 3, 2)).astype("f").transpose(3, 2, 1, 0)
    bias = rng.standard_normal(12).astype("f")[::2]
    grad, saved = rng.standard_normal((2, 2, 5, 10, 6)).astype("f")[:, :, :, ::2]
    placed = (1, 1), ((0, 0), (0, 0)), (1, 1), groups
    assert not any(a.flags.c_contiguous for a in (x, kernel, bias, grad, saved))
    agree("convolution", x, kernel, bias, "linear", *placed, size=18)
    agree("convolution_data_gradient", grad, kernel, x.shape[1:3], *placed, size=36)
    agree("convolution_kernel_gradient", x, grad, kernel.shape[:2], *placed, size=60)
    for name in ("relu", "linear"):
        agree("convolution_backward", grad, x, kernel, saved, name, (True, True, True), *placed, size=60)


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
