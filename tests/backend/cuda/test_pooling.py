"""The pooling kernels against their reference, where they could break."""

import numpy as np
import pytest

import dlgpu
from dlgpu.backend import windows
from dlgpu.backend.cuda import pooling as column
from dlgpu.backend.dispatch import registry
from tests.backend.cuda.hostile import agree, covers

NONE = (0, 0), (0, 0)
CASES = [  # shape of x; window, strides, padding
    ((2, 4, 6, 3), (2, 2), (2, 2), NONE),
    ((0, 4, 6, 3), (2, 2), (2, 2), NONE),
    ((1, 1, 1, 1), (1, 1), (1, 1), NONE),
    ((3, 1, 7, 5), (1, 3), (1, 2), ((0, 0), (1, 2))),  # over time
    ((2, 7, 5, 31), (3, 3), (2, 2), ((1, 1), (1, 1))),  # overlapping and padded
    ((2, 8, 9, 33), (3, 2), (1, 3), ((2, 0), (0, 1))),
    ((1, 9, 10, 32), (2, 2), (3, 4), NONE),  # gaps that no window sees
    ((2, 5, 3, 1025), (3, 2), (2, 1), ((2, 2), (1, 1))),
    ((1, 19, 18, 2), (17, 17), (1, 1), ((3, 4), (16, 0))),  # indices that do not fit into a byte
]
EDGES = [0.0, -0.0, 1e30, -1e30, np.inf, -np.inf, np.nan]


def every_kernel(rng, shape, window, strides, padding, dtype="f", view=lambda x: x, scale=1.0):
    """Compare them all on one geometry."""
    size, outputs = shape[1:3], windows.output_size(shape[1:3], window, strides, padding)
    geometry = window, strides, padding
    x, probe = (view((scale * rng.standard_normal(shape)).astype(dtype)) for _ in range(2))
    grad = view((scale * rng.standard_normal((shape[0], *outputs, shape[3]))).astype(dtype))
    indices = view(registry["max_pool"].reference(x, *geometry)[1])
    terms = window[0] * window[1]
    agree("max_pool", x, *geometry)
    agree("max_pool_scatter", grad, indices, size, *geometry, size=terms)
    agree("max_pool_gather", probe, indices, *geometry)
    agree("average_pool", x, *geometry, size=terms)
    agree("average_pool_gradient", grad, size, *geometry, size=terms)


@covers("max_pool", "max_pool_scatter", "max_pool_gather", "average_pool", "average_pool_gradient")
@pytest.mark.parametrize(("shape", "window", "strides", "padding"), CASES)
def test_windows_of_all_kinds(shape, window, strides, padding, rng):
    every_kernel(rng, shape, window, strides, padding)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_other_dtypes(dtype, rng):
    every_kernel(rng, *CASES[4], dtype=dtype)


def test_inputs_that_are_not_contiguous(rng):
    every_kernel(rng, *CASES[4], view=np.asfortranarray)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_values_of_all_sizes(scale, rng):
    every_kernel(rng, *CASES[4], scale=scale)


def test_more_rows_than_a_grid_has(rng, monkeypatch):
    every_kernel(rng, (35000, 2, 1, 1), (2, 1), (1, 1), ((1, 0), (0, 0)))
    monkeypatch.setattr(column, "MAX_ROWS", 2)
    every_kernel(rng, (50, 4, 1, 1), (2, 1), (1, 1), NONE)
    every_kernel(rng, (50, 4, 60, 5), (2, 1), (1, 1), NONE)


@pytest.mark.parametrize("padding", [NONE, ((1, 1), (1, 1))])
def test_ties_infinities_and_nan_choose_as_the_reference_does(padding, rng):
    x = rng.choice(np.array(EDGES, "f"), (3, 9, 11, 4))
    agree("max_pool", x, (3, 3), (2, 1), padding)
    agree("max_pool", np.full_like(x, -np.inf), (3, 3), (2, 1), padding)
    agree("max_pool", np.zeros_like(x), (3, 3), (2, 1), padding)
    agree("average_pool", x, (3, 3), (2, 1), padding)


@pytest.mark.parametrize("strides", [(3, 3), (1, 1)])
def test_what_is_not_finite_reaches_the_chosen_input_only(strides, rng):
    x, grad = rng.standard_normal((2, 7, 9, 5)).astype("f"), windows.output_size((7, 9), (3, 3), strides, NONE)
    grad = rng.choice(np.array([0, 1e30, np.inf, np.nan], "f"), (2, *grad, 5))
    indices = registry["max_pool"].reference(x, (3, 3), strides, NONE)[1]
    agree("max_pool_scatter", grad, indices, (7, 9), (3, 3), strides, NONE)
    agree("max_pool_gather", rng.choice(np.array(EDGES, "f"), x.shape), indices, (3, 3), strides, NONE)
    agree("average_pool_gradient", grad, (7, 9), (3, 3), strides, NONE)
    found = registry["max_pool_scatter"].reference(grad, indices, (7, 9), (3, 3), strides, NONE)
    assert 0 < np.isnan(found).sum() <= np.isnan(grad).sum()


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


def test_integers_have_a_largest_value_too(rng):
    agree("max_pool", rng.integers(-9, 9, (2, 5, 5, 3)), (2, 2), (1, 1), ((1, 0), (0, 1)))
