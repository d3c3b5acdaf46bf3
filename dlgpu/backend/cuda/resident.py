"""A data set that stays on a GPU, from which captured steps gather their batches."""

from typing import Any

import numpy as np

SHARE = 0.25  # of the device's free memory, which a data set may take
ALIGNMENT = 16  # bytes, of each array that is gathered from


class Resident:
    """A data set on the device, and the order in which an epoch goes through it.

    Args:
        data: ArrayData, whose values may not change as long as it is here.
        dtypes: of the arrays here.
    Attributes:
        fits: whether it is here; else it would take too much of the memory.
    """

    def __init__(self, cupy: Any, data: Any, dtypes: list):
        self.cupy = cupy
        self.data = data
        size = sum(a.size * dtype.itemsize for a, dtype in zip(data.arrays, dtypes) if isinstance(a, np.ndarray))
        self.fits = size <= SHARE * cupy.cuda.runtime.memGetInfo()[0]
        self.arrays = [self._brought(a, dtype) for a, dtype in zip(data.arrays, dtypes)] if self.fits else []
        self._host_order: Any = None
        self._order: Any = None

    def _brought(self, array: Any, dtype: Any) -> Any:
        if not isinstance(array, np.ndarray):
            return aligned(self.cupy, self.cupy.asarray(array, dtype))
        made = self.cupy.empty(array.shape, dtype)  # cupy.asarray would take as much page-locked memory
        made.set(np.ascontiguousarray(array, dtype), stream=self.cupy.cuda.get_current_stream())
        return made

    def words(self, batch: Any) -> list[int]:
        """What a graph's table says of a batch."""
        if batch.order is not None and batch.order is not self._host_order:
            if self._order is None:
                self._order = self.cupy.empty(self.data.samples, np.int64)
            self._order.set(np.ascontiguousarray(batch.order, np.int64), stream=self.cupy.cuda.get_current_stream())
            self._host_order = batch.order
        order = 0 if batch.order is None else self._order.data.ptr
        return [order, batch.start, *(a.data.ptr for a in self.arrays)]


def aligned(cupy: Any, array: Any) -> Any:
    """The array, or a copy of it, contiguous and at an address that words of any size may have."""
    if array.flags.c_contiguous and array.data.ptr % ALIGNMENT == 0:
        return array
    return array.copy(order="C")
