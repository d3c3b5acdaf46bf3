"""The pooling kernels, also on a grid that is too small, and of what only their callers can get wrong."""

import numpy as np
import pytest

import dlgpu
from dlgpu.backend.cuda import pooling as column
from dlgpu.backend.dispatch import registry
from tests.backend.column import agree
from tests.backend.rows.pooling import *
from tests.backend.rows.pooling import NONE, every_kernel, test_other_dtypes


def test_bfloat16(rng):
    test_other_dtypes("bfloat16", rng)


def test_more_rows_than_a_grid_has(rng, monkeypatch):
    every_kernel(rng, (35000, 2, 1, 1), (2, 1), (1, 1), ((1, 0), (0, 0)))
    monkeypatch.setattr(column, "MAX_ROWS", 2)
    every_kernel(rng, (50, 4, 1, 1), (2, 1), (1, 1), NONE)
    every_kernel(rng, (50, 4, 60, 5), (2, 1), (1, 1), NONE)


def test_indices_that_point_out_of_the_image_gather_nothing(rng):
    geometry = (3, 2), (2, 1), ((2, 2), (1, 1))
    x = rng.standard_normal((2, 5, 6, 3)).astype("f")
    shape = registry["max_pool"].reference(x, *geometry)[1].shape
    agree("max_pool_gather", x, rng.integers(0, 9, shape).astype(np.uint8), *geometry)


@pytest.mark.parametrize("device", ["cpu", "emulator"])
def test_the_first_nan_of_a_window_is_the_largest_value_and_gets_its_gradient(device):
    x = np.array([[1, np.nan, 5], [np.nan, 9, np.nan]], "f").reshape(1, 2, 3, 1)
    with dlgpu.device(device):
        t = dlgpu.Tensor(x, requires_grad=True)
        y = dlgpu.ops.max_pool(t, (2, 3))
        y.sum().backward()
    assert np.isnan(y.numpy()).all()
    np.testing.assert_array_equal(t.grad.numpy().ravel(), [0, 1, 0, 0, 0, 0])
