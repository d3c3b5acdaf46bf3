"""Metrics of curves through the confusion matrices at many thresholds."""

from typing import Any

import numpy as np

from dlgpu.backend.dispatch import array_namespace
from dlgpu.metrics.base import ratio
from dlgpu.metrics.confusion import ConfusionMetric, checked
from dlgpu.tensor import Tensor, wrap

EPSILON = 1e-7  # the outermost thresholds of AUC lie this far outside of [0, 1]


class AUC(ConfusionMetric):
    """The area under a curve, as a sum over thresholds from 0 to 1.

    Args:
        num_thresholds: how many thresholds, evenly spaced.
        curve: "ROC", the rate of true over the rate of false positives, or "PR", precision over recall.
        summation_method: the height between two points: "interpolation" takes the mean (of a PR curve, Davis and
            Goadrich's interpolation, 2006), "minoring" the smaller, "majoring" the larger.
        name: under which the result is reported.
        dtype: of the sums and the result.
        thresholds: these between 0 and 1, instead of num_thresholds.
        from_logits: the predictions are not probabilities but logits.
    """

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str | None = None,
        dtype: str = "float64",
        thresholds: Any = None,
        from_logits: bool = False,
    ):
        if thresholds is None and num_thresholds < 2:
            raise ValueError(f"num_thresholds must be at least 2, got {num_thresholds}")
        if curve.upper() not in ("ROC", "PR"):
            raise ValueError(f"curve must be 'ROC' or 'PR', got {curve!r}")
        if summation_method.lower() not in ("interpolation", "minoring", "majoring"):
            raise ValueError(
                f"summation_method must be 'interpolation', 'minoring' or 'majoring', got {summation_method!r}"
            )
        inner = even(num_thresholds)[1:-1] if thresholds is None else sorted(checked(thresholds))
        super().__init__([-EPSILON, *inner, 1 + EPSILON], name, dtype)
        self.curve = curve.upper()
        self.summation_method = summation_method.lower()
        self.from_logits = from_logits

    def count(self, labels: Any, scores: Any, weight: Any) -> None:
        xp = array_namespace(scores)
        if self.from_logits:
            scores = 0.5 * xp.tanh(0.5 * scores) + 0.5
        super().count(labels, xp.clip(scores, 0, 1), weight)

    def result(self) -> Tensor:
        true_positives, false_positives, true_negatives, false_negatives = self.matrix()
        xp = array_namespace(true_positives)
        if self.curve == "ROC":
            x, y = ratio(false_positives, false_positives + true_negatives), self.recall()
        elif self.summation_method != "interpolation":
            x, y = self.recall(), self.precision()
        else:
            return wrap(_interpolated(xp, true_positives, false_positives, false_negatives))
        height = {
            "interpolation": (y[:-1] + y[1:]) / 2,
            "minoring": xp.minimum(y[:-1], y[1:]),
            "majoring": xp.maximum(y[:-1], y[1:]),
        }[self.summation_method]
        return wrap(((x[:-1] - x[1:]) * height).sum())


def _interpolated(xp: Any, true_positives: Any, false_positives: Any, false_negatives: Any) -> Any:
    """The area under the PR curve where, between two thresholds, true positives grow linearly with all positives.

    With slope = d true positives / d positives and intercept = true positives - slope * positives, precision at p
    positives is slope + intercept / p, whose integral over recall is slope (d true positives + intercept log(p / p')).
    """
    positives = true_positives + false_positives
    gained = true_positives[:-1] - true_positives[1:]
    slope = ratio(gained, xp.maximum(positives[:-1] - positives[1:], 0))
    intercept = true_positives[1:] - slope * positives[1:]
    both = (positives[:-1] > 0) & (positives[1:] > 0)
    growth = xp.where(both, ratio(positives[:-1], positives[1:]), 1)
    return ratio(slope * (gained + intercept * xp.log(growth)), true_positives[1:] + false_negatives[1:]).sum()


class BestAt(ConfusionMetric, abstract=True):
    """The largest value of one rate at those of evenly spaced thresholds where another is at least `value`."""

    def __init__(self, what: str, value: float, num_thresholds: int, class_id: int | None, name: Any, dtype: str):
        if not 0 <= value <= 1:
            raise ValueError(f"{what} must lie in [0, 1], got {value}")
        if num_thresholds < 1:
            raise ValueError(f"num_thresholds must be at least 1, got {num_thresholds}")
        super().__init__(even(num_thresholds), name, dtype, class_id=class_id)
        self.value = value

    def best(self, wanted: Any, bound: Any) -> Tensor:
        xp = array_namespace(wanted)
        return wrap(xp.where(bound >= self.value, wanted, 0).max())


class SensitivityAtSpecificity(BestAt):
    """The best sensitivity, TP / (TP + FN), where specificity, TN / (TN + FP), is at least the given one."""

    def __init__(
        self,
        specificity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: str = "float64",
    ):
        super().__init__("specificity", specificity, num_thresholds, class_id, name, dtype)

    def result(self) -> Tensor:
        return self.best(self.recall(), self.specificity())


class SpecificityAtSensitivity(BestAt):
    """The best specificity, TN / (TN + FP), where sensitivity, TP / (TP + FN), is at least the given one."""

    def __init__(
        self,
        sensitivity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: str = "float64",
    ):
        super().__init__("sensitivity", sensitivity, num_thresholds, class_id, name, dtype)

    def result(self) -> Tensor:
        return self.best(self.specificity(), self.recall())


class PrecisionAtRecall(BestAt):
    """The best precision, TP / (TP + FP), where recall, TP / (TP + FN), is at least the given one."""

    def __init__(
        self,
        recall: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: str = "float64",
    ):
        super().__init__("recall", recall, num_thresholds, class_id, name, dtype)

    def result(self) -> Tensor:
        return self.best(self.precision(), self.recall())


class RecallAtPrecision(BestAt):
    """The best recall, TP / (TP + FN), where precision, TP / (TP + FP), is at least the given one."""

    def __init__(
        self,
        precision: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: str = "float64",
    ):
        super().__init__("precision", precision, num_thresholds, class_id, name, dtype)

    def result(self) -> Tensor:
        return self.best(self.recall(), self.precision())


def even(count: int) -> list[float]:
    """So many thresholds from 0 to 1, evenly spaced; one is 0.5."""
    return [0.5] if count == 1 else np.linspace(0, 1, count).tolist()
