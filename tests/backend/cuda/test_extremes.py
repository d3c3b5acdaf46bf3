"""Normalization and recurrence at the ends of what they have to bear, besides what their own rows try."""

import numpy as np
import pytest

from tests.backend.cuda.hostile import agree
from tests.backend.cuda.test_recurrent import CELLS, check
from tests.backend.rows import normal
from tests.backend.rows.normalization import batch, layer
from tests.backend.rows.softmax import positive


def test_normalization_of_bfloat16(rng):
    x, grad = (normal(rng, 50, 33, dtype="bfloat16") for _ in range(2))
    scale, offset, mean, variance = normal(rng, 33), normal(rng, 33), normal(rng, 50), positive(rng, 50)
    agree("batch_normalization", x, scale, offset, 1e-3, None, size=50)
    agree("normalize", x, mean[:33], variance[:33], scale, offset, 1e-3)
    agree("batch_normalization_backward", grad, x, mean[:33], variance[:33], scale, 1e-3, None, size=50)
    agree("layer_normalization", x, scale, offset, 1e-3, size=50)
    agree("layer_normalization_backward", grad, x, mean, variance, scale, 1e-3, size=50)


@pytest.mark.parametrize("columns", [1, 31, 32])
def test_normalization_of_many_rows_of_values_of_all_sizes(columns, rng):
    x, grad = normal(rng, 70, columns), normal(rng, 70, columns)
    for scale in 1e-9, 1e6:
        batch(np.float32(scale) * x, np.float32(scale) * grad, None, None, size=70, ulps=32)
        layer(np.float32(scale) * x, np.float32(scale) * grad, None, None, size=70, ulps=32)


@pytest.mark.parametrize("cell", CELLS)
def test_recurrence_of_bfloat16(cell, rng):
    check(rng, cell, 3, 5, 4, 9, masked=True, dtype="bfloat16")


@pytest.mark.parametrize("cell", CELLS)
def test_recurrence_of_many_sequences(cell, rng):
    check(rng, cell, 66000, 1, 1, 1)


@pytest.mark.parametrize("cell", CELLS)
def test_recurrence_of_a_large_value(cell, rng):
    check(rng, cell, 3, 4, 3, 5, first=1e4)
