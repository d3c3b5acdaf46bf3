"""Errors of predicted quantities."""

from typing import Any

from dlgpu.backend.dispatch import array_namespace
from dlgpu.metrics.base import Metric, SampleMean, aligned, ratio, spread_weight
from dlgpu.tensor import Tensor, wrap


class MeanSquaredError(SampleMean):
    """mean((y_pred - y_true)**2)"""

    aliases = ("mse",)

    def values(self, y_true: Any, y_pred: Any) -> Any:
        error = difference(self, y_true, y_pred)
        return error * error


class RootMeanSquaredError(MeanSquaredError):
    """sqrt(mean((y_pred - y_true)**2))"""

    aliases = ("rmse",)

    def result(self) -> Tensor:
        return super().result() ** 0.5


class MeanAbsoluteError(SampleMean):
    """mean(|y_pred - y_true|)"""

    aliases = ("mae",)

    def values(self, y_true: Any, y_pred: Any) -> Any:
        return abs(difference(self, y_true, y_pred))


class R2Score(Metric):
    """1 - sum w (y_true - y_pred)**2 / sum w (y_true - mean(y_true))**2, for each output; both (batch, outputs).

    Args:
        class_aggregation: "uniform_average" over the outputs, "variance_weighted_average", or None for one score each.
        name: under which the result is reported.
        dtype: of the sums and the result.
    """

    aliases = ("r2_score",)

    def __init__(
        self,
        class_aggregation: str | None = "uniform_average",
        name: str = "r2_score",
        dtype: str = "float64",
    ):
        super().__init__(name, dtype)
        if class_aggregation not in (None, "uniform_average", "variance_weighted_average"):
            raise ValueError(
                "class_aggregation must be 'uniform_average', 'variance_weighted_average' or None, "
                f"got {class_aggregation!r}"
            )
        self.class_aggregation = class_aggregation

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_true, y_pred = aligned(self, self.bare(y_true), self.bare(y_pred))
        if y_pred.ndim != 2:
            raise ValueError(f"{self.name}: expected predictions of shape (batch, outputs), got {y_pred.shape}")
        if not self.variables:
            self.sums = self.add_variable((4, y_pred.shape[1]))
        y_true, y_pred = y_true.astype(self.dtype), y_pred.astype(self.dtype)
        ones = array_namespace(y_pred).ones_like(y_pred)
        weight = ones if sample_weight is None else spread_weight(sample_weight, y_pred)
        parts = weight, weight * y_true, weight * y_true * y_true, weight * (y_true - y_pred) ** 2
        for total, part in zip(self.sums.array, parts):
            total += part.sum(axis=0)

    def result(self) -> Tensor:
        if not self.variables:
            return Tensor(0.0)
        xp = array_namespace(self.sums.array)
        count, total, squares, residual = self.sums.array
        spread = squares - total * ratio(total, count)
        scores = xp.where(spread == 0, 0, 1 - ratio(residual, spread))
        if self.class_aggregation == "uniform_average":
            scores = scores.mean()
        elif self.class_aggregation is not None:
            scores = ratio((spread * scores).sum(), spread.sum())
        return wrap(xp.asarray(scores))


def difference(metric: Metric, y_true: Any, y_pred: Any) -> Any:
    """y_pred - y_true, of y_pred's dtype if that is a floating one."""
    y_true, y_pred = aligned(metric, y_true, y_pred)
    if y_true.dtype != y_pred.dtype and y_pred.dtype.kind == "f":
        y_true = y_true.astype(y_pred.dtype)
    return y_pred - y_true
