"""tanh of the CPU column's loops, over all exponents."""

import numpy as np

from dlgpu.backend.cpu.approximations import tanh
from dlgpu.backend.cpu.jit import jit
from dlgpu.backend.cpu.vectors import LANES, load, store


@jit
def each(x, out):
    for i in range(0, x.size, LANES):
        store(out, i, tanh(load(x, i)))


def of(x):
    full = np.resize(x, -(-x.size // LANES) * LANES)
    out = np.empty_like(full)
    each(full, out)
    return out[: x.size]


def test_tanh_is_within_8_units_in_the_last_place():
    bits = np.arange(0, np.float32(np.inf).view(np.int32), 4099, dtype=np.int32)
    x = np.concatenate([bits.view(np.float32), -bits.view(np.float32), np.linspace(-10, 10, 200001, dtype=np.float32)])
    exact = np.tanh(x.astype(np.float64))
    unit = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
    assert (np.abs(of(x) - exact) <= 8 * unit).all()
    assert (np.abs(of(x)) <= 1).all()


def test_tanh_at_the_edges():
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 3e38], np.float32)
    np.testing.assert_array_equal(of(x), np.array([np.nan, 1, -1, 0, 0, 1e-45, 1], np.float32))
    assert of(x).dtype == np.float32


def test_tanh_in_float64_is_exact():
    x = np.linspace(-20, 20, 1001)
    np.testing.assert_allclose(of(x), np.tanh(x), rtol=1e-15, atol=0)
