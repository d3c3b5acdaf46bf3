"""The pooling row: what it computes, its derivatives of every order, and its errors."""

import numpy as np
import pytest

from dlgpu.backend import windows
from dlgpu.ops.pooling import average_pool, max_pool
from dlgpu.tensor import Tensor
from dlgpu.testing import gradcheck

random = np.random.default_rng(0)

GEOMETRIES = [  # size, window, strides, padding
    ((4, 6), (2, 2), (2, 2), "valid"),
    ((5, 7), (2, 3), (2, 2), "same"),
    ((5, 4), (3, 2), (1, 1), ((1, 2), (0, 1))),
    ((7, 3), (2, 1), (3, 2), "valid"),
    ((1, 2), (3, 3), (2, 2), "same"),
]


def definition(x, window, strides, padding, reduce):
    """The window of each output in turn, with NaN for what lies in the padding."""
    (top, bottom), (left, right) = padding
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=np.nan)
    height, width = (x.shape[1] - window[0]) // strides[0] + 1, (x.shape[2] - window[1]) // strides[1] + 1
    out = np.empty((len(x), height, width, x.shape[3]))
    for o, p in np.ndindex(height, width):
        i, j = o * strides[0], p * strides[1]
        out[:, o, p] = reduce(x[:, i : i + window[0], j : j + window[1]], axis=(1, 2))
    return out


@pytest.mark.parametrize(("size", "window", "strides", "padding"), GEOMETRIES)
@pytest.mark.parametrize(("pool", "reduce"), [(max_pool, np.nanmax), (average_pool, np.nanmean)])
def test_pools_are_their_equations_and_so_are_their_derivatives(pool, reduce, size, window, strides, padding):
    x = random.permutation(6 * size[0] * size[1]).reshape(2, *size, 3) - 20.0  # far apart: no ties
    pairs = windows.padding_pairs(padding, size, window, strides)
    out = pool(Tensor(x), window, strides, padding)
    np.testing.assert_allclose(out.numpy(), definition(x, window, strides, pairs, reduce))
    x = x[:1, :, :, :2] / 50
    gradcheck(lambda x: pool(x, window, strides, padding), x)
    gradcheck(lambda x: pool(x, window, strides, padding) ** 2, x)  # a second derivative that is not zero


@pytest.mark.parametrize("pool", [max_pool, average_pool])
def test_pooling_over_time_is_pooling_of_images_of_height_one(pool):
    x = random.normal(size=(2, 7, 3))
    out = pool(Tensor(x), 3, 2, "same")
    np.testing.assert_array_equal(out.numpy(), pool(Tensor(x[:, None]), (1, 3), (1, 2), "same").numpy()[:, 0])
    gradcheck(lambda x: pool(x, 3, 2, (1, 2)) ** 2, x[:1])


def max_gradient(x, *arguments):
    x = Tensor(x, requires_grad=True)
    out = max_pool(x, *arguments)
    out.sum().backward()
    return out.numpy(), x.grad.numpy()


def test_the_first_of_equal_values_gets_the_gradient():
    _, grad = max_gradient(np.ones((1, 4, 4, 1), np.float32), 2)
    np.testing.assert_array_equal(grad[0, :, :, 0], [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])


def test_overlapping_windows_add_their_gradients():
    x = np.zeros((1, 3, 3, 1))
    x[0, 1, 1] = 1
    out, grad = max_gradient(x, 2, 1)
    np.testing.assert_array_equal(out, 1)
    assert grad[0, 1, 1, 0] == 4 == grad.sum()


def test_maximum_passes_nan_and_its_gradient_goes_there():
    x = np.array([3, np.nan, 1, 2, 5, 4], np.float32).reshape(1, 6, 1)
    out, grad = max_gradient(x, 3)
    np.testing.assert_array_equal(out.ravel(), [np.nan, 5])
    np.testing.assert_array_equal(grad.ravel(), [0, 1, 0, 0, 1, 0])


def test_padding_never_wins_over_the_input():
    x = np.full((1, 4, 4, 1), -np.inf, np.float32)
    out, grad = max_gradient(x, 3, 2, ((1, 1), (1, 1)))
    np.testing.assert_array_equal(out, -np.inf)
    assert grad.sum() == out.size  # none is lost in the padding
    np.testing.assert_array_equal(grad[0, :, :, 0], [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


def test_maximum_of_integers_and_booleans_keeps_their_dtype():
    x = np.array([-5, -7, -128, -128], np.int8).reshape(1, 4, 1)
    out = max_pool(x, 2, 2, (1, 1)).numpy()
    assert out.dtype == np.int8
    np.testing.assert_array_equal(out.ravel(), [-5, -7, -128])
    np.testing.assert_array_equal(max_pool(x > -6, 2).numpy().ravel(), [True, False])
    assert average_pool(x, 2).dtype == np.float32


def test_windows_beyond_256_values_keep_their_indices():
    x = np.zeros((1, 600, 1), np.float32)
    x[0, [299, 599]] = 1
    out, grad = max_gradient(x, 300)
    np.testing.assert_array_equal(out.ravel(), 1)
    np.testing.assert_array_equal(grad, x)


@pytest.mark.parametrize("pool", [max_pool, average_pool])
def test_strided_views_and_blocks_of_the_batch_change_nothing(pool, monkeypatch):
    x = random.normal(size=(5, 12, 8, 2)).astype(np.float32)

    def both(x):
        x = Tensor(x, requires_grad=True)
        out = pool(x, 3, 2, "same")
        (out * out).sum().backward()
        return out.numpy(), x.grad.numpy()

    expected = both(np.ascontiguousarray(x[:, ::-2]))
    assert expected[0].dtype == expected[1].dtype == np.float32
    monkeypatch.setattr(windows, "BLOCK_BYTES", 2 * 6 * 8 * 2 * 4)
    for a, b in zip(both(x[:, ::-2]), expected):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("pool", [max_pool, average_pool])
def test_no_rows_give_no_rows(pool):
    x = Tensor(np.zeros((0, 4, 6, 2), np.float32), requires_grad=True)
    out = pool(x, 2)
    out.sum().backward()
    assert out.shape == (0, 2, 3, 2)
    assert x.grad.shape == x.shape


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((2, 4), (2,), "expected x .batch, time, channels. or"),
        ((2, 4, 1), (5,), "window of 5 does not fit into an input of time 4"),
        ((2, 0, 3, 1), (2, 1, ((1, 1), (0, 0))), "does not fit into an input of height 0"),
        ((2, 4, 4, 1), (2, 2, ((2, 0), (0, 0))), "must be less than the window"),
        ((2, 4, 4, 1), ((2, 2, 2),), "window must be an integer or 2 integers"),
        ((2, 4, 4, 1), (2, 2, "full"), "padding must be"),
    ],
)
def test_wrong_arguments_are_named(shape, arguments, message):
    with pytest.raises(ValueError, match=message):
        max_pool(np.zeros(shape, np.float32), *arguments)
