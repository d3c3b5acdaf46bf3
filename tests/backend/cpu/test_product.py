"""Products in compiled loops, over shapes that fill tiles and shapes that do not."""

import numpy as np
import pytest

from dlgpu.backend.cpu.product import IN_CACHE, LANES, PANEL, ROWS, multiply, multiply_transposed, pack


def in_panels(weights):
    panels, columns = np.empty(weights.shape, weights.dtype), weights.shape[1]
    pack(
        weights,
        np.empty(0, weights.dtype),
        np.ones(columns, weights.dtype),
        np.arange(columns),
        len(weights),
        panels.reshape(-1),
    )
    return panels


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("columns", [0, LANES, PANEL, PANEL + LANES, 2 * PANEL + 3 * LANES])
@pytest.mark.parametrize(("low", "high"), [(0, 0), (0, 1), (0, 4), (1, 8), (2, 9)])
def test_multiply_writes_the_product_of_its_rows(columns, low, high, dtype, rng):
    a, w = rng.standard_normal((9, 13)).astype(dtype), rng.standard_normal((11, columns)).astype(dtype)
    panels, out = in_panels(w), np.full((9, columns + 5), np.nan, dtype)
    wanted = np.full_like(out, np.nan)
    for add in (False, True):
        multiply(a, panels, out, add, low, high)
        wanted[low:high, :columns] = (1 + add) * (a[low:high, :11].astype("float64") @ w)
        np.testing.assert_allclose(out, wanted, rtol=0, atol=50 * np.finfo(dtype).eps)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("inner", [0, 1, IN_CACHE, 2 * IN_CACHE + 7])
@pytest.mark.parametrize("columns", [LANES, PANEL, 2 * PANEL + 3 * LANES])
@pytest.mark.parametrize(("low", "high"), [(0, 0), (0, 1), (0, 3), (1, 3)])
def test_multiply_transposed_writes_the_product_of_its_groups(inner, columns, low, high, large, rng):
    a, b = (rng.standard_normal(shape).astype("f") for shape in ((inner, 3 * ROWS + 1), (inner, columns + 5)))
    out = np.full((3 * ROWS, columns), np.nan, "f")
    left, right = (np.empty((3 * large, IN_CACHE * n), "f") for n in (ROWS, PANEL))
    multiply_transposed(a, b, out, left, right, low, high)
    wanted, some = np.full_like(out, np.nan), slice(low * ROWS, high * ROWS)
    wanted[some] = a.T[some].astype("float64") @ b[:, :columns]
    np.testing.assert_allclose(out, wanted, rtol=0, atol=50 * np.finfo("f").eps * max(1, inner) ** 0.5)


@pytest.mark.parametrize("inner", [5, LANES, 2 * LANES + 1])
def test_more_rows_than_are_taken_together_by_transposed_weights(inner, rng):
    a, w = rng.standard_normal((2 * IN_CACHE + 7, inner)), rng.standard_normal((PANEL, inner)).T
    panels, out = in_panels(w), np.empty((len(a), PANEL))
    multiply(a, panels, out, False, 0, len(a))
    np.testing.assert_allclose(out, a @ w, rtol=0, atol=1e-13)
