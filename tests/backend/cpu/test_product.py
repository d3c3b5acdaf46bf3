"""Products in compiled loops, over shapes that fill tiles and shapes that do not."""

import numpy as np
import pytest

from dlgpu.backend.cpu.product import IN_CACHE, LANES, PANEL, lay_in_panels, multiply, multiply_transposed


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("columns", [0, LANES, PANEL, PANEL + LANES, 2 * PANEL + 3 * LANES])
@pytest.mark.parametrize(("low", "high"), [(0, 0), (0, 1), (0, 4), (1, 8), (2, 9)])
def test_multiply_writes_the_product_of_its_rows(columns, low, high, dtype, rng):
    a, w = rng.standard_normal((9, 13)).astype(dtype), rng.standard_normal((11, columns)).astype(dtype)
    panels, out = np.empty_like(w), np.full((9, columns + 5), np.nan, dtype)
    lay_in_panels(w, panels)
    wanted = np.full_like(out, np.nan)
    for add in (False, True):
        multiply(a, panels, out, add, low, high)
        wanted[low:high, :columns] = (1 + add) * (a[low:high, :11].astype("float64") @ w)
        np.testing.assert_allclose(out, wanted, rtol=0, atol=50 * np.finfo(dtype).eps)


@pytest.mark.parametrize("inner", [0, 1, IN_CACHE, 2 * IN_CACHE + 7])
@pytest.mark.parametrize("columns", [LANES, PANEL, PANEL + 3 * LANES])
@pytest.mark.parametrize(("low", "high"), [(0, 0), (0, 1), (0, 4), (1, 8), (2, 9)])
def test_multiply_transposed_writes_the_product_of_its_rows(inner, columns, low, high, rng):
    a, b = (rng.standard_normal(shape).astype("f") for shape in ((inner, 9), (inner, columns + 5)))
    out = np.full((9, columns), np.nan, "f")
    multiply_transposed(a, b, out, low, high)
    wanted = np.full_like(out, np.nan)
    wanted[low:high] = a.T[low:high].astype("float64") @ b[:, :columns]
    np.testing.assert_allclose(out, wanted, rtol=0, atol=50 * np.finfo("f").eps * max(1, inner) ** 0.5)


def test_more_rows_than_are_taken_together(rng):
    a, w = rng.standard_normal((2 * IN_CACHE + 7, 5)), rng.standard_normal((5, PANEL))
    panels, out = np.empty_like(w), np.empty((len(a), PANEL))
    lay_in_panels(w, panels)
    multiply(a, panels, out, False, 0, len(a))
    np.testing.assert_allclose(out, a @ w, rtol=0, atol=1e-13)
