"""What holds the CPU column to its references: the same values, eagerly and when a recorded step is replayed."""

from collections.abc import Callable
from typing import Any

import numpy as np

import dlgpu
from dlgpu.backend.dispatch import registry
from dlgpu.backend.recorder import Memory, Recording
from dlgpu.backend.traced import traced
from tests.backend.comparison import arrays_in, compare_with_reference, copied, leaves, mapped

HOST = "cpu"  # the device that runs this column on arrays in the host's memory


class Scrambled(Memory):
    """Memory of a recording that holds nothing of use."""

    def empty(self, shape, dtype):
        made = super().empty(shape, dtype)
        np.ndarray(made.nbytes, np.uint8, made)[...] = 0x7B
        return made


def agree(name: str, *args: object, ulps: float = 8, size: int = 1, **options: object) -> None:
    """Assert that a kernel's CPU version gives what its reference gives, and when it is replayed gives its own bits.

    Each error may be `ulps` units in the last place, as `compare_with_reference` counts them, times the square root of
    `size`, the terms summed in each value.
    """
    tried(name, *args)
    compare_with_reference(name, on_device, args, options, ulps * size**0.5)
    with np.errstate(all="ignore"), dlgpu.device("cpu"):
        replays_as_it_runs(name, args, options)


def tried(name: str, *args: object) -> None:
    """Assert that the column has a kernel which is about to be compared on these arguments."""
    assert "cpu" in registry[name].columns, f"{name} has no version on the CPU"


def on_device(function: Callable, *args: Any, **options: Any) -> Any:
    """Call a function of arrays on the CPU."""
    with dlgpu.device("cpu"):
        return function(*args, **options)


def replays_as_it_runs(name: str, args: tuple, options: dict) -> None:
    """Assert that a kernel's recorded calls, replayed on other values in the same arrays, give the kernel's bits."""
    recorded, others = copied(args), copied(args)
    for array in arrays_in(others):
        array[...] = array.ravel()[::-1].reshape(array.shape)
    recording = Recording(Scrambled())
    with recording.active():
        found = registry[name](*mapped(traced, recorded), **options)
    for array, other in zip(arrays_in(recorded), arrays_in(others)):
        array[...] = other
    recording.replay()
    wanted = registry[name](*others, **options)
    for f, w in zip(leaves((found, recorded)), leaves((wanted, others)), strict=True):
        np.testing.assert_array_equal(np.asarray(f), w, err_msg=f"{name}, replayed")
