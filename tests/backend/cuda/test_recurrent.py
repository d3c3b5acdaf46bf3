"""The recurrent kernels against their reference, both ways, where they could break."""

import numpy as np
import pytest

import dlgpu
from dlgpu.backend.cuda.source import Source, shared_limit
from dlgpu.backend.devices import EMULATOR
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
    ulps = 16 * max(1, batch * time * (units + features)) ** 0.5
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


@pytest.mark.parametrize("cell", CELLS)
def test_units_that_do_not_fit_a_block_both_ways_run_without_the_kernels(cell, rng, monkeypatch):
    launched = []
    monkeypatch.setattr(Source, "launch", lambda self, name, *args, **options: launched.append(name))
    most = {"simple_rnn": 2, "lstm": 9}.get(cell, 7)
    monkeypatch.setattr(launcher, "SHARED", 33 * 4 * most - 1)
    with dlgpu.device("emulator"):
        check(rng, cell, 3, 4, 2, 33, masked=True)
        assert not launched
        monkeypatch.undo()
        monkeypatch.setattr(launcher, "SHARED", 33 * 4 * most)
        check(rng, cell, 3, 4, 2, 33, masked=True)


def test_more_units_than_shared_memory_holds(rng):
    units = shared_limit(EMULATOR) // (9 * 8) + 1
    with dlgpu.device("emulator"):
        check(rng, "lstm", 2, 2, 3, units, dtype="float64")


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
