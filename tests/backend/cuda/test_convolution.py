"""The convolution kernels, also on a grid that is too small, and of 16 bits."""

import numpy as np
import pytest

import dlgpu
from dlgpu.backend.cuda import geometry
from dlgpu.backend.reference.convolution import convolution_kernel_gradient
from tests.backend.column import agree
from tests.backend.rows.convolution import *
from tests.backend.rows.convolution import check, test_other_dtypes


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
