"""The recurrent kernels against their reference, both ways, where they could break."""

import numpy as np
import pytest

import dlgpu
from dlgpu.backend.cuda import persistence, recurrent
from dlgpu.backend.cuda.source import Source
from dlgpu.backend.dispatch import registry
from dlgpu.backend.emulator import launcher
from tests.backend.comparison import compare, converted
from tests.backend.cuda.hostile import attacks, device_under_test, on_device, seen

CELLS = {"simple_rnn": (1, 1, ()), "lstm": (4, 2, ()), "gru": (3, 1, (False,)), "gru_after": (3, 1, (True,))}


def check(rng, cell, batch, time, features, units, masked=False, initial=True, used=(1, 1), wanted=(1, 1), **options):
    """Forward, then backward from what each column saved itself: the columns keep it in shapes of their own."""
    parts, states, variant = CELLS[cell]
    name, dtype, width = cell.removesuffix("_after"), options.get("dtype", "float32"), parts * units

    def values(*shape, scale=1.0):
        return (rng.standard_normal(shape) * scale).astype(dtype)

    x, kernel = values(batch, time, features), values(features, width, scale=features**-0.5)
    weights = values(units, width, scale=units**-0.5)
    bias = values(2, width) if cell == "gru_after" else values(width)
    x.flat[:1] = options.get("first", x.flat[:1])
    if options.get("strided"):
        x, kernel, weights = (np.asfortranarray(a) for a in (x, kernel, weights))
    first = [values(batch, units) if initial else None for _ in range(states)]
    mask = None
    if masked:
        mask = rng.random((batch, time)) < 0.6
        x[~mask] = np.nan
    args = (x, kernel, weights, bias if options.get("bias", True) else None, *first, mask)
    grads = [values(batch, units, time).transpose(0, 2, 1), *(values(batch, units) for _ in range(states))]
    grads = [g if u else None for g, u in zip(grads, (used[0], *[used[1]] * states))]

    seen[name].update(attacks(args))
    seen[f"{name}_backward"].update(attacks((args, grads)))

    def both_ways(forward, backward, args, grads):
        *outputs, saved = forward(*args, *variant)
        return *outputs, *backward(args[1], args[2], saved, grads, tuple(map(bool, wanted)), *variant)

    exact = converted(tuple(args), np.float64), converted(tuple(grads), np.float64)
    kernels = registry[name], registry[f"{name}_backward"]
    wanted_values = both_ways(*(k.reference for k in kernels), *exact)
    device_under_test()  # registers the column
    assert all("cuda" in k.columns for k in kernels)
    found = on_device(lambda args, grads: both_ways(*kernels, args, grads), args, grads)
    ulps = options.get("ulps", 16 * max(1, batch * time * (units + features)) ** 0.5)
    compare(cell, found, tuple(wanted_values), tuple(wanted_values), ulps)
    if masked:
        assert not any(np.isnan(f).any() for f in found if f is not None)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("batch", "time"), [(0, 3), (1, 1), (5, 7), (2, 0), (0, 0)])
def test_sequences_both_ways(cell, masked, batch, time, rng):
    check(rng, cell, batch, time, 3, 5, masked)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("units", [1, 31, 32, 33, 1025])
def test_units_that_are_no_multiple_of_a_warp_or_more_than_a_block(cell, units, rng):
    check(rng, cell, 2, 3, 2, units, masked=units != 33)


# Blocks, and how many hold the weights of 33 units then.
PLACES = {"one": ((256, 16, 4),), "several": ((64, 8, 4),), "none": ()}


@pytest.fixture(params=PLACES)
def place(request, monkeypatch):
    """Where the weights of 33 units are, which all launches of a test must bear out; and these."""
    launched, launch = [], Source.launch

    def note(self, name, grid, *args, cooperative=False, **options):
        if self.filename in ("simple_rnn.cu", "lstm.cu", "gru.cu"):
            launched.append("none" if "_step" in name else "several" if cooperative else "one")
        launch(self, name, grid, *args, cooperative=cooperative, **options)

    monkeypatch.setattr(Source, "launch", note)
    monkeypatch.setattr(persistence, "BLOCKS", dict.fromkeys((2, 4, 8), PLACES[request.param]))
    persistence.layout.cache_clear()
    with dlgpu.device("emulator"):
        yield request.param, launched
    persistence.layout.cache_clear()
    assert set(launched) == {request.param}


@pytest.mark.parametrize("cell", CELLS)
def test_weights_wherever_they_are(cell, place, rng):
    check(rng, cell, 3, 4, 2, 33, masked=True)
    check(rng, cell, 11, 3, 2, 33, initial=False, bias=False)  # several passes, the last one not full
    check(rng, cell, 3, 3, 2, 33, masked=True, used=(0, 1), strided=True)
    check(rng, cell, 3, 1, 1, 33, used=(1, 0))
    name, launched = place
    assert len(launched) == 8 or name == "none"  # a sequence is one launch each way
    check(rng, cell, 3, 0, 1, 33)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_dtypes_wherever_the_weights_are(cell, dtype, place, rng):
    check(rng, cell, 3, 3, 2, 33, masked=True, dtype=dtype)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("place", ["several"], indirect=True)
def test_groups_of_blocks_that_share_samples(cell, place, rng, monkeypatch):
    monkeypatch.setattr(launcher, "RESIDENT", 8)
    check(rng, cell, 7, 12, 2, 33, masked=True)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("slices", "units"), [(4, 9), (2, 25), (3, 40), (4, 3)])
def test_few_units_of_a_block_have_more_lanes_each(cell, slices, units, rng, monkeypatch):
    def several(batch, units, columns, depth, size, blocks, limit):
        found = persistence.divided(batch, units, columns, depth, size, limit, slices, 1)
        assert found.shape[1] == {9: 32, 25: 16, 40: 16, 3: 32}[units]
        return found

    monkeypatch.setattr(recurrent, "layout", several)
    with dlgpu.device("emulator"):
        check(rng, cell, 6, 3, 2, units, masked=True)


H200 = {"blocks": 132, "limit": 227 * 1024}


@pytest.mark.parametrize("batch", [1, 32, 128, 500])
@pytest.mark.parametrize("columns", [1, 3, 4])
@pytest.mark.parametrize("way", ["forward", "gradient"])
def test_layouts_of_the_sizes_that_are_usual(columns, batch, way):
    """What fits one multiprocessor has one block, what fits all has several, and no block takes more than there is."""

    def of(units, size=4):
        sums, depth = (columns, units) if way == "forward" else (1, columns * units)
        found = persistence.layout(batch, units, sums, depth, size, **H200)
        if found:
            assert found.slices * found.width >= units
            assert found.groups * found.rows >= batch
            assert found.slices == 1 or found.slices * found.groups <= H200["blocks"]
            assert found.shared <= H200["limit"]
            assert found.threads <= found.shape[0]
        return found

    assert of(50).slices == of(50, 8).slices == of(128).slices == 1
    assert of(50).shape[0] == 256
    assert of(1024).slices > 1
    assert of(512, 2).slices > 1
    assert of(40000) is None
    assert of(1, 8).slices == 1


@pytest.mark.parametrize("cell", CELLS)
def test_what_may_be_left_out(cell, rng):
    check(rng, cell, 2, 4, 3, 5, initial=False, bias=False)
    check(rng, cell, 2, 4, 3, 5, masked=True, used=(1, 0), wanted=(0, 1))
    check(rng, cell, 2, 4, 3, 5, used=(0, 1), wanted=(1, 0))
    check(rng, cell, 2, 4, 3, 5, used=(0, 0), wanted=(0, 0))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_dtypes(cell, dtype, rng):
    check(rng, cell, 3, 5, 4, 9, masked=True, dtype=dtype)


@pytest.mark.parametrize("cell", CELLS)
def test_inputs_that_are_not_contiguous(cell, rng):
    check(rng, cell, 3, 4, 5, 6, masked=True, strided=True)


@pytest.mark.parametrize("cell", CELLS)
def test_a_long_sequence(cell, rng):
    check(rng, cell, 2, 200, 2, 3)


@pytest.mark.parametrize("name", ["simple_rnn", "lstm"])
def test_saturated_gates_and_nan(name, rng):
    parts, states, _ = CELLS[name]
    x = np.array([[[1e4], [-1e4]], [[1.0], [np.nan]]], "f")
    args = (x, np.ones((1, parts * 2), "f"), np.ones((2, parts * 2), "f"), None, *[None] * states, None)
    wanted = registry[name].reference(*converted(args, np.float64))
    found = on_device(registry[name], *args)
    compare(name, found[:-1], wanted[:-1], wanted[:-1], 16)
