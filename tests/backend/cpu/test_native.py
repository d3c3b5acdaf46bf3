"""Loops as native functions: what they take, how they are kept and how they are joined."""

import subprocess
import sys
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest

from dlgpu.backend.cpu.elementwise import LOOPS, by_loop, fill
from dlgpu.backend.cpu.jit import jit
from dlgpu.backend.cpu.threads import Joined
from dlgpu.backend.recorder import Recording, Wide, call, empty, kept


class Pair(NamedTuple):
    low: int
    high: float


@jit
def numbers(flag, whole, real, single, word, long, nothing, wide, pair, out):
    out[0], out[1], out[2], out[3] = flag, whole, real, single
    out[4], out[5], out[6] = word, long >> np.uint64(32), nothing is None
    out[7], out[8], out[9], out[10] = wide[0], wide[1], pair.low, pair.high


def test_every_kind_of_number_arrives():
    for flag, whole in ((True, -(2**53)), (False, 2**53)):
        out = np.empty(11)
        given = np.float32(0.1), np.uint32(2**32 - 1), np.uint64(2**64 - 1), None, Wide((7 << 64) + 9), Pair(-3, 0.5)
        numbers(flag, whole, -1e300, *given, out)
        expected = [flag, whole, -1e300, np.float32(0.1), 2**32 - 1, 2**32 - 1, True, 9, 7, -3, 0.5]
        np.testing.assert_array_equal(out, expected)


@jit
def total_of(values, out):
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            out[()] += values[i, j] * (10 * i + j + 1)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "uint8", "int64", "bool"])
@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (4, 3)])
def test_arrays_of_any_dtype_and_layout_arrive(dtype, shape, rng):
    values = rng.integers(0, 2, shape).astype(dtype)
    wider = np.zeros((2 * shape[0], 2 * shape[1]), dtype)
    wider[::2, ::-2] = values
    for given in (values, np.asfortranarray(values), wider[::2, ::-2]):
        out = np.zeros(())
        total_of(given, out)
        assert out == sum(v * (10 * i + j + 1) for (i, j), v in np.ndenumerate(values.astype(float)))


def test_an_array_that_is_not_aligned_arrives():
    raw = np.zeros(33, np.uint8)
    values = raw[1:].view(np.float64).reshape(2, 2)
    values[...] = [[1, 2], [3, 4]]
    assert not values.flags.aligned
    out = np.zeros(())
    total_of(values, out)
    assert out == 1 + 2 * 2 + 3 * 11 + 4 * 12


def test_a_loop_that_makes_arrays_or_raises_is_refused():
    @jit
    def makes(x):
        x[0] = np.empty(3).size

    @jit
    def fails(x):
        if x[0] > 0:
            raise ValueError("no")

    with pytest.raises(TypeError, match="makes cannot be compiled"):
        makes(np.ones(3))
    with pytest.raises(RuntimeError, match="fails raised an error"):
        fails(np.ones(3))


def test_an_argument_that_loops_do_not_take_is_named():
    with pytest.raises(TypeError, match="total_of: loops take arrays, numbers and None, not <class 'str'>"):
        total_of("text", np.zeros(()))


CODE = """
import sys, numpy as np
from dlgpu.backend.cpu import activation
x = np.linspace(-3, 3, 7, dtype=np.float32)
print(activation.bias_activation(x.reshape(1, 7), np.ones(7, np.float32), "tanh")[0].tobytes().hex())
print("numba" in sys.modules)
"""


def told(folder, monkeypatch):
    """What CODE prints in a process of its own, whose object files are in a folder."""
    monkeypatch.setenv("DLGPU_CACHE_DIR", str(folder))
    return subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout.split()


def test_what_was_compiled_once_is_loaded_without_numba(tmp_path, monkeypatch):
    (first, compiled), (second, loaded) = (told(tmp_path, monkeypatch) for _ in range(2))
    assert first == second
    assert (compiled, loaded) == ("True", "False")


def test_a_file_that_is_not_whole_is_made_anew(tmp_path, monkeypatch):
    first = told(tmp_path, monkeypatch)
    for path in tmp_path.rglob("*.o"):
        path.write_bytes(path.read_bytes()[:-100])
    assert told(tmp_path, monkeypatch) == first


def test_where_nothing_can_be_kept_loops_run_all_the_same(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    assert told(tmp_path / "file", monkeypatch)[1] == "True"


def test_constants_tell_loops_apart():
    loops = [jit(eval(f"lambda out: out.fill({n})", {})) for n in (1.0, 2.0)]
    for loop, n in zip(loops, (1.0, 2.0)):
        out = np.zeros(2)
        loop(out)
        assert out.tolist() == [n, n]


def test_another_byte_order_is_refused():
    with pytest.raises(TypeError, match="byte order, not of >f8"):
        total_of(np.ones((2, 2), ">f8"), np.zeros(()))


@jit
def add_to(out, n, place):
    out[place] += n


@jit
def note(out, position):
    out[0], out[1] = position[0], position[1]


def test_joined_calls_are_made_in_order_with_numbers_drawn_anew():
    class Source:
        state = 2**64 - 2

        def advance(self, words):
            self.state += words
            return (self.state,)

    source, recording = Source(), Recording()
    out, places = np.zeros(3), np.zeros(2, np.uint64)
    with recording.active():
        (position,) = recording.draw(source, 1)
        call(add_to, out, 1.0, 0)
        call(np.multiply, out, 2.0, out)
        call(note, places, position)
        call(np.log1p, out, out)
        call(add_to, out, 5, 2)
    recording.finish()
    assert [type(function) for function, _ in recording.program] == [Joined, np.ufunc, Joined]
    expected = out.copy()
    for replay in range(3):
        recording.replay()
        expected[0] += 1
        expected = np.log1p(expected * 2)
        expected[2] += 5
        np.testing.assert_array_equal(out, expected)
        assert int(places[0]) + (int(places[1]) << 64) == 2**64 + replay


@pytest.mark.parametrize("function", LOOPS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_numpy_does_between_loops_has_its_bits(function, dtype, rng):
    a, b = rng.standard_normal((2, 5, 7)).astype(dtype)
    a[0, 0], a[1, 1], b[1, 1] = np.nan, np.inf, 0
    inputs = [(b,), (3,), (0.1,)] if function is np.copyto else [(a, b), (a, 0.1), (2, b)]
    for given in inputs:
        output, expected = np.empty_like(a), np.empty_like(a)
        args = [output, *given] if function is np.copyto else [*given, output]
        loop, flat = by_loop(function, args)
        assert loop in LOOPS[function].values()
        loop(*flat)
        with np.errstate(invalid="ignore", divide="ignore"):
            function(*(expected if v is output else v for v in args))
        assert output.tobytes() == expected.tobytes()


def test_what_no_loop_does_as_numpy_is_left_to_it():
    x, out = np.ones((4, 3), np.float32), np.ones((4, 3), np.float32)
    row = np.arange(8.0)
    assert by_loop(np.add, [row[:-1], row[1:], row[1:]])[0] is np.add  # it would read what it has written
    for args in ([x, x[:1], out], [x.astype("d"), x, out], [x.T, x.T, out.T], [1, 2, out], [x, True, out], [x, x]):
        assert by_loop(np.add, args) == (np.add, args)
    assert by_loop(np.copyto, [out.astype(int), 1])[0] is np.copyto


def recorded(steps):
    """What `steps` records about arrays on a recording's memory and a `target`, and the target."""
    recording, target = Recording(), np.zeros(6)
    with recording.active():
        steps(target)
    recording.finish()
    return recording, target


def make(value=1.0):
    made = empty(6, np.float64)
    call(fill, value, made, 0, 6)
    return made


def test_what_is_made_only_to_be_copied_is_made_there():
    def steps(target):
        made = make()
        call(np.add, made[:3], 2.0, made[:3])
        call(np.copyto, target, made)

    recording, target = recorded(steps)
    ((joined, _),) = recording.program
    assert len(joined.calls) == 2
    target[...] = 0
    recording.replay()
    assert target.tolist() == [3, 3, 3, 1, 1, 1]


def used_afterwards(target):
    made = make()
    call(np.copyto, target, made)
    call(np.multiply, target, 2.0, target)
    call(np.add, target, made, target)


def read_before(target):
    call(fill, 5.0, target, 0, 6)
    made = make()
    call(np.add, target, made, made)
    call(np.copyto, target, made)


def part_of_another(target):
    made = empty(8, np.float64)
    call(fill, 1.0, made, 0, 8)
    call(np.add, made[6:], made[:2], made[:2])
    call(np.copyto, target, made[:6])


def turned_around(target):
    made = make()
    call(np.multiply, made, np.arange(6.0), made)
    call(np.copyto, target, made[::-1])


def transposed(target):
    made = empty((6, 6), np.float64)
    call(np.copyto, made, np.arange(36.0).reshape(6, 6))
    square = np.zeros((6, 6))
    call(np.copyto, square, made.T)
    call(np.copyto, target, square[1])


def written_by_keyword(target):
    made = make()
    call(partial(np.add, out=kept(made)), np.arange(6.0), 1.0)
    call(np.copyto, target, made)


@pytest.mark.parametrize(
    "steps", [used_afterwards, read_before, part_of_another, turned_around, transposed, written_by_keyword]
)
def test_what_is_needed_elsewhere_is_copied(steps):
    recording, target = recorded(steps)
    expected = target.copy()
    for _ in range(2):
        target[...] = 0
        recording.replay()
        np.testing.assert_array_equal(target, expected)
