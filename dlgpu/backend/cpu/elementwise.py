"""What a recorded step does by NumPy between the loops, as loops, so that all of it is one native call."""

from collections.abc import Callable
from typing import Any

import numpy as np

from dlgpu.backend.cpu.jit import inline_jit, jit
from dlgpu.backend.cpu.threads import alone, as_loop, spread
from dlgpu.backend.recorder import compiled

GRAIN = 2**17  # values that are worth a thread


@jit
def copy(values, output, start, stop):
    for i in range(start, stop):
        output[i] = values[i]


@jit
def fill(value, output, start, stop):
    for i in range(start, stop):
        output[i] = value


def loops(function: Any) -> dict:
    """Loops over output = function(a, b): of two arrays, of an array and a number, and of a number and an array."""

    @jit
    def of_arrays(a, b, output, start, stop):
        for i in range(start, stop):
            output[i] = function(a[i], b[i])

    @jit
    def by_number(a, b, output, start, stop):
        number = output.dtype.type(b)
        for i in range(start, stop):
            output[i] = function(a[i], number)

    @jit
    def of_number(a, b, output, start, stop):
        number = output.dtype.type(a)
        for i in range(start, stop):
            output[i] = function(number, b[i])

    return {(False, False): of_arrays, (False, True): by_number, (True, False): of_number}


LOOPS: dict[Any, dict] = {  # for each function, by which of its inputs are numbers
    np.copyto: {(False,): copy, (True,): fill},
    np.add: loops(inline_jit(lambda a, b: a + b)),
    np.subtract: loops(inline_jit(lambda a, b: a - b)),
    np.multiply: loops(inline_jit(lambda a, b: a * b)),
    np.true_divide: loops(inline_jit(lambda a, b: a / b)),
}


def by_loop(function: Any, args: Any) -> tuple[Callable, Any]:
    """np.copyto(output, value) or function(a, b, output) as a loop, if shapes and dtypes are the same."""
    *inputs, output = args[::-1] if function is np.copyto else args
    if _plain(output, output):
        numbers = [type(a) in (int, float, output.dtype.type) for a in inputs]
        loop = LOOPS[function].get(tuple(numbers))
        if loop is not None and all(n or (_plain(a, output) and _apart(a, output)) for n, a in zip(numbers, inputs)):
            flat = [float(a) if n else a.reshape(-1) for n, a in zip([*numbers, False], [*inputs, output])]
            if alone(output.size, GRAIN):
                return loop, [*flat, 0, output.size]
            return as_loop(spread, [loop, output.size, GRAIN, *flat])
    return function, args


def _plain(array: Any, like: Any) -> bool:
    if not isinstance(array, np.ndarray) or array.dtype != like.dtype or array.dtype.char not in "fd":
        return False
    return array.shape == like.shape and array.flags.c_contiguous


def _apart(array: np.ndarray, output: np.ndarray) -> bool:
    """Whether no value is overwritten before it is read."""
    return array.ctypes.data == output.ctypes.data or not np.may_share_memory(array, output)


compiled.update(dict.fromkeys(LOOPS, by_loop))
