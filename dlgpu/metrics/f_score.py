"""F-scores: means of precision and recall."""

from typing import Any

from dlgpu.backend.dispatch import array_namespace
from dlgpu.metrics.base import Metric, aligned, ratio, spread_weight
from dlgpu.tensor import Tensor, wrap

EPSILON = 1e-7  # added to denominators


class FBetaScore(Metric):
    """(1 + beta**2) precision recall / (beta**2 precision + recall), for each class; labels and predictions
    (batch, classes).

    Args:
        average: None for one score each class, "macro" for their mean, "weighted" for their mean weighted by labels,
            "micro" for the score of all classes' counts together.
        beta: how much more recall counts than precision.
        threshold: predictions above it are positive; by default only each sample's largest is.
        name: under which the result is reported.
        dtype: of the sums and the result.
    """

    aliases = ("fbeta_score",)

    def __init__(
        self,
        average: str | None = None,
        beta: float = 1.0,
        threshold: float | None = None,
        name: str = "fbeta_score",
        dtype: str = "float64",
    ):
        super().__init__(name, dtype)
        if average not in (None, "micro", "macro", "weighted"):
            raise ValueError(f"average must be None, 'micro', 'macro' or 'weighted', got {average!r}")
        if not beta > 0:
            raise ValueError(f"beta must be positive, got {beta!r}")
        if threshold is not None and not 0 < threshold <= 1:
            raise ValueError(f"threshold must lie in (0, 1], got {threshold!r}")
        self.average = average
        self.beta = beta
        self.threshold = threshold

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_true, y_pred = aligned(self, self.bare(y_true), self.bare(y_pred))
        if y_pred.ndim != 2:
            raise ValueError(f"{self.name}: expected predictions of shape (batch, classes), got {y_pred.shape}")
        if not self.variables:
            self.counts = self.add_variable((3, y_pred.shape[1]))
        if self.threshold is None:
            positive = (y_pred >= y_pred.max(axis=-1, keepdims=True)) & (abs(y_pred) > 1e-9)
        else:
            positive = y_pred > self.threshold
        weight = 1 if sample_weight is None else spread_weight(sample_weight, y_pred)
        for total, part in zip(self.counts.array, (positive * y_true, positive, y_true)):
            total += (part * weight).sum(axis=0)

    def result(self) -> Tensor:
        if not self.variables:
            return Tensor(0.0)
        counts = self.counts.array
        if self.average == "micro":
            counts = counts.sum(axis=1)
        true_positives, positives, labels = counts
        precision = true_positives / (positives + EPSILON)
        recall = true_positives / (labels + EPSILON)
        factor = self.beta**2
        score = (1 + factor) * precision * recall / (factor * precision + recall + EPSILON)
        if self.average == "macro":
            score = score.mean()
        elif self.average == "weighted":
            score = (score * ratio(labels, labels.sum())).sum()
        return wrap(array_namespace(counts).asarray(score))


class F1Score(FBetaScore):
    """2 precision recall / (precision + recall); the arguments are those of FBetaScore without beta."""

    aliases = ("f1_score",)

    def __init__(
        self,
        average: str | None = None,
        threshold: float | None = None,
        name: str = "f1_score",
        dtype: str = "float64",
    ):
        super().__init__(average, 1.0, threshold, name, dtype)
