"""Pooling layers: shapes, masks and errors. What windows compute is tested in ops and parity."""

import numpy as np
import pytest

from dlgpu import layers
from dlgpu.layers import (
    AveragePooling1D,
    AveragePooling2D,
    GlobalAveragePooling1D,
    GlobalAveragePooling2D,
    GlobalMaxPooling1D,
    GlobalMaxPooling2D,
    Layer,
    MaxPooling1D,
    MaxPooling2D,
)
from dlgpu.layers.symbol import Symbol
from dlgpu.tensor import Tensor

random = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("layer", "inside", "outside"),
    [
        (MaxPooling1D(), (7, 3), (3, 3)),
        (AveragePooling1D(3, 1, "same"), (7, 3), (7, 3)),
        (MaxPooling2D((2, 3), padding="same"), (5, 7, 2), (3, 3, 2)),
        (AveragePooling2D(2, (1, 2)), (5, 7, 2), (4, 3, 2)),
        (GlobalMaxPooling1D(), (7, 3), (3,)),
        (GlobalAveragePooling1D(keepdims=True), (7, 3), (1, 3)),
        (GlobalMaxPooling2D(keepdims=True), (5, 7, 2), (1, 1, 2)),
        (GlobalAveragePooling2D(), (5, 7, 2), (2,)),
    ],
    ids=lambda x: type(x).__name__,
)
def test_output_shapes_are_stated_before_they_are_computed(layer, inside, outside):
    assert layer(Symbol((None, *inside))).shape == (None, *outside)
    for batch in (0, 2):
        assert layer(np.zeros((batch, *inside), np.float32)).shape == (batch, *outside)
    copy = type(layer).from_config(layer.get_config())
    x = random.normal(size=(2, *inside)).astype(np.float32)
    np.testing.assert_array_equal(copy(x).numpy(), layer(x).numpy())


def test_unknown_lengths_stay_unknown():
    assert MaxPooling2D().compute_output_shape((None, None, 6, 3)) == (None, None, 3, 3)
    assert AveragePooling1D(padding="same").compute_output_shape((4, None, 3)) == (4, None, 3)
    assert GlobalMaxPooling1D().compute_output_shape((None, None, 3)) == (None, 3)


def test_global_pools_reduce_all_of_time_and_of_images():
    x = random.normal(size=(2, 4, 5, 3)).astype(np.float32)
    np.testing.assert_array_equal(GlobalMaxPooling2D()(x).numpy(), x.max((1, 2)))
    np.testing.assert_allclose(GlobalAveragePooling2D()(x).numpy(), x.mean((1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(GlobalMaxPooling1D()(x[0]).numpy(), x[0].max(1))


@pytest.mark.parametrize("keepdims", [False, True])
def test_global_average_over_time_counts_only_steps_that_the_mask_keeps(keepdims):
    x = random.normal(size=(2, 4, 3)).astype(np.float32)
    x[0, 2:] = np.nan  # what is masked does not even need to be a number
    tensor = Tensor(x)
    tensor.mask = Tensor(np.array([[1, 1, 0, 0], [0, 1, 1, 1]], bool))
    out = GlobalAveragePooling1D(keepdims=keepdims)(tensor)
    expected = np.stack([x[0, :2].mean(0), x[1, 1:].mean(0)])
    np.testing.assert_allclose(out.numpy(), expected[:, None] if keepdims else expected, rtol=1e-6)
    assert out.mask is None


def test_layers_are_found_by_their_other_names():
    assert layers.MaxPool2D is MaxPooling2D is Layer.class_named("max_pooling2d")
    assert layers.GlobalAvgPool1D is GlobalAveragePooling1D is Layer.class_named("GlobalAvgPool1D")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: MaxPooling2D((2, 0), name="p"),
            "MaxPooling2D 'p': pool_size must be an integer or 2 integers of at least 1",
        ),
        (lambda: MaxPooling1D(2, "2"), "strides must be an integer of at least 1"),
        (lambda: MaxPooling1D(2, padding="causal"), "padding must be one of 'valid', 'same', got 'causal'"),
        (lambda: MaxPooling2D(name="p")(np.zeros((2, 8, 8))), "MaxPooling2D 'p': expected inputs of shape"),
        (
            lambda: MaxPooling2D(9, name="p")(np.zeros((2, 9, 8, 1))),
            "'p': a window of 9 does not fit into an input of width 8",
        ),
        (lambda: GlobalMaxPooling1D(name="p")(np.zeros((2, 0, 1))), "GlobalMaxPooling1D 'p': expected inputs"),
        (lambda: GlobalAveragePooling2D(name="p")(np.zeros((2, 3, 1))), "'p': expected inputs"),
    ],
)
def test_errors_name_the_layer(make, message):
    with pytest.raises(ValueError, match=message):
        make()
