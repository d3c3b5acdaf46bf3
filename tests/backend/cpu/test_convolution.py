"""The compiled convolutions against their reference, where they could break."""

import numpy as np
import pytest

from dlgpu.backend import windows
from dlgpu.backend.cpu import convolution
from dlgpu.backend.cpu.tile import ROWS
from dlgpu.backend.dispatch import registry
from tests.backend.cpu.agree import agree

NONE = (0, 0), (0, 0)


def check(rng, image, window, filters, strides=(1, 1), padding=NONE, dilation=(1, 1), groups=1, **options):
    """All four kernels on one geometry; image is (batch, height, width, channels)."""
    dtype, name = options.get("dtype", "float32"), options.get("name", "linear")
    size = windows.output_size(image[1:3], window, strides, padding, dilation)
    x = rng.standard_normal(image).astype(dtype)
    kernel = rng.standard_normal((*window, image[3] // groups, filters)).astype(dtype)
    bias = rng.standard_normal(filters).astype(dtype)
    grad = rng.standard_normal((image[0], *size, filters)).astype(dtype)
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


@pytest.mark.parametrize(
    ("channels", "filters"), [(1, 1), (31, 33), (32, 32), (33, 31), (64, 64), (65, 129), (2, 1025), (1025, 2)]
)
def test_numbers_of_channels_that_are_no_multiple_of_a_vector(channels, filters, rng):
    check(rng, (2, 5, 6, channels), (2, 3), filters, padding=((1, 0), (1, 1)))


@pytest.mark.parametrize("width", range(1, 2 * ROWS + 2))
def test_every_height_of_a_tile(width, rng):
    x, kernel = rng.standard_normal((1, 1, width, 2)).astype("f"), rng.standard_normal((1, 1, 2, 3)).astype("f")
    agree("convolution", x, kernel, None, "linear", (1, 1), NONE, (1, 1), 1, size=2)
    agree(
        "convolution_kernel_gradient", x.transpose(0, 1, 3, 2), x, (1, 1), (1, 1), NONE, (1, 1), 1
    ) if width == 2 else None


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
@pytest.mark.parametrize("groups", [1, 2, 8])
def test_strides_padding_and_dilation(geometry, groups, rng):
    check(rng, (2, 15, 19, 8), (3, 2), 16, groups=groups, **geometry)


@pytest.mark.parametrize("groups", [2, 3])
def test_groups_that_fill_tiles(groups, rng):
    check(rng, (2, 6, 5, 17 * groups), (2, 2), 70 * groups, strides=(1, 2), groups=groups)


@pytest.mark.parametrize("channels", [1, 33])
@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise(channels, multiplier, rng):
    padding = ((1, 1), (1, 1))
    check(rng, (2, 6, 5, channels), (3, 3), channels * multiplier, padding=padding, groups=channels)


def test_work_that_threads_share(rng):
    check(rng, (5, 33, 40, 20), (3, 3), 40, padding=((1, 1), (1, 1)), name="relu")
    check(rng, (1, 70, 160, 30), (3, 3), 33, strides=(2, 2), padding=((0, 1), (0, 1)), name="relu")  # one image


@pytest.mark.parametrize("name", ["relu", "tanh", "silu"])
@pytest.mark.parametrize("groups", [1, 3])
def test_activation_in_the_same_pass(name, groups, rng):
    check(rng, (2, 6, 7, 12), (3, 3), 15, groups=groups, name=name)


def test_what_the_backward_of_silu_needs_includes_the_bias(rng):
    x, kernel = rng.standard_normal((1, 3, 3, 2)).astype("f"), rng.standard_normal((1, 1, 2, 4)).astype("f")
    plain = (1, 1), NONE, (1, 1), 1
    agree("convolution", x, kernel, None, "silu", *plain)
    agree("convolution", x, kernel, np.full(4, 100, "f"), "silu", *plain)


@pytest.mark.parametrize("needed", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (0, 0, 0)], ids=str)
def test_gradients_that_are_not_needed_are_not_made(needed, rng):
    check(rng, (2, 6, 7, 3), (3, 3), 6, name="relu", needed=tuple(map(bool, needed)))


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_dtypes(dtype, rng):
    check(rng, (2, 6, 7, 9), (3, 3), 18, (2, 1), ((1, 0), (1, 1)), dtype=dtype, name="relu")


@pytest.mark.parametrize("groups", [1, 3])
def test_inputs_that_are_not_contiguous(groups, rng):
    x = rng.standard_normal((7, 2, 6, 24)).astype("f").transpose(1, 2, 0, 3)[..., ::2]
    kernel = rng.standard_normal((24, 12 // groups, 3, 2)).astype("f").transpose(3, 2, 1, 0)
    bias = rng.standard_normal(48).astype("f")[::2]
    grad, saved = rng.standard_normal((2, 2, 5, 10, 24)).astype("f")[:, :, :, ::2]
    geometry = (1, 1), NONE, (1, 1), groups
    assert not any(a.flags.c_contiguous for a in (x, kernel, bias, grad, saved))
    agree("convolution", x, kernel, bias, "linear", *geometry, size=72)
    for name in ("relu", "linear"):
        agree("convolution_backward", grad, x, kernel, saved, name, (True, True, True), *geometry, size=144)


def test_values_that_are_no_numbers_reach_what_they_touch_and_no_more(rng):
    x, kernel = rng.standard_normal((2, 6, 7, 3)).astype("f"), rng.standard_normal((3, 3, 3, 6)).astype("f")
    grad, saved = rng.standard_normal((2, 2, 6, 7, 6)).astype("f")
    x[0, 1, 2, 0], x[1, 5, 6, 2] = np.nan, np.inf
    grad[1, 2, 3, 4], grad[0, 4, 1, 0] = np.nan, -np.inf
    saved[0, 0, 0, 0] = np.nan
    geometry = (1, 1), ((1, 1), (1, 1)), (1, 1), 1
    agree("convolution", x, kernel, None, "relu", *geometry, size=27)
    agree("convolution_data_gradient", grad, kernel, (6, 7), *geometry, size=54)
    agree("convolution_backward", grad, x, kernel, saved, "relu", (True, False, False), *geometry, size=54)
    agree("convolution_kernel_gradient", np.nan_to_num(x, posinf=1), grad, (3, 3), *geometry, size=84)


def test_the_same_bits_however_many_threads_share_the_work(rng, monkeypatch):
    x, grad = rng.standard_normal((2, 4, 40, 40, 32)).astype("f")
    kernel = rng.standard_normal((3, 3, 32, 32)).astype("f")
    geometry = (1, 1), ((1, 1), (1, 1)), (1, 1), 1

    def run():
        backward = registry["convolution_backward"].columns["cpu"]
        forward = registry["convolution"].columns["cpu"](x, kernel, None, "relu", *geometry)[0]
        return [a.tobytes() for a in (forward, *backward(grad, x, kernel, forward, "relu", (1, 1, 1), *geometry))]

    found = run()
    for threads in (1, 3):
        monkeypatch.setattr(convolution, "THREADS", threads)
        assert run() == found
