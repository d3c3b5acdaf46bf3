"""Convolutions against their references, where they could break."""

import numpy as np
import pytest

from dlgpu.backend import windows
from dlgpu.backend.dispatch import registry
from tests.backend.column import agree

NONE = (0, 0), (0, 0)


def check(rng, image, window, filters, strides=(1, 1), padding=NONE, dilation=(1, 1), groups=1, **options):
    """All four kernels on one geometry; image is (batch, height, width, channels)."""
    dtype, name = options.get("dtype", "float32"), options.get("name", "linear")
    size = windows.output_size(image[1:3], window, strides, padding, dilation)
    scale = options.get("scale", 1.0)
    x = (scale * rng.standard_normal(image)).astype(dtype)
    kernel = rng.standard_normal((*window, image[3] // groups, filters)).astype(dtype)
    bias = rng.standard_normal(filters).astype(dtype)
    grad = (scale * rng.standard_normal((image[0], *size, filters))).astype(dtype)
    geometry = strides, padding, dilation, groups
    depth, pixels = kernel[..., 0].size, grad[..., 0].size
    by_data = window[0] * window[1] * filters // groups
    agree("convolution", x, kernel, bias, name, *geometry, size=depth + 1)
    agree("convolution_data_gradient", grad, kernel, image[1:3], *geometry, size=by_data)
    agree("convolution_kernel_gradient", x, grad, window, *geometry, size=max(1, pixels))
    saved = registry["convolution"].reference(x, kernel, bias, name, *geometry)[1]
    needed = options.get("needed", (True, True, True))
    agree("convolution_backward", grad, x, kernel, saved, name, needed, *geometry, size=max(by_data, pixels))


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_batches(batch, rng):
    check(rng, (batch, 7, 9, 3), (3, 3), 5)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
@pytest.mark.parametrize("groups", [1, 3])
def test_values_of_all_sizes(scale, groups, rng):
    check(rng, (2, 7, 9, 3), (3, 3), 6, groups=groups, scale=scale)


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
    {"padding": ((40, 0), (0, 50))},  # windows that see no input
    {"strides": (3, 2), "padding": ((2, 5), (4, 1)), "dilation": (2, 1)},
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("groups", [1, 2, 6])
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


@pytest.mark.parametrize("name", ["relu", "tanh", "silu", "gelu"])
@pytest.mark.parametrize("groups", [1, 3])
def test_activation_in_the_same_pass(name, groups, rng):
    check(rng, (2, 6, 7, 12), (3, 3), 15, groups=groups, name=name)


def test_what_the_backward_of_silu_needs_includes_the_bias(rng):
    x, kernel = rng.standard_normal((1, 3, 3, 2)).astype("f"), rng.standard_normal((1, 1, 2, 4)).astype("f")
    plain = (1, 1), NONE, (1, 1), 1
    agree("convolution", x, kernel, None, "silu", *plain)
    agree("convolution", x, kernel, np.full(4, 100, "f"), "silu", *plain)


@pytest.mark.parametrize("needed", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (0, 0, 0)], ids=str)
@pytest.mark.parametrize("groups", [1, 3])
def test_gradients_that_are_not_needed_are_not_made(needed, groups, rng):
    check(rng, (2, 6, 7, 3), (3, 3), 6, groups=groups, name="relu", needed=tuple(map(bool, needed)))


@pytest.mark.parametrize("dtype", ["float64", "float16"])
@pytest.mark.parametrize("groups", [1, 3])
def test_other_dtypes(dtype, groups, rng):
    check(rng, (2, 6, 7, 9), (3, 3), 18, (2, 1), ((1, 0), (1, 1)), groups=groups, dtype=dtype, name="relu")


@pytest.mark.parametrize("groups", [1, 3])
def test_inputs_that_are_not_contiguous(groups, rng):
    x = rng.standard_normal((7, 2, 6, 24)).astype("f").transpose(1, 2, 0, 3)[..., ::2]
    kernel = rng.standard_normal((24, 12 // groups, 3, 2)).astype("f").transpose(3, 2, 1, 0)
    bias = rng.standard_normal(48).astype("f")[::2]
    grad, saved = rng.standard_normal((2, 2, 5, 10, 24)).astype("f")[:, :, :, ::2]
    geometry = (1, 1), NONE, (1, 1), groups
    assert not any(a.flags.c_contiguous for a in (x, kernel, bias, grad, saved))
    agree("convolution", x, kernel, bias, "linear", *geometry, size=72)
    agree("convolution_data_gradient", grad, kernel, x.shape[1:3], *geometry, size=72)
    agree("convolution_kernel_gradient", x, grad, kernel.shape[:2], *geometry, size=60)
    for name in ("relu", "linear"):
        agree("convolution_backward", grad, x, kernel, saved, name, (True, True, True), *geometry, size=72)
