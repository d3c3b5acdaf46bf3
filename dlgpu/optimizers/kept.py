"""What an optimizer keeps from step to step, on the device of a flat buffer."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from dlgpu.backend.devices import device_of, to_host
from dlgpu.parameters import FlatParameters


class Kept:
    """What one optimizer keeps for one flat buffer.

    Args:
        flat: the buffer.
        starts: the names of the slots and the values that they begin with.
        count: how many scalars there are beside the learning rate.
    Attributes:
        slots: by name; (size,), of the buffer's dtype.
        scalars: (1 + count,) float64, not yet filled.
        segments: (n, 2) int64, where each parameter starts and stops in the buffer.
    """

    def __init__(self, flat: FlatParameters, starts: dict[str, float], count: int):
        device = device_of(flat.values)
        self.flat = flat
        self.slots = {name: device.array_namespace.full_like(flat.values, start) for name, start in starts.items()}
        self.scalars = device.empty(1 + count, np.float64)
        self.segments = device.asarray(np.array([(where.start, where.stop) for where in flat.slices], np.int64))

    def take_over(self, others: "Sequence[Kept]") -> None:
        """Go on with the slots of those parameters that were in other buffers before, perhaps on another device."""
        before = {id(p): (k, where) for k in others for p, where in zip(k.flat.parameters, k.flat.slices)}
        device = device_of(self.flat.values)
        for p, where in zip(self.flat.parameters, self.flat.slices):
            if id(p) in before:
                other, there = before[id(p)]
                for name, slot in self.slots.items():
                    slot[where] = device.asarray(other.slots[name][there])

    def write(self, numbers: Sequence[float]) -> None:
        """Overwrite the scalars, in place."""
        self.scalars[...] = device_of(self.scalars).asarray(np.array(numbers, np.float64))


def read_slots(kept: Sequence[Kept]) -> dict[str, np.ndarray]:
    """Copies of "0/slot" ... of each parameter, in order and of its shape."""
    return {key: np.array(to_host(view)).reshape(p.shape) for key, p, view in _places(kept)}


def write_slots(kept: Sequence[Kept], state: dict[str, np.ndarray], fail: Callable) -> None:
    """Overwrite the slots, in place, by what `read_slots` returned.

    Where that does not fit nothing is changed, and `fail` gets the message and raises.
    """
    places = list(_places(kept))
    if {key for key, *_ in places} != state.keys():
        fail(f"the state has {len(state)} slots, but these parameters need {len(places)}")
    for key, p, _ in places:
        if state[key].shape != p.shape:
            fail(f"expected the state's {key!r} to be of shape {p.shape} for {p.path}, got {state[key].shape}")
    for key, _, view in places:
        view[...] = device_of(view).asarray(state[key].reshape(-1), view.dtype)


def _places(kept: Sequence[Kept]) -> Iterable[tuple[str, Any, Any]]:
    """The key, parameter and part of the buffer of each slot of each parameter."""
    count = 0
    for k in kept:
        for p, where in zip(k.flat.parameters, k.flat.slices):
            for name, slot in k.slots.items():
                yield f"{count}/{name}", p, slot[where]
            count += 1
