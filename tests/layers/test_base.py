"""What all layers can do, a user's own included."""

import copy

import numpy as np
import pytest

from dlgpu.layers import Dense

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_a_shallow_copy_shares_the_weights_that_are_there_and_makes_others_of_its_own(dtype):
    layer = Dense(2, dtype=dtype)
    unbuilt = copy.copy(layer)
    expected, _ = layer(X).numpy(), unbuilt(X)
    assert (len(layer.weights), len(unbuilt.weights)) == (2, 2)
    assert layer.kernel is not unbuilt.kernel
    built = copy.copy(layer)
    assert built.kernel is layer.kernel
    built.kernel = unbuilt.kernel
    np.testing.assert_array_equal(layer(X).numpy(), expected)
    np.testing.assert_array_equal(built(X).numpy(), unbuilt(X).numpy())
