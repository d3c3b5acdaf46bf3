"""Convolutions and products on tensor cores: with every tile, every word, and what float32 becomes in TF32."""

from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

import dlgpu
from dlgpu.backend.cuda import convolution, linear, tensor_cores, tensor_product
from dlgpu.backend.cuda.source import Source, has_tensor_cores
from dlgpu.backend.cuda.tensor_cores import TILES, Tile, tiles_for, word
from dlgpu.backend.devices import Device
from dlgpu.backend.dispatch import registry
from dlgpu.training.settings import Settings
from tests.backend.column import agree, on_device
from tests.backend.cuda.test_convolution import operands, pooled
from tests.backend.rows.convolution import *
from tests.backend.rows.convolution import NONE, check

DTYPES = ["float32", "float16", "bfloat16"]
PADDED = (2, 1), ((1, 0), (1, 2)), (1, 2), 1


def rounded(x):
    """To TF32: 10 bits after the point, ties away from zero."""
    bits = np.asarray(x, "f").view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view("f")


class Tf32Numbers:
    """Random numbers that TF32 holds, so that products lose nothing and float32's tolerances apply."""

    def __init__(self, rng):
        self.rng = rng

    def standard_normal(self, shape):
        return rounded(self.rng.standard_normal(shape))


@pytest.fixture
def rng(rng):
    return Tf32Numbers(rng)


@pytest.fixture(autouse=True)
def _tf32():
    dlgpu.allow_tf32()
    yield
    dlgpu.allow_tf32(False)


@pytest.fixture
def used(monkeypatch):
    """The kernels of tensor cores that were launched."""
    names = []
    launch = tensor_cores.launch

    def noting(kernel, *args, **options):
        names.append(kernel)
        launch(kernel, *args, **options)

    for module in (convolution, tensor_product):
        monkeypatch.setattr(module, "launch", noting)
    return names


def integers(shape, dtype, seed=0):
    """Integers whose products and sums are exact in all dtypes."""
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(dtype)


def all_three(x, kernel, grad, geometry):
    """Output and both gradients."""
    return (
        registry["convolution"](x, kernel, None, "linear", *geometry)[0],
        registry["convolution_data_gradient"](grad, kernel, x.shape[1:3], *geometry),
        registry["convolution_kernel_gradient"](x, grad, kernel.shape[:2], *geometry),
    )


# in long words, and with 5 channels in short ones
CASES = [(tile, dtype, 16) for tile in TILES for dtype in ("float32", "bfloat16")]
CASES += [(TILES[-1], dtype, 5) for dtype in DTYPES] + [(TILES[0], "float16", 16)]


@pytest.mark.parametrize(("tile", "dtype", "channels"), CASES, ids=str)
def test_every_tile_puts_every_product_where_it_belongs(tile, dtype, channels, monkeypatch, used):
    """Small integers: every sum is exact, so that one misplaced value shows."""
    monkeypatch.setattr(tensor_cores, "tiles_for", lambda *sizes: [tile])
    filters = 72 if channels == 16 else 7
    x, kernel = integers((2, 9, 10, channels), dtype), integers((3, 2, channels, filters), dtype, 1)
    grad = integers((2, 4, 11, filters), dtype, 2)
    found = on_device(all_three, x, kernel, grad, PADDED)
    with dlgpu.device("cpu"):
        wanted = all_three(*(a.astype("d") for a in (x, kernel, grad)), PADDED)
    for f, w in zip(found, wanted):
        np.testing.assert_array_equal(f, w.astype(dtype))
    assert len(used) == 3


def test_no_bit_depends_on_the_tile(monkeypatch):
    rng = np.random.default_rng(0)
    x, kernel, grad = (rng.standard_normal(s).astype("f") for s in ((2, 9, 10, 16), (3, 2, 16, 72), (2, 4, 11, 72)))
    found = []
    for tile in TILES:
        monkeypatch.setattr(tensor_cores, "tiles_for", lambda *sizes, tile=tile: [tile])
        found.append([array.tobytes() for array in on_device(all_three, x, kernel, grad, PADDED)])
    assert all(f == found[0] for f in found)


@pytest.mark.parametrize(("tile", "dtype", "channels"), CASES, ids=str)
def test_every_tile_pools_in_one_pass_to_the_bits_of_two(tile, dtype, channels, monkeypatch, used):
    monkeypatch.setattr(tensor_cores, "tiles_for", lambda *sizes: [tile])
    numbers = np.random.default_rng(0)
    x, kernel, bias = operands(numbers, (3, 19, 10, channels), (3, 2), 72 if channels == 16 else 7, 1, dtype)
    pooled(x, kernel, bias, "linear", PADDED)
    pooled(np.sign(x), np.sign(kernel), None, "linear", PADDED)  # with ties
    assert used == ["tensor_convolution_pooled", "tensor_convolution_forward"] * 2


def test_pooled_of_all_geometries_on_tensor_cores(rng):
    for image, groups, geometry in [
        ((0, 4, 4, 4), 1, ((1, 1), NONE, (1, 1), 1)),
        ((1, 3, 4, 4), 1, ((1, 1), NONE, (1, 1), 1)),
        ((3, 15, 19, 6), 2, ((3, 2), ((2, 5), (4, 1)), (2, 1), 2)),
    ]:
        pooled(*operands(rng, image, (2, 3), 34, groups), "silu", geometry)
    x, kernel, _ = operands(rng, (2, 9, 9, 3), (1, 1))
    x[0, 2, 3, 1], x[1, 4:6, 4:6, 0], x[1, 0, 0, 0] = np.nan, np.nan, np.inf
    values, _, _ = pooled(x, kernel, None)
    assert np.isnan(values[0, 1, 1]).all()
    assert np.isnan(values[1, 2, 2]).all()


def test_float32_is_rounded_to_tf32_and_summed_in_float32(used):
    rng = np.random.default_rng(0)
    x, kernel, grad = (rng.standard_normal(s).astype("f") for s in ((2, 9, 10, 16), (3, 2, 16, 24), (2, 4, 11, 24)))
    found = on_device(all_three, x, kernel, grad, PADDED)
    assert len(used) == 3
    with dlgpu.device("cpu"):
        doubles = [a.astype("d") for a in (x, kernel, grad)]
        wanted, sizes = all_three(*doubles, PADDED), all_three(*map(np.abs, doubles), PADDED)
        of_rounded = all_three(*(rounded(a).astype("d") for a in doubles), PADDED)
    for f, w, r, size in zip(found, wanted, of_rounded, sizes):
        terms = 2 * 4 * 11 * 2  # of the longest sum, twice as its parts are summed after
        assert (np.abs(f - r) <= terms * 2.0**-24 * size).all()
        assert (np.abs(f - w) <= (2 * 2.0**-11 + terms * 2.0**-23) * size).all()  # both factors are off by 2^-11
        assert np.abs(f - w).max() > 1e-4


def test_a_tie_is_rounded_away_from_zero():
    one = np.ones((1, 1, 1, 1), "f")
    for value, expected in [(1 + 2**-11, 1 + 2**-10), (-1 - 2**-11, -1 - 2**-10), (1 + 2**-12, 1)]:
        x = np.full((1, 1, 1, 1), value, "f")
        z, _ = on_device(registry["convolution"], x, one, None, "linear", (1, 1), NONE, (1, 1), 1)
        assert z.item() == expected


def test_float32_is_float32_unless_tf32_is_allowed(used):
    rng = np.random.default_rng(0)
    args = (
        *(rng.standard_normal(s).astype("f") for s in ((2, 5, 6, 8), (3, 2, 8, 9))),
        None,
        "linear",
        (1, 1),
        NONE,
        (1, 1),
        1,
    )
    dlgpu.allow_tf32(False)
    plain = on_device(registry["convolution"], *args)[0]
    agree("convolution", *args, size=48)
    assert not used
    dlgpu.allow_tf32()
    assert np.abs(on_device(registry["convolution"], *args)[0] - plain).max() > 1e-4
    assert used == ["tensor_convolution_forward"]


def test_steps_that_were_recorded_are_forgotten_when_it_changes():
    before = Settings()
    assert Settings() == before
    dlgpu.allow_tf32(False)
    assert Settings() != before


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_16_bits_always_use_tensor_cores_and_float64_never(dtype, used):
    dlgpu.allow_tf32(dtype == "float64")
    x = np.ones((1, 2, 2, 3), dtype)
    on_device(registry["convolution"], x, np.ones((1, 1, 3, 2), dtype), None, "linear", (1, 1), NONE, (1, 1), 1)
    assert bool(used) == (np.dtype(dtype).itemsize == 2)


def test_older_gpus_take_the_plain_kernels(monkeypatch, used):
    monkeypatch.setattr(tensor_cores, "has_tensor_cores", lambda device: False)
    x, kernel = integers((1, 2, 2, 3), "float16"), integers((1, 1, 3, 8), "float16")
    agree("convolution", x, kernel, None, "linear", (1, 1), NONE, (1, 1), 1)
    assert not used


@pytest.mark.parametrize(("capability", "expected"), [("75", False), ("80", True), ("90", True), ("120", True)])
def test_gpus_have_them_from_compute_capability_8_on(capability, expected, monkeypatch):
    cuda = SimpleNamespace(Device=lambda index: SimpleNamespace(compute_capability=capability))
    monkeypatch.setattr("dlgpu.backend.cuda.source.import_module", lambda name: SimpleNamespace(cuda=cuda))
    assert has_tensor_cores.__wrapped__(Device("cuda")) is expected


@pytest.mark.parametrize("scale", [2.0**-30, 2.0**30])
def test_values_of_all_sizes(scale, rng):
    check(rng, (2, 7, 9, 3), (3, 3), 6, scale=scale)


@pytest.mark.parametrize("batch", [0, 1])
def test_batches(batch, rng):
    check(rng, (batch, 7, 9, 3), (3, 3), 5)


@pytest.mark.parametrize("name", ["relu", "tanh", "silu"])
def test_activation_in_the_same_pass(name, rng):
    x, kernel, bias = (rng.standard_normal(s) for s in ((2, 6, 7, 12), (3, 3, 12, 15), (15,)))
    agree("convolution", x, kernel, bias, name, (1, 1), NONE, (1, 1), 1, size=109)


def test_the_gradient_by_the_bias_is_not_rounded():
    """Also where the sums are taken in many slices, of which the last is short."""
    rng = np.random.default_rng(0)
    x, grad = integers((3, 21, 50, 4), "f"), rng.standard_normal((3, 21, 50, 9)).astype("f")
    by_bias = on_device(
        registry["convolution_backward"], grad, x, integers((1, 1, 4, 9), "f"), grad, "linear", (False, True, True),
        (1, 1), NONE, (1, 1), 1,
    )[2]  # fmt: skip
    wanted = grad.sum((0, 1, 2), dtype="d")
    np.testing.assert_allclose(by_bias, wanted, atol=3150**0.5 * 2**-24 * np.abs(grad).sum((0, 1, 2)).max(), rtol=0)
    check(Tf32Numbers(rng), (5, 10, 41, 4), (1, 1), 4)


def test_values_that_are_no_numbers_reach_what_they_touch_and_no_more(rng):
    x, kernel = rng.standard_normal((2, 6, 7, 3)), rng.standard_normal((3, 3, 3, 6))
    grad = rng.standard_normal((2, 6, 7, 6))
    x[0, 1, 2, 0], x[1, 5, 6, 2] = np.nan, np.inf
    grad[1, 2, 3, 4], grad[0, 4, 1, 0] = np.nan, -np.inf
    placed = (1, 1), ((1, 1), (1, 1)), (1, 1), 1
    agree("convolution", x, kernel, None, "relu", *placed, size=27)
    agree("convolution_data_gradient", grad, kernel, (6, 7), *placed, size=54)
    agree("convolution_kernel_gradient", np.nan_to_num(x, posinf=1), grad, (3, 3), *placed, size=84)


@pytest.mark.parametrize(
    ("rows", "inner", "columns"), [(1, 40, 30), (33, 31, 65), (70, 64, 32), (9, 1500, 10), (8, 0, 9)]
)
@pytest.mark.parametrize("turned", [(False, False), (False, True), (True, False), (True, True)], ids=str)
def test_products_of_matrices(turned, rows, inner, columns, rng, used):
    a, b = rng.standard_normal((inner, rows) if turned[0] else (rows, inner)), rng.standard_normal((inner, columns))
    b = np.ascontiguousarray(b.T) if turned[1] else b
    a, b = a.T if turned[0] else a, b.T if turned[1] else b  # of their strides goes what lies in memory
    found, _ = on_device(linear.product, a, b)
    size = np.abs(a).astype("d") @ np.abs(b).astype("d")
    assert (np.abs(found - a.astype("d") @ b.astype("d")) <= inner * 2.0**-24 * size).all()
    long = inner > 1024 and not turned[0]  # the plain kernel splits such a sum, where there are few of them
    assert bool(used) == (rows > 1 and inner > 0 and not long and not all(turned))


@pytest.mark.parametrize("lead", [(), (1,), (1, 1)])
@pytest.mark.parametrize("activation", ["linear", "gelu"])
def test_a_dense_layer_in_one_pass(activation, lead, rng, used):
    a, b, bias = rng.standard_normal((*lead, 20, 24)), rng.standard_normal((24, 40)), rng.standard_normal((40,))
    y, saved = on_device(linear.product, a, b, bias, activation)
    with dlgpu.device("cpu"):
        wanted = registry["dense"].reference(a.astype("d"), b.astype("d"), bias.astype("d"), activation)
    assert used == ["tensor_convolution_forward"]
    for f, w in zip((y, saved), wanted):
        np.testing.assert_allclose(f, w, atol=1e-4, rtol=1e-5)


def test_the_rule_takes_large_tiles_where_there_are_enough_and_they_are_not_half_empty():
    assert tiles_for(100000, 512)[0] == TILES[0]
    assert tiles_for(100000, 64)[0] == Tile(128, 64, 64, 3)
    assert tiles_for(100000, 3)[0] == Tile(128, 32, 32, 4)
    assert tiles_for(10, 512)[0] == TILES[-1]
    assert tiles_for(10, 512, others=64)[0] == TILES[0]
    assert all(t.columns == 32 for t in tiles_for(0, 0))


def test_words_are_long_only_where_all_addresses_are_multiples_of_them():
    array = np.zeros(64, "f")
    start = -array.ctypes.data % 16 // 4
    assert word(array[start:], 4) == word(array[start + 4 :], 8) == 16
    assert word(array[start:], 6) == word(array[start + 1 :], 4) == 4
    assert word(array[start:].view(ml_dtypes.bfloat16), 4) == 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tile", TILES, ids=str)
def test_the_stages_take_the_shared_memory_that_is_asked_for(tile, dtype):
    text = f"""#define TILE {tile}
    #include "tiles.cuh"
    template <bool LEFT, bool RIGHT> __device__ int bytes() {{
        return tile.stages * (Factor<tile.rows, LEFT>::LENGTH + Factor<tile.columns, RIGHT>::LENGTH) * (int)sizeof(T);
    }}
    extern "C" __global__ void stage_sizes(int* out) {{
        out[0] = bytes<true, false>(), out[1] = bytes<true, true>(), out[2] = bytes<false, false>(), out[3] = THREADS;
    }}"""
    out = np.zeros(4, np.int32)
    with dlgpu.device("emulator"):
        Source(text, "sizes.cu").launch("stage_sizes", 1, 1, (out,), dtype=dtype)
    assert [*out] == [*(tile.shared(*deep) for deep in dict.fromkeys(tensor_cores.DEEP.values())), tile.threads]
