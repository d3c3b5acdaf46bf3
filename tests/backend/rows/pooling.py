"""Pooling against their reference, where they could break."""

import numpy as np
import pytest

from dlgpu.backend import windows
from dlgpu.backend.dispatch import registry
from tests.backend.column import agree, on_device

NONE = (0, 0), (0, 0)
CASES = [  # shape of x; window, strides, padding
    ((2, 4, 6, 3), (2, 2), (2, 2), NONE),
    ((2, 5, 7, 33), (2, 2), (2, 2), NONE),  # values beyond the last window
    ((0, 4, 6, 3), (2, 2), (2, 2), NONE),
    ((1, 1, 1, 1), (1, 1), (1, 1), NONE),
    ((3, 1, 7, 5), (1, 3), (1, 2), ((0, 0), (1, 2))),  # over time
    ((2, 7, 5, 31), (3, 3), (2, 2), ((1, 1), (1, 1))),  # overlapping and padded
    ((2, 7, 5, 31), (2, 2), (2, 2), ((1, 0), (1, 1))),
    ((2, 8, 9, 33), (3, 2), (1, 3), ((2, 0), (0, 1))),
    ((1, 9, 10, 32), (2, 2), (3, 4), NONE),  # gaps that no window sees
    ((2, 5, 3, 1025), (3, 2), (2, 1), ((2, 2), (1, 1))),
    ((1, 19, 18, 2), (17, 17), (1, 1), ((3, 4), (16, 0))),  # indices that do not fit into a byte
    ((5, 40, 41, 32), (2, 2), (2, 2), NONE),  # shared between threads
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


@pytest.mark.parametrize(("shape", "window", "strides", "padding"), CASES)
def test_windows_of_all_kinds(shape, window, strides, padding, rng):
    every_kernel(rng, shape, window, strides, padding)


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_dtypes(dtype, rng):
    every_kernel(rng, *CASES[5], dtype=dtype)


def test_inputs_that_are_not_contiguous(rng):
    every_kernel(rng, *CASES[5], view=np.asfortranarray)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_values_of_all_sizes(scale, rng):
    every_kernel(rng, *CASES[5], scale=scale)


@pytest.mark.parametrize("padding", [NONE, ((1, 1), (1, 1))])
@pytest.mark.parametrize("window", [(2, 2), (3, 3)])
def test_ties_infinities_and_nan_choose_as_the_reference_does(window, padding, rng):
    x = rng.choice(np.array(EDGES, "f"), (3, 9, 11, 4))
    agree("max_pool", x, window, (2, 1), padding)
    agree("max_pool", rng.choice(np.array(EDGES[:-1], "f"), x.shape), window, (2, 1), padding)
    agree("max_pool", np.full_like(x, -np.inf), window, (2, 1), padding)
    agree("max_pool", np.zeros_like(x), window, (2, 1), padding)
    agree("average_pool", x, window, (2, 1), padding)


@pytest.mark.parametrize("window", [(2, 2), (3, 3)])
def test_the_first_nan_is_the_largest(window):
    for place in range(window[0] * window[1]):
        x = np.zeros((1, *window, 1), "f")
        x.flat[0], x.flat[-1] = np.inf, 2
        x.flat[place:] = np.nan
        values, indices = on_device(registry["max_pool"], x, window, window, NONE)
        assert np.isnan(values).all()
        assert indices.item() == place


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


def test_integers_have_a_largest_value_too(rng):
    agree("max_pool", rng.integers(-9, 9, (2, 5, 5, 3)), (2, 2), (1, 1), ((1, 0), (0, 1)))
