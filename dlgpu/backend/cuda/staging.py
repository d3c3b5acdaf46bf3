"""Batches on their way to a GPU: gathered in page-locked memory, and copied by a stream beside the computation.

The copy of a batch starts while the GPU is still at work on the one before. Batches take turns in slots, each a buffer
of the host and one of the GPU, and events say when a buffer may be written to:

    the host fills a slot       once its last copy is done
    the stream copies it        once the computation on the batch that was in it is done
    the computation reads it    once it is copied
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

from dlgpu.backend.devices import native

SLOTS = 2
ALIGNMENT = 256  # bytes, of each array in a buffer


class Slot:
    """A buffer of the host and one of the GPU, of as many bytes."""

    def __init__(self, cupy: Any, size: int):
        self.memory = cupy.cuda.alloc_pinned_memory(max(size, 1))
        self.host = np.frombuffer(self.memory, np.uint8, size)
        self.device = cupy.empty(size, np.uint8)
        self.copied, self.used = (cupy.cuda.Event(disable_timing=True) for _ in range(2))


class Staging:
    """The way of host arrays to one GPU.

    The arrays that it gives are overwritten by the batch after the next, unless somebody still holds them then.
    """

    def __init__(self, index: int):
        self.index = index
        self.cupy = import_module("cupy")
        with self.cupy.cuda.Device(index):
            self.stream = self.cupy.cuda.Stream(non_blocking=True)
        self.slots: list[Slot | None] = [None] * SLOTS
        self.turn = 0

    def __deepcopy__(self, memo: dict) -> "Staging":
        """A copy of a model has buffers of its own."""
        return Staging(self.index)

    def __call__(self, arrays: Sequence[Any], dtypes: Sequence[Any]) -> list:
        """These arrays on the GPU, converted to these dtypes (None for their own); those of a GPU are not staged.

        The host waits only for its own buffer, for the copy of the batch before the last.
        """
        arrays = [native(a) for a in arrays]
        dtypes = [a.dtype if d is None else np.dtype(d) for a, d in zip(arrays, dtypes)]
        starts, size = [], 0
        for array, dtype in zip(arrays, dtypes):
            starts.append(size)
            if isinstance(array, np.ndarray):
                size += -(-array.size * dtype.itemsize // ALIGNMENT) * ALIGNMENT
        with self.cupy.cuda.Device(self.index):
            slot = self._slot(size) if size else None
            if slot is not None:
                for array, dtype, start in zip(arrays, dtypes, starts):
                    if isinstance(array, np.ndarray):
                        np.copyto(_part(slot.host, array, dtype, start), array, casting="unsafe")
                slot.device[:size].set(slot.host[:size], stream=self.stream)
                self.stream.record(slot.copied)
                self.cupy.cuda.get_current_stream().wait_event(slot.copied)
            return [
                _part(slot.device, array, dtype, start)
                if slot is not None and isinstance(array, np.ndarray)
                else self.cupy.asarray(array, dtype)
                for array, dtype, start in zip(arrays, dtypes, starts)
            ]

    def _slot(self, size: int) -> Slot:
        """The slot whose turn it is, which may be written to now, by the host and by the stream of copies."""
        compute = self.cupy.cuda.get_current_stream()
        before = self.slots[self.turn]
        if before is not None:
            compute.record(before.used)  # all work on the last batch has been given to the GPU by now
        self.turn = (self.turn + 1) % SLOTS
        slot = self.slots[self.turn]
        if slot is not None:
            slot.copied.synchronize()
        # a view that somebody keeps holds the buffer; the slot itself and this call hold it too
        if slot is None or len(slot.host) < size or sys.getrefcount(slot.device) > 2:
            slot = self.slots[self.turn] = Slot(self.cupy, size)
            compute.record(slot.used)  # its memory may come from work that is not done yet
        self.stream.wait_event(slot.used)
        return slot


def _part(buffer: Any, like: Any, dtype: Any, start: int) -> Any:
    """The bytes of a buffer from `start` on as an array of the shape of `like`."""
    return buffer[start : start + like.size * dtype.itemsize].view(dtype).reshape(like.shape)
