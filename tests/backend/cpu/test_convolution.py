"""The compiled convolutions: tiles of every height, work that threads share, and what is no number."""

import numpy as np
import pytest

from dlgpu.backend.cpu import convolution
from dlgpu.backend.cpu.tile import ROWS
from dlgpu.backend.dispatch import registry
from dlgpu.backend.recorder import Recording
from dlgpu.backend.traced import traced
from dlgpu.ops.convolution import conv2d, conv2d_max_pool
from dlgpu.ops.differentiation import fresh, pull_back
from dlgpu.ops.pooling import max_pool
from tests.backend.column import agree
from tests.backend.rows.convolution import *
from tests.backend.rows.convolution import NONE, check


@pytest.mark.parametrize("width", range(1, 2 * ROWS + 2))
def test_every_height_of_a_tile(width, rng):
    x, kernel = rng.standard_normal((1, 1, width, 2)).astype("f"), rng.standard_normal((1, 1, 2, 3)).astype("f")
    agree("convolution", x, kernel, None, "linear", (1, 1), NONE, (1, 1), 1, size=2)
    turned, grad = x.transpose(0, 1, 3, 2), rng.standard_normal((1, 1, 2, 3)).astype("f")
    agree("convolution_kernel_gradient", turned, grad, (1, 1), (1, 1), NONE, (1, 1), 1, size=2)


def test_work_that_threads_share(rng):
    check(rng, (5, 33, 40, 20), (3, 3), 40, padding=((1, 1), (1, 1)), name="relu")
    check(rng, (1, 70, 160, 30), (3, 3), 33, strides=(2, 2), padding=((0, 1), (0, 1)), name="relu")  # one image


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


@pytest.mark.parametrize("name", ["linear", "relu", "gelu"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_pooling_after_it_is_what_it_is_by_itself(name, dtype, rng):
    """A recorded step has the very same calls, forward and backward."""
    arrays = [rng.standard_normal(s).astype(dtype) for s in ((2, 9, 8, 3), (3, 3, 3, 5), (5,), (2, 3, 3, 5))]

    def noted(function):
        recording = Recording()
        with recording.active():
            *inputs, grad = map(traced, arrays)
            inputs = list(map(fresh, inputs))
            pull_back([function(*inputs)], [grad], inputs)
        return [(f, [a.shape for a in args if isinstance(a, np.ndarray)]) for f, args in recording.program]

    in_two = noted(lambda *inputs: max_pool(conv2d(*inputs, activation=name), 2))
    assert noted(lambda *inputs: conv2d_max_pool(*inputs, activation=name)) == in_two
