"""Gather and scatter-add against their references, where they could break."""

import numpy as np
import pytest

import dlgpu
from dlgpu.backend.reference.embedding import gather, scatter_add
from tests.backend import column
from tests.backend.column import agree, on_device
from tests.backend.rows import normal

SIZES = [
    (0, 3, 4),
    (1, 1, 1),
    (5, 0, 3),
    (31, 33, 2),
    (257, 7, 33),
    (600, 1, 5),
    (300, 1000, 1025),
    (20000, 50, 2),
    (40, 9, 31),
    (33, 40, 32),
    (70000, 70000, 1),
]


@pytest.mark.parametrize(("n", "rows", "features"), SIZES)
def test_sizes_that_are_no_multiple_of_anything(n, rows, features, rng):
    indices = rng.integers(0, rows, n) if rows else np.zeros(0, int)
    agree("gather", normal(rng, rows, features), indices)
    agree("scatter_add", normal(rng, len(indices), features), indices, rows, size=n)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "int32"])
def test_other_dtypes(dtype, rng):
    indices = rng.integers(0, 9, 40)
    agree("gather", (8 * normal(rng, 9, 5)).astype(dtype), indices)
    agree("scatter_add", (8 * normal(rng, 40, 5)).astype(dtype), indices, 9)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "uint64"])
def test_indices_of_any_integer_dtype(dtype, rng):
    indices = rng.integers(0, 9, 40).astype(dtype)
    agree("gather", normal(rng, 9, 5), indices)
    agree("scatter_add", normal(rng, 40, 5), indices, 9)


def test_values_of_all_sizes(rng):
    values = normal(rng, 40, 5) * np.array([1e30, 1e4, 1, 1e-9, 1e-38], "f")
    agree("gather", values, rng.integers(0, 40, 50))
    agree("scatter_add", values, rng.integers(0, 9, 40), 9)


def test_inputs_that_are_not_contiguous(rng):
    indices = rng.integers(0, 9, 40)[::2]
    agree("gather", normal(rng, 5, 18)[:, ::2].T, indices)
    agree("scatter_add", normal(rng, 7, 40)[:, ::2].T, indices, 9)


def test_nan_and_infinity_stay_in_their_rows(rng):
    table = normal(rng, 3, 2)
    table[1] = np.nan, np.inf
    agree("gather", table, np.array([2, 1, 0, 1]))
    agree("scatter_add", table, np.array([4, 0, 4]), 6)


@pytest.mark.parametrize("n", [300, 17000])
def test_values_are_added_in_ascending_order(n, rng):
    values, indices = normal(rng, n, 3), rng.integers(0, 4, n)
    wanted = np.zeros((4, 3), "f")
    np.add.at(wanted, indices, values)
    np.testing.assert_array_equal(on_device(scatter_add, values, indices, 4), wanted)


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_out_of_range_is_an_error(index, rng):
    with dlgpu.device(column.current.HOST):  # a GPU would have to be waited for
        with pytest.raises(ValueError, match="expected indices from 0 to 2"):
            gather(normal(rng, 3, 2), np.array([0, index]))
        with pytest.raises(ValueError, match="expected indices from 0 to 2"):
            scatter_add(normal(rng, 2, 2), np.array([0, index]), 3)
