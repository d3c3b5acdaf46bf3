"""Products of matrices against their reference, where they could break."""

import numpy as np
import pytest

from tests.backend.column import agree


def normal(rng, *shape, dtype="f"):
    return rng.standard_normal(shape).astype(dtype)


@pytest.mark.parametrize(
    ("rows", "inner", "columns"),
    [(0, 3, 2), (3, 0, 2), (3, 2, 0), (1, 1, 1), (1, 33, 1025), (33, 1, 31), (31, 17, 32), (65, 70, 129), (2, 1025, 3)],
)
def test_sizes_that_are_no_multiple_of_anything(rows, inner, columns, rng):
    a, b = normal(rng, rows, inner), normal(rng, inner, columns)
    agree("matmul", a, b, size=inner)
    agree("matmul", normal(rng, inner, rows).T, normal(rng, columns, inner).T, size=inner)
    agree("matmul", a, normal(rng, columns, inner).T, size=inner)


def test_more_rows_than_a_grid_has(rng):
    agree("matmul", normal(rng, 70000, 2), normal(rng, 2, 3), size=2)
    agree("matmul", normal(rng, 3, 70000), normal(rng, 70000, 1), size=70000)


@pytest.mark.parametrize(
    "stacks", [((3,), (3,)), ((2, 1), (3,)), ((), (2, 3)), ((4,), ()), ((0,), (0,)), ((1,), (5, 1))]
)
def test_stacks_of_matrices_broadcast(stacks, rng):
    first, second = stacks
    agree("matmul", normal(rng, *first, 5, 7), normal(rng, *second, 7, 6), size=7)
    agree("matmul", normal(rng, *first, 7, 5).swapaxes(-1, -2), normal(rng, *second, 7, 6), size=7)


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_dtypes(dtype, rng):
    agree("matmul", normal(rng, 20, 600, dtype=dtype), normal(rng, 600, 33, dtype=dtype), size=600)


def test_operands_that_are_not_contiguous(rng):
    agree("matmul", normal(rng, 40, 66)[::2, ::2], normal(rng, 66, 18)[::2, ::-1], size=33)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_reaches_its_row_and_column_only(value, rng):
    a, b = normal(rng, 35, 40), normal(rng, 40, 37)
    a[3, 5] = b[7, 9] = value
    agree("matmul", a, b, size=40)


@pytest.mark.parametrize("scale", [1e6, 1e-8])
def test_large_and_tiny_values(scale, rng):
    agree("matmul", normal(rng, 31, 1025) * np.float32(scale), normal(rng, 1025, 33) * np.float32(scale), size=1025)
