"""The product kernel, whatever the tile and the number of parts that sums are taken in."""

import numpy as np
import pytest

import dlgpu
from dlgpu.backend.cuda import linear
from tests.backend.column import agree, on_device
from tests.backend.rows.linear import *
from tests.backend.rows.linear import normal, test_other_dtypes


def test_bfloat16(rng):
    test_other_dtypes("bfloat16", rng)


@pytest.mark.parametrize("each", [1, 2, 4])
@pytest.mark.parametrize("splits", [1, 3])
def test_every_tile_and_any_number_of_parts(each, splits, rng, monkeypatch):
    monkeypatch.setattr(linear, "plan", lambda r, c, i, s: (each, -(-r // (16 * each)) * -(-c // (16 * each)), splits))
    a, b = normal(rng, 2, 35, 70), normal(rng, 2, 70, 67)
    agree("matmul", a, b, size=70)
    agree("matmul", a[0].T, a[0], size=35)
    for activation in ("relu", "silu"):
        agree("dense", a[0], b[0], normal(rng, 67), activation, size=70)
    for rows in 0, 1, 35:  # the bias's gradient comes with the kernel's, from the blocks of its first rows
        grad, x = normal(rng, rows, 67), normal(rng, rows, 70)
        agree("dense_backward", grad, x, b[0], grad, "linear", (False, True, True), size=max(rows, 1))
        agree("dense_backward", grad, x[:, :0], b[0][:0], grad, "linear", (False, True, True), size=max(rows, 1))


def test_more_matrices_than_a_grid_has(rng, monkeypatch):
    monkeypatch.setattr(linear, "MAX_STACK", 2)
    agree("matmul", normal(rng, 5, 3, 4), normal(rng, 5, 4, 2), size=4)


def test_small_products_are_split_and_large_ones_are_not():
    assert linear.plan(32, 128, 30976, 1) == (1, 16, 8)
    assert linear.plan(4096, 4096, 4096, 1) == (4, 4096, 1)
    assert linear.plan(0, 3, 1000, 1)[1:] == (0, 3)


def test_integers_are_multiplied_by_the_reference():
    x = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(on_device(dlgpu.backend.reference.linear.matmul, x, x.T), x @ x.T)
