"""The compiled matrix product against its reference, over shapes that fill tiles and blocks and shapes that do not."""

import numpy as np
import pytest

from dlgpu.backend.cpu import linear, threads
from dlgpu.backend.cpu.linear import DEPTH, PAGE, PANELS, product
from dlgpu.backend.cpu.tile import ROWS, columns
from tests.backend.cpu.agree import agree

WIDE = columns(np.dtype("f"))


def matrix(rng, shape, order, dtype="f"):
    """Whose rows ("C") or columns ("F") are contiguous, or that is part of another ("part") or runs backwards."""
    rows, width = shape
    if order == "part":
        return rng.standard_normal((rows, width + 3)).astype(dtype)[:, 1:-2]
    values = rng.standard_normal(shape).astype(dtype, order="F" if order == "F" else "C")
    return values[::-1, ::-1] if order == "backwards" else values


def check(rng, rows, inner, width, first="C", second="C", dtype="f"):
    a, b = matrix(rng, (rows, inner), first, dtype), matrix(rng, (inner, width), second, dtype)
    agree("matmul", a, b, size=max(1, inner))


@pytest.mark.parametrize(
    "orders", [("C", "C"), ("C", "F"), ("F", "C"), ("F", "F"), ("part", "backwards")], ids="-".join
)
@pytest.mark.parametrize("inner", [0, 1, 7, 33, 2 * DEPTH + 1, PAGE // 4])
@pytest.mark.parametrize("width", [0, 1, 10, WIDE // 2, WIDE + 17, 4 * WIDE, 9 * WIDE + 1])
def test_depths_and_widths(inner, width, orders, rng):
    for rows in (1, 4 * ROWS + 1):
        check(rng, rows, inner, width, *orders)


@pytest.mark.parametrize("rows", [0, *range(1, 2 * ROWS + 2), 300])
def test_every_height_of_a_tile(rows, rng):
    for width in (1, WIDE, WIDE + 5):
        check(rng, rows, 20, width)
        check(rng, rows, 20, width, "F", "F")


@pytest.mark.parametrize("orders", [("C", "C"), ("C", "F"), ("F", "C")], ids="-".join)
def test_more_panels_than_go_through_together(orders, rng):
    check(rng, 3 * ROWS + 2, DEPTH + 40, (PANELS + 2) * WIDE + 3, *orders)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int64"])
def test_other_dtypes(dtype, rng):
    for sizes in [(33, 70, 41), (40, 300, 5), (1, 1, 1)]:
        a, b = (9 * rng.standard_normal(shape) for shape in (sizes[:2], sizes[1:]))
        if dtype == "int64":
            np.testing.assert_array_equal(linear.matmul(a.astype("q"), b.astype("q")), a.astype("q") @ b.astype("q"))
        else:
            agree("matmul", a.astype(dtype), b.astype(dtype), size=sizes[1])


def test_stacks_of_matrices(rng):
    a, b = rng.standard_normal((5, 1, 3, 4)).astype("f"), rng.standard_normal((2, 4, 6)).astype("f")
    agree("matmul", a, b, size=4)


@pytest.mark.parametrize("width", [1, 5, WIDE, 2 * WIDE + 7])
@pytest.mark.parametrize("inner", [0, 9, DEPTH + 1])
@pytest.mark.parametrize("rows", [1, 30])
def test_bias_and_bound(rows, inner, width, rng):
    a, b, bias = (rng.standard_normal(shape) for shape in ((rows, inner), (inner, width), width))
    a[3:4], bias[-1] = np.nan, np.inf
    wanted = a @ b + bias
    np.testing.assert_allclose(product(a, b, bias), wanted, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(product(a, b, bias[::-1][::-1], 0), np.maximum(wanted, 0), rtol=1e-12, atol=1e-12)


def test_values_that_are_no_numbers_reach_what_they_touch_and_no_more(rng):
    a, b = rng.standard_normal((40, 300)).astype("f"), rng.standard_normal((300, 70)).astype("f")
    a[7, 280], b[3, 69], b[299, 0] = np.nan, np.inf, -np.inf
    agree("matmul", a, b, size=300)
    agree("matmul", a, b[:, 66:], size=300)


@pytest.mark.parametrize("shape", [(300, 40, 700), (1000, 300, 33), (16, 3000, 1500), (2000, 700, 3)], ids=str)
def test_the_same_bits_however_many_threads_share_the_work(shape, rng, monkeypatch):
    a, b = rng.standard_normal(shape[:2]).astype("f"), rng.standard_normal(shape[1:]).astype("f")
    found = []
    for count in (1, 2, 3, 7):
        monkeypatch.setattr(linear, "THREADS", count)
        monkeypatch.setattr(threads, "THREADS", count)
        found.append(product(a, b).tobytes())
    assert len(set(found)) == 1
