"""Metrics that are the mean of a loss over all samples. The equations are in `dlgpu.losses`."""

from collections.abc import Callable
from typing import Any

from dlgpu import losses
from dlgpu.metrics.base import MeanMetricWrapper
from dlgpu.saving.configurable import snake_case


class LossMean(MeanMetricWrapper, abstract=True):
    """The mean of a loss function over all samples."""

    loss: Callable

    def __init__(self, name: str | None = None, dtype: str = "float64"):
        super().__init__(self.loss, name or snake_case(type(self).__name__), dtype)


class MeanAbsolutePercentageError(LossMean):
    """100 mean(|y_true - y_pred| / |y_true|)"""

    loss = staticmethod(losses.mean_absolute_percentage_error)
    aliases = ("mape",)


class MeanSquaredLogarithmicError(LossMean):
    """mean((log(1 + y_true) - log(1 + y_pred))**2)"""

    loss = staticmethod(losses.mean_squared_logarithmic_error)
    aliases = ("msle",)


class LogCoshError(LossMean):
    """mean(log(cosh(y_pred - y_true)))"""

    loss = staticmethod(losses.log_cosh)
    aliases = ("logcosh", "log_cosh")

    def __init__(self, name: str = "logcosh", dtype: str = "float64"):
        super().__init__(name, dtype)


class KLDivergence(LossMean):
    """sum(y_true log(y_true / y_pred)) over the last axis"""

    loss = staticmethod(losses.kl_divergence)


class Poisson(LossMean):
    """mean(y_pred - y_true log(y_pred))"""

    loss = staticmethod(losses.poisson)


class Hinge(LossMean):
    """mean(max(1 - y_true y_pred, 0)), with labels -1 and 1 (0 counts as -1)"""

    loss = staticmethod(losses.hinge)


class SquaredHinge(LossMean):
    """mean(max(1 - y_true y_pred, 0)**2), with labels -1 and 1 (0 counts as -1)"""

    loss = staticmethod(losses.squared_hinge)


class CategoricalHinge(LossMean):
    """max(1 + max((1 - y_true) y_pred) - sum(y_true y_pred), 0) over the last axis"""

    loss = staticmethod(losses.categorical_hinge)


class CosineSimilarity(LossMean):
    """sum(y_true y_pred) / (|y_true| |y_pred|) over an axis: 1 for the same direction, -1 for the opposite one."""

    loss = staticmethod(losses.cosine_similarity)

    def __init__(self, name: str | None = None, dtype: str = "float64", axis: int = -1):
        super().__init__(name, dtype)
        self.kwargs = {"axis": axis}

    def values(self, y_true: Any, y_pred: Any) -> Any:
        return -super().values(y_true, y_pred)  # the loss is to be made small, and so has the other sign


class BinaryCrossentropy(LossMean):
    """-mean(y_true log(y_pred) + (1 - y_true) log(1 - y_pred))

    Args:
        name: under which the result is reported.
        dtype: of the sums and the result.
        from_logits: the predictions are not probabilities but logits.
        label_smoothing: how far labels are moved from 0 and 1 towards 1/2.
    """

    loss = staticmethod(losses.binary_crossentropy)
    aliases = ("bce",)

    def __init__(
        self,
        name: str | None = None,
        dtype: str = "float64",
        from_logits: bool = False,
        label_smoothing: float = 0,
    ):
        super().__init__(name, dtype)
        self.kwargs = {"from_logits": from_logits, "label_smoothing": label_smoothing}


class CategoricalCrossentropy(LossMean):
    """-sum(y_true log(y_pred)) over the classes

    Args:
        name: under which the result is reported.
        dtype: of the sums and the result.
        from_logits: the predictions are not probabilities but logits.
        label_smoothing: how far labels are moved from 0 and 1 towards equal probabilities.
        axis: of the classes.
    """

    loss = staticmethod(losses.categorical_crossentropy)

    def __init__(
        self,
        name: str | None = None,
        dtype: str = "float64",
        from_logits: bool = False,
        label_smoothing: float = 0,
        axis: int = -1,
    ):
        super().__init__(name, dtype)
        self.kwargs = {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}


class SparseCategoricalCrossentropy(LossMean):
    """-log(y_pred[label]) over the classes, for integer labels

    Args:
        name: under which the result is reported.
        dtype: of the sums and the result.
        from_logits: the predictions are not probabilities but logits.
        ignore_class: a label that does not count.
        axis: of the classes.
    """

    loss = staticmethod(losses.sparse_categorical_crossentropy)

    def __init__(
        self,
        name: str | None = None,
        dtype: str = "float64",
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
    ):
        super().__init__(name, dtype)
        self.kwargs = {"from_logits": from_logits, "ignore_class": ignore_class, "axis": axis}
