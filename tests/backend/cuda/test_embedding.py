"""Gather and scatter-add, also on a grid that is too small, and of indices out of range where nobody checks them."""

import numpy as np
import pytest

from dlgpu.backend.cuda import geometry
from dlgpu.backend.cuda.source import source
from tests.backend.column import agree, on_device
from tests.backend.rows import normal
from tests.backend.rows.embedding import *


@pytest.mark.parametrize("features", [1, 5, 33, 300])
def test_more_rows_than_a_grid_has_threads(features, rng, monkeypatch):
    monkeypatch.setattr(geometry, "MAX_BLOCKS", 2)
    indices = rng.integers(0, 900, 1500)
    agree("gather", normal(rng, 900, features), indices)
    agree("scatter_add", normal(rng, 1500, features), indices, 900, size=1500)


@pytest.mark.parametrize("index", [-(2**40), -1, 3, 4, 2**40])
def test_a_device_makes_rows_of_an_index_out_of_range_nan_and_adds_nothing_for_it(index, rng):
    def launched(name, block, arrays, *sizes):
        launch = source("embedding.cu").launch
        on_device(lambda *arrays: launch(name, 1, block, (*arrays, *sizes), dtype="float32"), *arrays)

    table, output = normal(rng, 3, 2), normal(rng, 4, 2)
    launched("gather", 32, (table, np.array([2, index, 0, 1]), output), 8, 3, 2)
    np.testing.assert_array_equal(output, [table[2], [np.nan, np.nan], table[0], table[1]])
    total, order, ordered = np.zeros((5, 2), "f"), np.arange(4), np.sort(np.array([2, index, 0, 1]))
    launched("add_ordered", (2, 16), (output[[0, 0, 0, 0]], order, ordered, total), 4, 3, 2)
    np.testing.assert_array_equal(total[:3], output[[0, 0, 0]])
    assert not total[3:].any()
