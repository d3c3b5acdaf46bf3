"""Metrics of the confusion matrix at thresholds: positives and negatives, true and false, and what follows from them.

Their state is two histograms: how many predictions lie above so many thresholds, for labels 1 and for labels 0.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dlgpu.backend.devices import Device, current_device, device
from dlgpu.backend.dispatch import array_namespace
from dlgpu.backend.reference import embedding as kernels
from dlgpu.backend.reference.counting import count_each
from dlgpu.metrics.base import Metric, aligned, ratio, spread_weight
from dlgpu.tensor import Tensor, wrap

LEFT_OUT = -1e10  # the score of predictions that are not among the top k


class ConfusionMetric(Metric, abstract=True):
    """The confusion matrix at each threshold. A prediction above a threshold is positive; labels are 0 or 1.

    Args:
        thresholds: one or several numbers.
        name: under which the result is reported.
        dtype: of the sums and the result.
        top_k: only the k largest predictions along the last axis can be positive.
        class_id: only this class, along the last axis, counts.
    """

    def __init__(
        self,
        thresholds: float | Sequence[float],
        name: str | None = None,
        dtype: str = "float64",
        top_k: int | None = None,
        class_id: int | None = None,
    ):
        super().__init__(name, dtype)
        self.thresholds = list(thresholds) if isinstance(thresholds, (list, tuple, np.ndarray)) else [thresholds]
        self.top_k = top_k
        self.class_id = class_id
        ranks = np.argsort(np.argsort(self.thresholds, kind="stable"))
        self._ranks = current_device().asarray(ranks)
        self._sorted = current_device().asarray(np.sort(self.thresholds).astype(np.float32))
        self.histograms = self.add_variable((2, len(self.thresholds) + 1))

    def to(self, target: str | Device) -> "ConfusionMetric":
        super().to(target)
        self._ranks, self._sorted = (device(target).asarray(a) for a in (self._ranks, self._sorted))
        return self

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_true, y_pred = aligned(self, self.bare(y_true), self.bare(y_pred))
        weight = None if sample_weight is None else spread_weight(sample_weight, y_pred)
        if self.top_k is not None:
            xp = array_namespace(y_pred)
            ranks = xp.argsort(xp.argsort(-y_pred, axis=-1, kind="stable"), axis=-1)
            y_pred = xp.where(ranks < self.top_k, y_pred, LEFT_OUT)
        if self.class_id is not None:
            if y_pred.ndim < 2:
                raise ValueError(
                    f"{self.name}: class_id needs predictions of shape (batch, classes), got {y_pred.shape}"
                )
            y_true, y_pred = y_true[..., self.class_id], y_pred[..., self.class_id]
            weight = None if weight is None else weight[..., self.class_id]
        self.count(y_true.reshape(-1), y_pred.reshape(-1), None if weight is None else weight.reshape(-1))

    def count(self, labels: Any, scores: Any, weight: Any) -> None:
        """Add labels and scores, all of shape (n,), to the histograms."""
        xp, bins = array_namespace(scores), len(self.thresholds) + 1
        if bins == 2:
            above = (scores.astype(np.float32) > self._sorted).astype(np.int64)
        else:
            above = xp.searchsorted(self._sorted, scores.astype(np.float32))
            above = xp.where(scores == scores, above, 0)  # NaN is above nothing
        above += bins * (labels != 0)
        if weight is None:
            found = count_each(above, 2 * bins)
        else:
            found = kernels.scatter_add(weight.astype(self.dtype)[:, None], above, 2 * bins)
        self.histograms.array += found.reshape(2, bins)

    def matrix(self) -> tuple[Any, Any, Any, Any]:
        """True positives, false positives, true negatives, false negatives at each threshold, bare arrays."""
        histograms = self.histograms.array
        totals = histograms.sum(axis=1, keepdims=True)
        positive = histograms[:, :0:-1].cumsum(axis=1)[:, ::-1][:, self._ranks]
        negative = totals - positive
        return positive[1], positive[0], negative[0], negative[1]

    def recall(self) -> Any:
        """TP / (TP + FN), also called sensitivity, at each threshold."""
        true_positives, _, _, false_negatives = self.matrix()
        return ratio(true_positives, true_positives + false_negatives)

    def precision(self) -> Any:
        """TP / (TP + FP) at each threshold."""
        true_positives, false_positives, _, _ = self.matrix()
        return ratio(true_positives, true_positives + false_positives)

    def specificity(self) -> Any:
        """TN / (TN + FP) at each threshold."""
        _, false_positives, true_negatives, _ = self.matrix()
        return ratio(true_negatives, true_negatives + false_positives)

    def answer(self, values: Any) -> Tensor:
        """Values at the thresholds as a result: without the axis if there is one threshold."""
        return wrap(values[0] if len(self.thresholds) == 1 else values)


class Count(ConfusionMetric, abstract=True):
    """The number, or weight, of one kind of predictions; `kind` is their place in `matrix()`."""

    kind: int

    def __init__(self, thresholds: Any = None, name: str | None = None, dtype: str = "float64"):
        super().__init__(checked(thresholds), name, dtype)

    def result(self) -> Tensor:
        return self.answer(self.matrix()[self.kind])


class TruePositives(Count):
    """The number, or weight, of labels 1 with a positive prediction."""

    kind = 0


class FalsePositives(Count):
    """The number, or weight, of labels 0 with a positive prediction."""

    kind = 1


class TrueNegatives(Count):
    """The number, or weight, of labels 0 with a negative prediction."""

    kind = 2


class FalseNegatives(Count):
    """The number, or weight, of labels 1 with a negative prediction."""

    kind = 3


class Precision(ConfusionMetric):
    """true positives / (true positives + false positives)

    Args:
        thresholds: one or several in [0, 1], 0.5 by default; with top_k, all top predictions are positive by default.
        top_k: only the k largest predictions along the last axis can be positive.
        class_id: only this class, along the last axis, counts.
        name: under which the result is reported.
        dtype: of the sums and the result.
    """

    def __init__(
        self,
        thresholds: Any = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: str = "float64",
    ):
        super().__init__(checked(thresholds, 0.5 if top_k is None else LEFT_OUT), name, dtype, top_k, class_id)

    def result(self) -> Tensor:
        return self.answer(self.precision())


class Recall(ConfusionMetric):
    """true positives / (true positives + false negatives); the arguments are those of Precision."""

    def __init__(
        self,
        thresholds: Any = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: str = "float64",
    ):
        super().__init__(checked(thresholds, 0.5 if top_k is None else LEFT_OUT), name, dtype, top_k, class_id)

    def result(self) -> Tensor:
        return self.answer(self.recall())


def checked(thresholds: Any, default: float = 0.5) -> list[float]:
    """Thresholds as a list of numbers in [0, 1]."""
    if thresholds is None:
        return [default]
    found = list(thresholds) if isinstance(thresholds, (list, tuple, np.ndarray)) else [thresholds]
    if not found or not all(0 <= t <= 1 for t in found):
        raise ValueError(f"thresholds must lie in [0, 1], got {thresholds}")
    return [float(t) for t in found]
