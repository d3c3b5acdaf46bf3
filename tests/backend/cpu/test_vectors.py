"""Vectors in compiled loops do what NumPy does to as many numbers."""

import numpy as np
import pytest

from dlgpu.backend.cpu.jit import jit
from dlgpu.backend.cpu.vectors import LANES, clamp, load, store


@jit
def loop(a, b, number, out):
    x, y = load(a, 1), load(b, 0)
    store(out[0], 2, x + y * number - number)
    store(out[1], 0, number - x / y)
    store(out[2], 0, number)
    store(out[3], 0, clamp(x, number))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_vectors_are_read_counted_with_and_written_where_they_are_wanted(dtype, rng):
    a, b, number = rng.standard_normal(LANES + 1).astype(dtype), rng.standard_normal(LANES).astype(dtype), dtype(0.5)
    a[1:4] = np.nan, np.inf, -np.inf
    out = np.full((4, LANES + 3), 7, dtype)
    loop(a, b, number, out)
    wanted = np.full_like(out, 7)
    wanted[0, 2 : LANES + 2] = a[1:] + b * number - number
    wanted[1:, :LANES] = number - a[1:] / b, np.full(LANES, number), np.clip(a[1:], -number, number)
    np.testing.assert_allclose(out, wanted, rtol=0, atol=20 * np.finfo(dtype).eps)
