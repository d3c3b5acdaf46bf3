"""The batches of one epoch after another, and weights for the classes in them."""

from collections.abc import Iterator, Mapping
from itertools import chain, islice
from typing import Any

import numpy as np

from dlgpu.backend.devices import to_host
from dlgpu.data import ArrayData, Batch, Rows, StreamData
from dlgpu.data.checks import require_integers
from dlgpu.ops.random import default_generator


class Epochs:
    """Batches, an epoch at a time.

    Args:
        data: what to go through.
        steps: batches in an epoch; None means one pass. With it, an epoch may end within a pass, and the next goes on.
        shuffle: a new order of the samples in each pass, for arrays.
    """

    def __init__(self, data: ArrayData | StreamData, steps: int | None = None, shuffle: bool = False):
        self.data = data
        self.shuffle = shuffle
        self.steps = length(data, steps)
        self._wanted = steps
        self._endless = None if steps is None else self._forever()

    def __iter__(self) -> Iterator[Batch | Rows]:
        """The batches of the next epoch."""
        return self._pass() if self._endless is None else islice(self._endless, self._wanted)

    @property
    def alike(self) -> int:
        """How many batches of an epoch may follow each other on the same arrays: 1 if nothing is known."""
        full = self.data.samples // self.data.batch_size if isinstance(self.data, ArrayData) else 1
        return max(1, full if self._wanted is None else min(full, self._wanted))

    def _pass(self) -> Iterator[Batch | Rows]:
        if isinstance(self.data, StreamData):
            return iter(self.data)
        return self.data.batches(default_generator().permutation(self.data.samples) if self.shuffle else None)

    def _forever(self) -> Iterator[Batch | Rows]:
        while True:
            batches = self._pass()
            first = next(batches, None)
            if first is None:
                return
            yield first
            yield from batches


def length(data: Any, steps: int | None = None) -> int | None:
    """The number of batches in an epoch, None where a stream does not know."""
    require_integers(1, steps=steps)
    if steps is not None:
        return steps
    try:
        return len(data)
    except TypeError:
        return None


def first_batch(data: ArrayData | StreamData) -> Batch:
    """The first batch; a generator keeps it for the run."""
    if isinstance(data, ArrayData):
        return data.take(slice(0, data.batch_size))
    if data.once:
        head = list(islice(data.source, 1))
        data.source = chain(head, data.source)
        found = next(iter(StreamData(head)), None)
    else:
        found = next(iter(data), None)
    if found is None:
        raise ValueError("x: the generator gave no batch")
    return found


def with_class_weight(data: Any, class_weight: Mapping[int, float]) -> ArrayData:
    """Data whose sample weights are multiplied by the weight of each label's class (1 for a class not named)."""
    labels = to_host(data.y) if isinstance(data, ArrayData) else None
    if not isinstance(labels, np.ndarray):
        raise ValueError("class_weight needs one array of labels; a generator can yield sample weights instead")
    if not isinstance(class_weight, Mapping) or not np.isfinite(list(class_weight.values())).all():
        raise ValueError(f"class_weight: expected a dictionary of classes and finite factors, got {class_weight!r}")
    if labels.ndim > 1:
        if labels.shape[-1] > 1 and not np.allclose(labels.sum(axis=-1), 1, atol=1e-3):
            raise ValueError(f"class_weight: expected one label a sample, or one-hot labels, got shape {labels.shape}")
        labels = labels.argmax(axis=-1) if labels.shape[-1] > 1 else labels[..., 0]
    factors: Any = np.ones(labels.shape, np.float32)
    for label, weight in class_weight.items():
        factors[labels == label] = weight
    if data.sample_weight is not None:
        given = np.asarray(to_host(data.sample_weight))
        rank = max(factors.ndim, given.ndim)
        factors, given = (a.reshape(a.shape + (1,) * (rank - a.ndim)) for a in (factors, given))
        factors = factors * given
    return ArrayData(data.x, data.y, factors, data.batch_size)
