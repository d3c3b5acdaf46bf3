"""The sums of an epoch against their references."""

import numpy as np
import pytest

from tests.backend.column import agree


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_scaled_value_is_added_in_double_precision(shape, dtype):
    agree("add_scaled", np.array(2.0**30), np.full(shape, 0.3, dtype), 33)
    agree("add_scaled", np.array(1.0), np.full(shape, np.nan, dtype), 1)


@pytest.mark.parametrize("labels", ["float32", "float64", "int64", "uint8", "bool"])
@pytest.mark.parametrize("shape", [(1,), (32, 1), (7, 5), (1025,), (31,), (33,), (70001, 1)])
def test_binary_matches(shape, labels, rng):
    p = rng.random(shape).astype("f")
    p.flat[:1] = 0.5
    agree("add_binary_matches", np.array(3.0), np.array(9.0), rng.integers(0, 2, shape).astype(labels), p, 0.5)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("shape", [(65536,), (1, 32)])
def test_binary_matches_of_one_dtype(shape, dtype, rng):
    p, y = (rng.random(shape) * 2e4).astype(dtype), rng.integers(0, 2, shape).astype(dtype)
    p.flat[::7] = 1e-7
    agree("add_binary_matches", np.array(3.0), np.array(9.0), y, p, 0.1)


def test_what_is_not_a_number_matches_nothing_but_zero():
    p, y = np.array([np.nan, np.nan, 0.9, 0.1], "f"), np.array([0.0, 1.0, np.nan, np.nan], "f")
    agree("add_binary_matches", np.array(0.0), np.array(0.0), y, p, 0.5)
    agree("add_binary_matches", np.array(0.0), np.array(0.0), y[::2], p[::2], 0.5)
