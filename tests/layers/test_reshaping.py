"""Layers that move values: where each value goes, shapes and errors."""

import numpy as np
import pytest

from dlgpu import ops
from dlgpu.layers import (
    Cropping1D,
    Cropping2D,
    Flatten,
    Permute,
    RepeatVector,
    Reshape,
    UpSampling1D,
    UpSampling2D,
    ZeroPadding1D,
    ZeroPadding2D,
)
from dlgpu.layers.symbol import Symbol
from dlgpu.tensor import Tensor

IMAGE = (4, 5, 3)
LAYERS = [
    (Flatten(), IMAGE, lambda x: x.reshape(len(x), 60)),
    (Flatten(), (), lambda x: x.reshape(len(x), 1)),
    (Reshape((5, 12)), IMAGE, lambda x: x.reshape(len(x), 5, 12)),
    (Reshape((2, -1)), IMAGE, lambda x: x.reshape(len(x), 2, 30)),
    (Permute((3, 1, 2)), IMAGE, lambda x: x.transpose(0, 3, 1, 2)),
    (RepeatVector(3), (4,), lambda x: np.stack([x, x, x], axis=1)),
    (ZeroPadding1D(2), (4, 3), lambda x: np.pad(x, ((0, 0), (2, 2), (0, 0)))),
    (ZeroPadding1D((0, 3)), (4, 3), lambda x: np.pad(x, ((0, 0), (0, 3), (0, 0)))),
    (ZeroPadding2D((2, 1)), IMAGE, lambda x: np.pad(x, ((0, 0), (2, 2), (1, 1), (0, 0)))),
    (ZeroPadding2D(((0, 1), (2, 3))), IMAGE, lambda x: np.pad(x, ((0, 0), (0, 1), (2, 3), (0, 0)))),
    (Cropping1D((0, 1)), (4, 3), lambda x: x[:, :3]),
    (Cropping2D(((1, 0), (2, 1))), IMAGE, lambda x: x[:, 1:, 2:4]),
    (Cropping2D(), IMAGE, lambda x: x),
    (UpSampling1D(), (4, 3), lambda x: x.repeat(2, 1)),
    (UpSampling2D((3, 2)), IMAGE, lambda x: x.repeat(3, 1).repeat(2, 2)),
]


@pytest.mark.parametrize(("layer", "inside", "expected"), LAYERS, ids=lambda x: type(x).__name__)
def test_every_value_goes_where_it_should(layer, inside, expected):
    for batch in (0, 1, 2):
        x = np.random.default_rng(0).normal(size=(batch, *inside)).astype(np.float32)
        out = layer(x).numpy()
        np.testing.assert_array_equal(out, expected(x))
        assert out.dtype == np.float32
    assert layer(Symbol((None, *inside))).shape == (None, *out.shape[1:])
    np.testing.assert_array_equal(type(layer).from_config(layer.get_config())(x).numpy(), out)


@pytest.mark.parametrize(("layer", "inside", "expected"), LAYERS, ids=lambda x: type(x).__name__)
def test_gradients_go_back_to_where_values_came_from(layer, inside, expected):
    x = Tensor(np.random.default_rng(0).normal(size=(2, *inside)), requires_grad=True, dtype=np.float32)
    ops.sum(layer(x) * layer(x)).backward()
    appearances = np.zeros(x.size)
    places = expected(np.arange(1, x.size + 1).reshape(x.shape)).ravel()
    np.add.at(appearances, places[places > 0] - 1, 1)
    np.testing.assert_allclose(x.grad.numpy().ravel(), 2 * x.numpy().ravel() * appearances, rtol=1e-5)


@pytest.mark.parametrize(
    ("layer", "shape", "output"),
    [
        (Reshape((3, -1)), (None, None, 4), (None, 3, None)),
        (Permute((2, 1)), (None, None, 4), (None, 4, None)),
        (ZeroPadding2D(1), (None, None, 4, 3), (None, None, 6, 3)),
        (Cropping1D(1), (None, None, 3), (None, None, 3)),
        (UpSampling1D(2), (None, None, 3), (None, None, 3)),
    ],
)
def test_unknown_lengths_stay_unknown(layer, shape, output):
    assert layer.compute_output_shape(shape) == output


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Flatten(name="f")(Symbol((None, None, 3))), r"Flatten 'f': all lengths but the batch must be known"),
        (lambda: Reshape((-1, -1), name="r"), "Reshape 'r': target_shape must be positive lengths"),
        (
            lambda: Reshape((2, 3), name="r")(np.zeros((4, 7))),
            r"'r': inputs of shape \(4, 7\) do not fit into \(2, 3\)",
        ),
        (lambda: Reshape((2, 3))(np.zeros((4, 12))), "do not fit"),
        (lambda: Reshape((5, -1))(np.zeros((4, 12))), "do not fit"),
        (lambda: Permute((0, 1), name="p"), "Permute 'p': dims must be the numbers from 1 to 2"),
        (lambda: Permute((2, 1), name="p")(np.zeros((2, 3))), "'p': expected inputs of 3 dimensions"),
        (lambda: RepeatVector(0, name="v"), "RepeatVector 'v': n must be a positive integer"),
        (lambda: RepeatVector(2, name="v")(np.zeros((2, 3, 1))), "'v': expected inputs of shape"),
        (lambda: ZeroPadding2D((1, 2, 3), name="z"), "ZeroPadding2D 'z': padding must be a number or"),
        (lambda: ZeroPadding1D(-1), "none below 0"),
        (lambda: ZeroPadding1D(1, name="z")(np.zeros((2, 3))), "'z': expected inputs of shape"),
        (lambda: Cropping1D(2, name="c")(np.zeros((2, 4, 1))), "Cropping1D 'c': nothing is left"),
        (lambda: UpSampling2D(0, name="u"), "UpSampling2D 'u': size must be"),
    ],
)
def test_errors_name_the_layer(make, message):
    with pytest.raises(ValueError, match=message):
        make()
