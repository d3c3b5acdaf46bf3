"""What holds the CPU column to its references: the same values, eagerly and when a recorded step is replayed."""

import numpy as np

from dlgpu.backend import recorder
from dlgpu.backend.dispatch import registry
from tests.backend.cuda.hostile import _copied, compare, converted


class Recording:
    """The calls of a kernel and the memory that it asked for, which holds nothing of use."""

    def __init__(self):
        self.calls = []
        self.memory = self

    def add(self, function, args):
        self.calls.append((function, args))

    def empty(self, shape, dtype):
        made = np.empty(shape, dtype)
        made.view(np.uint8 if made.ndim and made.size else made.dtype)[...] = 0x7B
        return made

    def __enter__(self):
        recorder._state.recording = self
        return self

    def __exit__(self, *exception):
        recorder._state.recording = None

    def replay(self):
        for function, args in self.calls:
            function(*args)


def agree(name: str, *args: object, ulps: float = 8, size: int = 1, **options: object) -> None:
    """Assert that a kernel's CPU version gives what its reference gives in float64 on the same values.

    Each error may be `ulps` units in the last place, as `hostile.compare` counts them, times the square root of
    `size`, the terms summed in each value. Then that its recorded calls, replayed on other values in the same arrays,
    give the bits that the kernel gives for those.
    """
    kernel = registry[name]
    implementation = kernel.columns["cpu"]
    exact, given, rounded = converted(args, np.float64), _copied(args), converted(_copied(args), np.float32)
    with np.errstate(all="ignore"):
        wanted, plain = kernel.reference(*exact, **options), kernel.reference(*rounded, **options)
        found = implementation(*given, **options)
        compare(name, found, wanted, plain, ulps * size**0.5)
        compare(f"{name}, arguments", given, exact, rounded, ulps * size**0.5)
        if not any(a.dtype == np.float16 for a in arrays(args)):
            replays_as_it_runs(name, implementation, args, options)


def replays_as_it_runs(name: str, implementation: object, args: tuple, options: dict) -> None:
    recorded, others = _copied(args), _copied(args)
    for array in arrays(others):
        array[...] = array.ravel()[::-1].reshape(array.shape)
    with Recording() as recording:
        found = implementation(*recorded, **options)
    for array, other in zip(arrays(recorded), arrays(others)):
        array[...] = other
    recording.replay()
    wanted = implementation(*others, **options)
    for f, w in zip(arrays((found, recorded)), arrays((wanted, others)), strict=True):
        np.testing.assert_array_equal(f, w, err_msg=f"{name}, replayed")


def arrays(value: object) -> list:
    """All arrays in nested tuples."""
    if isinstance(value, tuple | list):
        return [array for item in value for array in arrays(item)]
    return [value] if isinstance(value, np.ndarray) else []
