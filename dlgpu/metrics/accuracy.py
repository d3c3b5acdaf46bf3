"""Accuracies: how often the prediction is the label."""

from typing import Any

from dlgpu.backend.dispatch import array_namespace
from dlgpu.backend.reference.counting import add_binary_matches
from dlgpu.metrics.base import SampleMean, aligned


class Accuracy(SampleMean):
    """How often predictions equal labels."""

    def values(self, y_true: Any, y_pred: Any) -> Any:
        y_true, y_pred = aligned(self, y_true, y_pred)
        return y_true == y_pred


class BinaryAccuracy(SampleMean):
    """How often (prediction > threshold) is the label, 0 or 1."""

    def __init__(self, name: str | None = None, dtype: str = "float64", threshold: float = 0.5):
        super().__init__(name, dtype)
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must lie in [0, 1], got {threshold}")
        self.threshold = threshold

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        if sample_weight is not None or getattr(y_pred, "mask", None) is not None or not self.bare(y_pred).size:
            super().update_state(y_true, y_pred, sample_weight)
            return
        y_true, y_pred = aligned(self, self.bare(y_true), self.bare(y_pred))
        if not y_pred.ndim:
            y_true, y_pred = y_true.reshape(1), y_pred.reshape(1)
        add_binary_matches(self.total.array, self.count.array, y_true, y_pred, self.threshold)

    def values(self, y_true: Any, y_pred: Any) -> Any:
        y_true, y_pred = aligned(self, y_true, y_pred)
        return (y_pred > self.threshold) == y_true


class CategoricalAccuracy(SampleMean):
    """How often the largest prediction is at the label's 1: both (..., classes)."""

    def values(self, y_true: Any, y_pred: Any) -> Any:
        y_true, y_pred = aligned(self, y_true, y_pred)
        return y_true.argmax(axis=-1) == y_pred.argmax(axis=-1)


class SparseCategoricalAccuracy(SampleMean):
    """How often the largest prediction is at the label: labels (...,) or (..., 1), predictions (..., classes)."""

    def values(self, y_true: Any, y_pred: Any) -> Any:
        return y_pred.argmax(axis=-1) == class_labels(self, y_true, y_pred)


class TopKCategoricalAccuracy(SampleMean):
    """How often the label's 1 is among the k largest predictions: both (..., classes). Ties count as among them."""

    def __init__(self, k: int = 5, name: str | None = None, dtype: str = "float64"):
        super().__init__(name, dtype)
        self.k = k

    def values(self, y_true: Any, y_pred: Any) -> Any:
        y_true, y_pred = aligned(self, y_true, y_pred)
        return in_top(y_true.argmax(axis=-1), y_pred, self.k)


class SparseTopKCategoricalAccuracy(SampleMean):
    """How often the label is among the k largest predictions: labels (...,) or (..., 1), predictions (..., classes).

    Args:
        k: how many predictions count.
        name: under which the result is reported.
        dtype: of the sums and the result.
        from_sorted_ids: the predictions are classes themselves, the likeliest first.
    """

    def __init__(
        self,
        k: int = 5,
        name: str | None = None,
        dtype: str = "float64",
        from_sorted_ids: bool = False,
    ):
        super().__init__(name, dtype)
        self.k = k
        self.from_sorted_ids = from_sorted_ids

    def values(self, y_true: Any, y_pred: Any) -> Any:
        labels = class_labels(self, y_true, y_pred)
        if self.from_sorted_ids:
            return (labels[..., None] == y_pred[..., : self.k]).any(axis=-1)
        return in_top(labels.astype(int), y_pred, self.k)


def class_labels(metric: SampleMean, y_true: Any, y_pred: Any) -> Any:
    """Labels of y_pred's shape without the classes."""
    if y_true.ndim == y_pred.ndim and y_true.shape[-1] == 1:
        y_true = y_true[..., 0]
    if y_true.shape != y_pred.shape[:-1]:
        raise ValueError(f"{metric.name}: expected labels of shape {y_pred.shape[:-1]}, got {y_true.shape}")
    return y_true


def in_top(labels: Any, scores: Any, k: int) -> Any:
    """Whether fewer than k scores are above the label's; not so where that is NaN."""
    own = array_namespace(scores).take_along_axis(scores, labels[..., None], axis=-1)
    return ((scores > own).sum(axis=-1) < k) & (own == own)[..., 0]
