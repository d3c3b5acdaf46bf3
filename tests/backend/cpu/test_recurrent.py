"""The recurrent kernels of the CPU column against their reference, both ways, where they could break."""

import threading

import numpy as np
import pytest

import dlgpu
from dlgpu.backend.cpu import recurrent
from dlgpu.backend.dispatch import registry
from tests.backend.comparison import compare, converted

CELLS = {"simple_rnn": (1, 1, ()), "lstm": (4, 2, ()), "gru": (3, 1, (False,)), "gru_after": (3, 1, (True,))}


@pytest.fixture(autouse=True)
def on_the_cpu():
    with dlgpu.device("cpu"):
        yield


@pytest.fixture(params=["one thread", "threads", "large"])
def way(request, monkeypatch):
    """Each way that the size of the work chooses between."""
    monkeypatch.setattr(recurrent, "SHARED", 0 if request.param == "threads" else 1 << 60)
    monkeypatch.setattr(recurrent, "SMALL", 0 if request.param == "large" else 1 << 60)


def problem(rng, cell, batch, time, features, units, masked=False, initial=True, used=(1, 1), **options):
    """The arguments of a forward kernel, and gradients."""
    parts, states, _ = CELLS[cell]
    dtype, width = options.get("dtype", "float32"), parts * units

    def values(*shape, scale=1.0):
        return (rng.standard_normal(shape) * scale).astype(dtype)

    x, kernel = values(batch, time, features), values(features, width, scale=max(1, features) ** -0.5)
    weights = values(units, width, scale=units**-0.5)
    bias = values(2, width) if cell == "gru_after" else values(width)
    if options.get("strided"):
        x, kernel, weights = (np.asfortranarray(a) for a in (x, kernel, weights))
    first = [values(batch, units) if initial else None for _ in range(states)]
    mask = None
    if masked:
        mask = rng.random((batch, time)) < 0.6
        x[~mask] = np.nan
    grads = [values(batch, units, time).transpose(0, 2, 1), *(values(batch, units) for _ in range(states))]
    grads = [g if u else None for g, u in zip(grads, (used[0], *[used[1]] * states))]
    return (x, kernel, weights, bias if options.get("bias", True) else None, *first, mask), tuple(grads)


def both_ways(cell, args, grads, wanted=(1, 1), reference=False):
    """The outputs and the gradients, by the CPU column or by the reference."""
    name, variant = cell.removesuffix("_after"), CELLS[cell][2]
    forward, backward = registry[name], registry[f"{name}_backward"]
    if reference:
        forward, backward = forward.reference, backward.reference
    *outputs, saved = forward(*args, *variant)
    return *outputs, *backward(args[1], args[2], saved, grads, tuple(map(bool, wanted)), *variant)


def check(rng, cell, batch, time, features, units, masked=False, wanted=(1, 1), **options):
    assert "cpu" in registry[cell.removesuffix("_after")].columns
    args, grads = problem(rng, cell, batch, time, features, units, masked, **options)
    given = tuple(None if a is None else a.copy() for a in (*args, *grads))
    found = both_ways(cell, args, grads, wanted)
    expected = both_ways(cell, converted(args, np.float64), converted(grads, np.float64), wanted, reference=True)
    plain = both_ways(cell, converted(args, np.float32), converted(grads, np.float32), wanted, reference=True)
    compare(cell, found, expected, plain, 16 * max(1, batch * time * (units + features)) ** 0.5)
    for array, before in zip((*args, *grads), given):
        np.testing.assert_array_equal(array, before, err_msg="an argument has been changed")
    if masked:
        assert not any(np.isnan(f).any() for f in found if f is not None)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("batch", "time"), [(0, 3), (1, 1), (5, 7)])
def test_sequences_both_ways(cell, masked, batch, time, rng, way):
    check(rng, cell, batch, time, 3, 5, masked)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("units", [1, 8, 31, 32, 33, 1025])
def test_units_that_are_no_multiple_of_a_vector_or_more_than_a_cache(cell, units, rng):
    check(rng, cell, 2, 3, 2, units, masked=units != 33)


@pytest.mark.parametrize("cell", CELLS)
def test_what_may_be_left_out(cell, rng, way):
    check(rng, cell, 2, 4, 3, 5, initial=False, bias=False)
    check(rng, cell, 2, 4, 3, 5, masked=True, used=(1, 0), wanted=(0, 1))
    check(rng, cell, 2, 4, 3, 5, used=(0, 1), wanted=(1, 0))
    check(rng, cell, 2, 4, 3, 5, used=(0, 0), wanted=(0, 0))
    check(rng, cell, 2, 4, 0, 5)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_dtypes(cell, dtype, rng):
    check(rng, cell, 3, 5, 4, 9, masked=True, dtype=dtype)


@pytest.mark.parametrize("cell", CELLS)
def test_float64_is_exact(cell, rng, way):
    args, grads = problem(rng, cell, 7, 9, 4, 19, masked=True, dtype="float64")
    for found, wanted in zip(both_ways(cell, args, grads), both_ways(cell, args, grads, reference=True)):
        np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("cell", CELLS)
def test_inputs_that_are_not_contiguous(cell, rng, way):
    check(rng, cell, 3, 4, 5, 6, masked=True, strided=True)


@pytest.mark.parametrize("cell", CELLS)
def test_inputs_that_must_not_be_written(cell, rng):
    args, grads = problem(rng, cell, 3, 4, 5, 6, masked=True)
    expected = both_ways(cell, args, grads)
    grads = (np.ascontiguousarray(grads[0].transpose(1, 0, 2)).transpose(1, 0, 2), *grads[1:])
    for array in (*args, *grads):
        array.flags.writeable = False
    for found, wanted in zip(both_ways(cell, args, grads), expected):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("cell", CELLS)
def test_a_long_sequence(cell, rng):
    check(rng, cell, 2, 200, 2, 3)


@pytest.mark.parametrize("cell", CELLS)
def test_the_same_bits_by_one_thread_and_by_several(cell, rng, monkeypatch):
    args, grads = problem(rng, cell, 13, 20, 8, 50, masked=True)
    found = []
    for bound in (0, 1 << 60):
        monkeypatch.setattr(recurrent, "SHARED", bound)
        found.append(both_ways(cell, args, grads))
    for one, other in zip(*found):
        np.testing.assert_array_equal(one, other)


def test_threads_of_python_may_run_sequences_at_once(rng, monkeypatch):
    monkeypatch.setattr(recurrent, "SHARED", 0)
    args, grads = problem(rng, "lstm", 8, 30, 4, 20)
    expected, found = both_ways("lstm", args, grads), {}

    def work(name):
        with dlgpu.device("cpu"):
            found[name] = [both_ways("lstm", args, grads) for _ in range(5)]

    workers = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for results in (r for several in found.values() for r in several):
        for one, other in zip(results, expected):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["simple_rnn", "lstm"])
def test_saturated_gates_and_nan(name):
    parts, states, _ = CELLS[name]
    x = np.array([[[1e4], [-1e4]], [[1.0], [np.nan]]], "f")
    args = (x, np.ones((1, parts * 2), "f"), np.ones((2, parts * 2), "f"), None, *[None] * states, None)
    wanted = registry[name].reference(*converted(args, np.float64))
    found = registry[name](*args)
    compare(name, found[:-1], wanted[:-1], wanted[:-1], 16)
