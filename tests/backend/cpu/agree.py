"""What holds the CPU column to its references: the same values, eagerly and when a recorded step is replayed."""

from collections.abc import Callable
from typing import Any

import numpy as np

import dlgpu
from dlgpu.backend.cpu import column  # noqa: F401
from dlgpu.backend.dispatch import registry
from dlgpu.backend.recorder import Memory, Recording
from dlgpu.backend.traced import plain, traced
from tests.backend.cuda.hostile import _copied, compare, converted

HOST = "cpu"  # the device that runs this column on arrays in the host's memory


class Scrambled(Memory):
    """Memory of a recording that holds nothing of use."""

    def empty(self, shape, dtype):
        made = super().empty(shape, dtype)
        np.ndarray(made.nbytes, np.uint8, made)[...] = 0x7B
        return made


def agree(name: str, *args: object, ulps: float = 8, size: int = 1, **options: object) -> None:
    """Assert that a kernel's CPU version gives what its reference gives in float64 on the same values.

    Each error may be `ulps` units in the last place, as `hostile.compare` counts them, times the square root of
    `size`, the terms summed in each value. Then that its recorded calls, replayed on other values in the same arrays,
    give the bits that the kernel gives for those.
    """
    tried(name, *args)
    kernel = registry[name]
    exact, given, rounded = converted(args, np.float64), _copied(args), converted(_copied(args), np.float32)
    with np.errstate(all="ignore"), dlgpu.device("cpu"):
        wanted, plain = kernel.reference(*exact, **options), kernel.reference(*rounded, **options)
        found = kernel.columns["cpu"](*given, **options)
        compare(name, found, wanted, plain, ulps * size**0.5)
        compare(f"{name}, arguments", given, exact, rounded, ulps * size**0.5)
        replays_as_it_runs(name, args, options)


def tried(name: str, *args: object) -> None:
    """Assert that the column has a kernel which is about to be compared on these arguments."""
    assert "cpu" in registry[name].columns, f"{name} has no version on the CPU"


def on_device(function: Callable, *args: Any, **options: Any) -> Any:
    """Call a function of arrays on the CPU."""
    with dlgpu.device("cpu"):
        return function(*args, **options)


def replays_as_it_runs(name: str, args: tuple, options: dict) -> None:
    recorded, others = _copied(args), _copied(args)
    for array in arrays(others):
        array[...] = array.ravel()[::-1].reshape(array.shape)
    recording = Recording(Scrambled())
    with recording.active():
        found = registry[name](*mapped(traced, recorded), **options)
    for array, other in zip(arrays(recorded), arrays(others)):
        array[...] = other
    recording.replay()
    wanted = registry[name](*others, **options)
    for f, w in zip(
        arrays((mapped(np.asarray, found), recorded)), arrays((mapped(np.asarray, wanted), others)), strict=True
    ):
        np.testing.assert_array_equal(plain(f), w, err_msg=f"{name}, replayed")


def arrays(value: object) -> list:
    """All arrays in nested tuples."""
    if isinstance(value, tuple | list):
        return [array for item in value for array in arrays(item)]
    return [value] if isinstance(value, np.ndarray) else []


def mapped(function: Callable, value: object) -> object:
    """The function of all arrays in nested tuples."""
    if isinstance(value, tuple | list):
        return type(value)([mapped(function, item) for item in value])
    return function(value) if isinstance(value, np.ndarray | np.generic) else value
