"""Going through data in batches: arrays in any order, or streams in the order in which they come."""

import copy
from collections.abc import Callable, Iterator
from functools import cached_property
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from dlgpu.data.checks import as_array, check_finite, check_lengths, require_integers
from dlgpu.data.structure import leaves, map_structure, named_leaves


class Batch(NamedTuple):
    """Inputs, targets and sample weights of some samples; the last two may be None."""

    x: Any
    y: Any = None
    sample_weight: Any = None

    @property
    def samples(self) -> int:
        """The number of samples."""
        return len(leaves(self.x)[0])

    @property
    def layout(self) -> tuple:
        """Shapes and dtypes, by which batches are told apart for which a step does the same."""
        return _layout(self), self.samples

    @property
    def structure(self) -> tuple:
        """Inputs, targets and weights that are nested as the batch's are."""
        return tuple(self)

    def copy_to(self, targets: list) -> None:
        """Copy all arrays, in order, to others of their shapes."""
        for source, target in zip(leaves(tuple(self)), targets):
            np.copyto(target, source, casting="unsafe")


class Rows:
    """A Batch of some rows of ArrayData, gathered when it is asked for.

    Args:
        data: the arrays.
        rows: a slice or an array of indices.
        order: an array of which `rows` is a part, and None for a slice.
        start: where in `order`, or for a slice in the data, the rows begin.
    """

    def __init__(self, data: "ArrayData", rows: Any, order: Any, start: int):
        self.data = data
        self.rows = rows
        self.order = order
        self.start = start

    @cached_property
    def _taken(self) -> Batch:
        return self.data.take(self.rows)

    x = property(lambda self: self._taken.x)
    y = property(lambda self: self._taken.y)
    sample_weight = property(lambda self: self._taken.sample_weight)

    def __iter__(self) -> Iterator:
        return iter(self._taken)

    @property
    def samples(self) -> int:
        """The number of samples."""
        rows = self.rows
        return len(range(self.data.samples)[rows]) if type(rows) is slice else len(rows)

    @property
    def layout(self) -> tuple:
        """As Batch has it."""
        return self.data.layout, self.samples

    @property
    def structure(self) -> tuple:
        """As Batch has it; nothing is gathered for it."""
        return self.data.x, self.data.y, self.data.sample_weight

    def follows(self, other: "Rows") -> bool:
        """Whether these are the next rows of the same pass, and as many."""
        same = other.data is self.data and other.order is self.order
        return same and self.start == other.start + other.samples and self.samples == other.samples

    @property
    def ends(self) -> bool:
        """Whether these are the last rows of a pass."""
        return self.start + self.samples == self.data.samples

    def copy_to(self, targets: list) -> None:
        """Copy the rows of all arrays, in order, to others of their shapes."""
        for source, target in zip(self.data.arrays, targets):
            if type(self.rows) is slice:
                np.copyto(target, source[self.rows], casting="unsafe")
            elif source.dtype == target.dtype:
                source.take(self.rows, 0, target, "clip")  # which, unlike "raise", needs no second copy
            else:
                np.copyto(target, source[self.rows], casting="unsafe")


class ArrayData:
    """Arrays that are all there: any batch can be taken at any time.

    Args:
        x: an array (samples, ...), or a list or dictionary of them.
        y: targets likewise, or None.
        sample_weight: (samples,) factors on the loss, or None.
        batch_size: the samples in a batch; the last one may be smaller.
    """

    def __init__(self, x: Any, y: Any = None, sample_weight: Any = None, batch_size: int = 32):
        require_integers(1, batch_size=batch_size)
        self.x = as_arrays(x, "x")
        self.y = as_arrays(y, "y")
        self.sample_weight = as_arrays(sample_weight, "sample_weight")
        self.samples = check_lengths(x=self.x, y=self.y, sample_weight=self.sample_weight)
        self.batch_size = int(batch_size)
        self.arrays = leaves((self.x, self.y, self.sample_weight))
        self.layout = _layout((self.x, self.y, self.sample_weight))

    def check_finite(self, dtype: Any = np.float64) -> None:
        """Raise a ValueError that names the first row with a NaN, an infinity or what is too large for `dtype`."""
        for name in ("x", "y", "sample_weight"):
            for leaf_name, array in named_leaves(getattr(self, name), name):
                check_finite(array, leaf_name, dtype)

    def __len__(self) -> int:
        return -(-self.samples // self.batch_size)

    def __iter__(self) -> Iterator[Rows]:
        return self.batches()

    def batches(self, order: Any = None) -> Iterator[Rows]:
        """One pass through the batches, with the samples in the order of `order` (indices) or as they are."""
        for start in range(0, self.samples, self.batch_size):
            stop = start + self.batch_size
            yield Rows(self, slice(start, stop) if order is None else order[start:stop], order, start)

    def take(self, rows: Any) -> Batch:
        """The samples at these rows: a slice or an array of indices."""
        return Batch(*(map_structure(lambda a: a[rows], s) for s in (self.x, self.y, self.sample_weight)))

    def split(self, fraction: float) -> "tuple[ArrayData, ArrayData]":
        """The first samples, and the last `fraction` of them, in two."""
        if not isinstance(fraction, Real) or not 0 < fraction < 1:
            raise ValueError(f"validation_split: expected a number between 0 and 1, got {fraction!r}")
        cut = int(self.samples * (1 - fraction))
        if cut == 0 or cut == self.samples:
            raise ValueError(f"validation_split={fraction} of {self.samples} samples leaves one part empty")
        return (
            ArrayData(*self.take(slice(0, cut)), batch_size=self.batch_size),
            ArrayData(*self.take(slice(cut, None)), batch_size=self.batch_size),
        )


class StreamData:
    """Batches made by the user: a generator, an iterable, or an object with `__getitem__` and `__len__`.

    Each item is x, (x, y) or (x, y, sample_weight), already a batch; a list of these is as good as a tuple. A generator
    goes on where it stopped; other iterables begin anew at each pass.
    """

    def __init__(self, source: Any):
        self.source = source
        self.once = isinstance(source, Iterator)

    def __len__(self) -> int:
        return len(self.source)  # a TypeError where it is unknown

    def __iter__(self) -> Iterator[Batch]:
        for number, item in enumerate(self._items()):
            fields = tuple(item) if isinstance(item, (tuple, list)) else (item,)
            if not 1 <= len(fields) <= 3:
                raise ValueError(
                    f"batch {number} of the generator: expected x, (x, y) or (x, y, sample_weight), "
                    f"got a tuple of {len(fields)}"
                )
            names = ("x", "y", "sample_weight")
            batch = Batch(*(map_structure(lambda a, n=n: as_array(a, n), f) for n, f in zip(names, fields)))
            check_lengths(x=batch.x, y=batch.y, sample_weight=batch.sample_weight)
            yield batch

    def _items(self) -> Iterator:
        if hasattr(self.source, "__getitem__") and hasattr(self.source, "__len__"):
            return (self.source[i] for i in range(len(self.source)))
        return iter(self.source)

    batches: Callable = __iter__


def _layout(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, dict):
        return tuple((key, _layout(v)) for key, v in value.items())
    return tuple(map(_layout, value)) if isinstance(value, (list, tuple)) else (value.shape[1:], value.dtype.str)


def as_arrays(value: Any, name: str) -> Any:
    """An array, or a list or dictionary of them; nested lists of numbers are one array."""
    if isinstance(value, list) and not any(getattr(a, "ndim", 0) for a in value):
        return as_array(value, name)
    return map_structure(lambda a: as_array(a, name), value)


def as_data(x: Any, y: Any = None, sample_weight: Any = None, batch_size: int | None = None) -> ArrayData | StreamData:
    """Arrays as ArrayData; a generator or an iterable of batches as StreamData.

    ArrayData for one run: its values may have changed since another, and a device may have kept them.
    """
    if isinstance(x, ArrayData):
        return copy.copy(x)
    if isinstance(x, StreamData):
        return x
    arrays = hasattr(x, "dtype") or hasattr(x, "__array__") or isinstance(x, (list, tuple, dict, int, float, str))
    if arrays:
        return ArrayData(x, y, sample_weight, 32 if batch_size is None else batch_size)
    if not hasattr(x, "__iter__") and not hasattr(x, "__getitem__"):
        raise TypeError(f"x: expected arrays, or a generator of batches, got {type(x).__name__}")
    if y is not None or sample_weight is not None or batch_size is not None:
        raise ValueError(
            "y, sample_weight and batch_size go with arrays; a generator yields (x, y, sample_weight) itself"
        )
    return StreamData(x)
