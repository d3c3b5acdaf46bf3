"""Masking: which steps it masks, and what becomes of them."""

import numpy as np
import pytest

from dlgpu.layers import Dense, Masking
from dlgpu.models import Sequential
from dlgpu.saving.configurable import deserialize, serialize


def test_only_steps_of_nothing_but_the_mask_value_are_masked():
    x = np.array([[[0, 0], [0, 1], [-1, -1], [2, 0]]], np.float32)
    outputs = Masking()(x)
    np.testing.assert_array_equal(outputs.numpy(), x)
    np.testing.assert_array_equal(outputs.mask.numpy(), [[False, True, True, True]])
    outputs = Masking(mask_value=-1)(x)
    np.testing.assert_array_equal(outputs.numpy(), [[[0, 0], [0, 1], [0, 0], [2, 0]]])
    np.testing.assert_array_equal(outputs.mask.numpy(), [[True, True, False, True]])


def test_the_mask_goes_through_layers_that_know_it_to_the_loss():
    x = np.array([[[1.0], [0.0]], [[1.0], [1.0]]], np.float32)
    model = Sequential([Masking(), Dense(1, kernel_initializer="ones")])
    np.testing.assert_array_equal(model(x).mask.numpy(), [[True, False], [True, True]])
    model.compile("sgd", "mse")
    y = np.array([[[1.0], [100.0]], [[1.0], [3.0]]], np.float32)
    # (0 + 0 + 4) / 3: the masked step's error of 100 is not there
    np.testing.assert_allclose(model.evaluate(x, y, verbose=0), 4 / 3, rtol=1e-6)


def test_a_description_makes_the_same_layer():
    assert deserialize(serialize(Masking(mask_value=3.0))).mask_value == 3.0


def test_inputs_without_time_are_refused():
    with pytest.raises(
        ValueError, match=r"Masking 'm': expected inputs of shape \(batch, time, features\), got \(3, 2\)"
    ):
        Masking(name="m")(np.zeros((3, 2), np.float32))
