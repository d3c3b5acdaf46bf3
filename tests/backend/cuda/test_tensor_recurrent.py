"""Recurrent networks on tensor cores: both ways against the reference, and for which networks they are."""

import numpy as np
import pytest

import dlgpu
from dlgpu import layers
from dlgpu.backend.cuda import persistence
from dlgpu.backend.cuda.persistence import TILE_COLUMNS, TILE_ROWS, is_large, tiles
from dlgpu.backend.cuda.source import Source
from dlgpu.backend.dispatch import registry
from dlgpu.backend.emulator import launcher
from tests.backend.cuda.hostile import on_device
from tests.backend.cuda.test_recurrent import CELLS, H200, check

# What is multiplied is rounded to 11 bits, in bfloat16 to 8: errors are some units of its last place, in any sum.
UNITS = {"float32": 8 * 2**13, "float16": 8, "bfloat16": 8}


@pytest.fixture
def launched(monkeypatch):
    """The launches of recurrent kernels, (file, kernel, grid), of which 8 blocks run at once, and any size is large."""
    found, launch = [], Source.launch

    def note(self, name, grid, *args, **options):
        if any(cell in self.filename for cell in ("simple_rnn", "lstm", "gru")):
            found.append((self.filename, name, grid))
        launch(self, name, grid, *args, **options)

    monkeypatch.setattr(Source, "launch", note)
    monkeypatch.setattr(launcher, "RESIDENT", 8)
    monkeypatch.setattr(persistence, "LARGE", 0)
    monkeypatch.setattr(persistence, "FEWEST", 1)
    dlgpu.allow_tf32()
    with dlgpu.device("emulator"):
        yield found
    dlgpu.allow_tf32(False)


def agrees(rng, launched, cell, batch, time, units, dtype="float32", **options):
    """Both ways as `check` has it, by one launch each."""
    check(rng, cell, batch, time, 2, units, dtype=dtype, ulps=UNITS[dtype], **options)
    file = f"tensor_{cell.removesuffix('_after')}"
    assert [(name, kernel) for name, kernel, _ in launched] == [
        (f"{file}.cu", f"{file}_{way}") for way in ("forward", "gradient")
    ]
    grids = [grid for *_, grid in launched]
    launched.clear()
    return grids


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", UNITS)
def test_sequences_both_ways(cell, dtype, rng, launched):
    """33 units are no multiple of a tile's sides, 37 samples none of a tile's rows."""
    agrees(rng, launched, cell, 37, 6, 33, dtype, masked=True)
    agrees(rng, launched, cell, 16, 3, 32, dtype, initial=False, bias=False)


@pytest.mark.parametrize("cell", CELLS)
def test_what_may_be_left_out_or_lie_otherwise(cell, rng, launched):
    agrees(rng, launched, cell, 17, 3, 9, masked=True, used=(0, 1), strided=True)
    agrees(rng, launched, cell, 17, 1, 9, used=(1, 0), wanted=(0, 1))
    agrees(rng, launched, cell, 1, 2, 1)
    check(rng, cell, 17, 0, 2, 9, ulps=UNITS["float32"])
    check(rng, cell, 0, 3, 2, 9, ulps=UNITS["float32"])


@pytest.mark.parametrize("cell", CELLS)
def test_samples_in_several_groups_of_blocks_or_more_tiles_than_there_are_stages(cell, rng, launched, monkeypatch):
    (_, across, deep), _ = agrees(rng, launched, cell, 70, 2, 15, masked=True)
    assert (across, deep) == (1, 3)
    monkeypatch.setattr(launcher, "RESIDENT", 2)
    (_, across, deep), _ = agrees(rng, launched, cell, 290, 2, 9, masked=True)
    assert (across, deep) == (1, 2)  # groups, with five tiles of samples each


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tiles_as_deep_as_they_can_be(dtype, rng, launched, monkeypatch):
    monkeypatch.setattr(launcher, "RESIDENT", 2)
    monkeypatch.setattr(launcher, "SHARED", H200["limit"])
    units = 250 if dtype == "float32" else 500
    for found in agrees(rng, launched, "simple_rnn", 33, 2, 250, dtype, masked=True):
        assert found == (1, 2, 1)
    assert tiles(33, units, 250, 4 if dtype == "float32" else 2, 2, H200["limit"]).each == persistence.HELD


@pytest.mark.parametrize(("state", "weight"), [(1 + 2**-11, 1), (1, 1 + 2**-11), (1 + 2**-12, 1 + 2**-12)])
def test_states_and_weights_are_rounded_to_tf32(state, weight, launched):
    """Ties away from zero, 1 + 2**-11 to 1 + 2**-10; the emulator, unlike tensor cores, would multiply what is not."""
    x, kernel = np.zeros((16, 1, 1), "f"), np.zeros((1, 3), "f")
    first = np.full((16, 3), state, "f")
    last = on_device(registry["simple_rnn"], x, kernel, np.eye(3, dtype="f") * np.float32(weight), None, first, None)[1]
    assert launched
    rounded = 1 if state == weight else 1 + 2**-10
    np.testing.assert_allclose(last, np.tanh(rounded), rtol=2**-22)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_cell_states_of_16_bits_are_carried_in_float32(dtype, launched):
    """Each step adds 2**-9 to 1, which either dtype would drop."""
    time, units, dropped = 64, 3, np.float64(2.0**-13 if dtype == "float16" else 2.0**-9)
    bias = np.repeat([0, 20, np.arctanh(2 * dropped), 0], units).astype(dtype)
    zeros = np.zeros((16, time, 1), dtype), np.zeros((1, 4 * units), dtype), np.zeros((units, 4 * units), dtype)
    first = np.zeros((16, units), dtype), np.ones((16, units), dtype)
    _, _, cell, _ = on_device(registry["lstm"], *zeros, bias, *first, None)
    assert launched
    np.testing.assert_allclose(
        cell.astype("d"), 1 + time * dropped, atol=2 * 2.0 ** (-10 if dtype == "float16" else -7)
    )
    assert (cell.astype("d") > 1 + time * dropped / 2).all()


def test_a_value_that_is_no_number_stays_in_its_sample(launched):
    x = np.zeros((20, 2, 1), "f")
    x[3, 0] = np.nan
    ones = np.ones((1, 20), "f"), np.full((5, 20), 0.1, "f")
    states, last, cell, _ = on_device(registry["lstm"], x, *ones, None, None, None, None)
    for found in (states, last, cell):
        assert np.isnan(found[3]).all()
        assert not np.isnan(np.delete(found, 3, 0)).any()


@pytest.mark.parametrize("layer", [layers.SimpleRNN, layers.LSTM, layers.GRU])
def test_a_masked_layer_that_goes_backwards(layer, rng, launched):
    made = layer(33, go_backwards=True, return_sequences=True, return_state=True)
    x, mask = rng.standard_normal((21, 5, 3)).astype("f"), rng.random((21, 5)) < 0.7
    found = [y.numpy() for y in made(x, mask=mask)]
    assert len(launched) == 1
    dlgpu.allow_tf32(False)
    for f, wanted in zip(found, made(x, mask=mask)):
        np.testing.assert_allclose(f, wanted.numpy(), atol=0.01)
    assert not launched[-1][0].startswith("tensor")


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("allowed", [False, True])
def test_16_bits_always_use_tensor_cores_float32_where_it_is_allowed_and_float64_never(dtype, allowed, rng, launched):
    dlgpu.allow_tf32(allowed)
    check(rng, "lstm", 3, 2, 2, 5, dtype=dtype, **({"ulps": UNITS[dtype]} if allowed and dtype in UNITS else {}))
    wanted = dtype != "float64" and (allowed or dtype != "float32")
    assert {file for file, *_ in launched} == {"tensor_lstm.cu" if wanted else "lstm.cu"}


@pytest.mark.parametrize(
    ("batch", "large", "tensor"), [(16, 16 * 5 * 20, True), (15, 1, False), (16, 16 * 5 * 20 + 1, False)]
)
def test_small_steps_and_few_samples_take_the_plain_kernels(batch, large, tensor, rng, launched, monkeypatch):
    monkeypatch.setattr(persistence, "FEWEST", 16)
    monkeypatch.setattr(persistence, "LARGE", large)
    check(rng, "lstm", batch, 2, 2, 5, ulps=UNITS["float32"])
    assert {name.startswith("tensor") for _, name, _ in launched} == {tensor}


@pytest.mark.parametrize("cell", CELLS)
def test_large_steps_whose_weights_or_sums_are_held_nowhere_are_products(cell, rng, launched, monkeypatch):
    monkeypatch.setattr(launcher, "RESIDENT", 1)
    check(rng, cell, 17, 2, 2, 140, ulps=UNITS["float32"])
    monkeypatch.setattr(persistence, "CACHE", 32 * 128 * 4 - 1)
    tiles.cache_clear()
    check(rng, cell, 17, 2, 2, 9, ulps=UNITS["float32"])
    tiles.cache_clear()
    assert all("_step" in name for _, name, _ in launched)


@pytest.mark.parametrize("dtype", UNITS)
def test_the_layout_knows_what_the_kernels_are_made_for(dtype):
    text = """#include "tensor_recurrent.cuh"
    extern "C" __global__ void tile_sizes(int* out) {
        int found[] = {TILE_ROWS, TILE_COLUMNS, HELD, STEP * (int)sizeof(T), STAGES, THREADS};
        for (int i = 0; i < 6; i++) out[i] = found[i];
    }"""
    out = np.zeros(6, np.int32)
    with dlgpu.device("emulator"):
        Source(text, "sizes.cu").launch("tile_sizes", 1, 1, (out,), dtype=dtype)
    sizes = TILE_ROWS, TILE_COLUMNS, persistence.HELD, persistence.DEPTH, persistence.STAGES, persistence.Tiles.threads
    assert (*out,) == sizes


SIZES = [(units, batch) for units in (512, 1024) for batch in (32, 128)]


@pytest.mark.parametrize(("units", "batch"), SIZES)
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize(("parts", "columns"), [(1, 3), (1, 4), (3, 1), (4, 1)])
def test_tiles_cover_weights_and_samples_and_fit_a_gpu(units, batch, size, parts, columns):
    depth, columns = parts * units, columns * units
    found = tiles(batch, depth, columns, size, **H200)
    assert found.across * found.slices * found.groups <= H200["blocks"]
    assert found.shared <= H200["limit"]
    assert found.groups * found.rows >= batch > (found.groups - 1) * found.rows
    assert found.rows % TILE_ROWS == 0
    assert found.across * TILE_COLUMNS >= columns
    assert found.stride == found.slices * found.each * 2 * persistence.DEPTH // size >= depth
    assert found.each <= persistence.HELD


def test_the_border_is_where_multiplying_takes_longer_than_another_barrier():
    def lstm(units, batch):
        return is_large(batch, units, 4 * units)

    assert not lstm(256, 128)
    assert not lstm(512, 32)
    assert lstm(512, 128)
    assert lstm(1024, 32)
    assert not lstm(1024, 15)
    assert tiles(128, 2048, 8192, 4, **H200) is None  # more than all registers
    assert tiles(1 << 14, 512, 2048, 4, **H200) is None  # sums that no cache holds


def test_the_same_sizes_give_the_same_bits(launched):
    rng = np.random.default_rng(0)
    args = [rng.standard_normal(shape).astype("f") for shape in ((40, 3, 2), (2, 80), (20, 80))]
    once, again = (on_device(registry["lstm"], *args, None, None, None, None)[0] for _ in range(2))
    assert once.tobytes() == again.tobytes()
