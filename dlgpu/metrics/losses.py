"""Metrics that are the mean of a loss over all samples. The equations are in `dlgpu.losses`."""

from typing import Any

from dlgpu import losses
from dlgpu.autograd import no_grad
from dlgpu.metrics.base import SampleMean
from dlgpu.tensor import wrap


class LossMean(SampleMean):
    """The mean of the loss function `loss(y_true, y_pred)` with the arguments in `options`."""

    loss = ""
    options: dict[str, Any] = {}

    def values(self, y_true: Any, y_pred: Any) -> Any:
        with no_grad():
            return getattr(losses, self.loss)(wrap(y_true), wrap(y_pred), **self.options)


class MeanAbsolutePercentageError(LossMean):
    """100 mean(|y_true - y_pred| / |y_true|)"""

    loss = "mean_absolute_percentage_error"
    aliases = ("mape",)

    def __init__(self, name: str = "mean_absolute_percentage_error", dtype: str = "float64"):
        super().__init__(name, dtype)


class MeanSquaredLogarithmicError(LossMean):
    """mean((log(1 + y_true) - log(1 + y_pred))**2)"""

    loss = "mean_squared_logarithmic_error"
    aliases = ("msle",)

    def __init__(self, name: str = "mean_squared_logarithmic_error", dtype: str = "float64"):
        super().__init__(name, dtype)


class LogCoshError(LossMean):
    """mean(log(cosh(y_pred - y_true)))"""

    loss = "log_cosh"
    aliases = ("logcosh", "log_cosh")

    def __init__(self, name: str = "logcosh", dtype: str = "float64"):
        super().__init__(name, dtype)


class KLDivergence(LossMean):
    """sum(y_true log(y_true / y_pred)) over the last axis"""

    loss = "kl_divergence"

    def __init__(self, name: str = "kl_divergence", dtype: str = "float64"):
        super().__init__(name, dtype)


class Poisson(LossMean):
    """mean(y_pred - y_true log(y_pred))"""

    loss = "poisson"

    def __init__(self, name: str = "poisson", dtype: str = "float64"):
        super().__init__(name, dtype)


class Hinge(LossMean):
    """mean(max(1 - y_true y_pred, 0)), with labels -1 and 1 (0 counts as -1)"""

    loss = "hinge"

    def __init__(self, name: str = "hinge", dtype: str = "float64"):
        super().__init__(name, dtype)


class SquaredHinge(LossMean):
    """mean(max(1 - y_true y_pred, 0)**2), with labels -1 and 1 (0 counts as -1)"""

    loss = "squared_hinge"

    def __init__(self, name: str = "squared_hinge", dtype: str = "float64"):
        super().__init__(name, dtype)


class CategoricalHinge(LossMean):
    """max(1 + max((1 - y_true) y_pred) - sum(y_true y_pred), 0) over the last axis"""

    loss = "categorical_hinge"

    def __init__(self, name: str = "categorical_hinge", dtype: str = "float64"):
        super().__init__(name, dtype)


class CosineSimilarity(SampleMean):
    """sum(y_true y_pred) / (|y_true| |y_pred|) over an axis: 1 for the same direction, -1 for the opposite one."""

    def __init__(self, name: str = "cosine_similarity", dtype: str = "float64", axis: int = -1):
        super().__init__(name, dtype)
        self.axis = axis

    def values(self, y_true: Any, y_pred: Any) -> Any:
        with no_grad():  # the loss is to be made small, and so has the other sign
            return -losses.cosine_similarity(wrap(y_true), wrap(y_pred), axis=self.axis)


class BinaryCrossentropy(LossMean):
    """-mean(y_true log(y_pred) + (1 - y_true) log(1 - y_pred))

    Args:
        name: under which the result is reported.
        dtype: of the sums and the result.
        from_logits: the predictions are not probabilities but logits.
        label_smoothing: how far labels are moved from 0 and 1 towards 1/2.
    """

    loss = "binary_crossentropy"
    aliases = ("bce",)

    def __init__(
        self,
        name: str = "binary_crossentropy",
        dtype: str = "float64",
        from_logits: bool = False,
        label_smoothing: float = 0,
    ):
        super().__init__(name, dtype)
        self.options = {"from_logits": from_logits, "label_smoothing": label_smoothing}


class CategoricalCrossentropy(LossMean):
    """-sum(y_true log(y_pred)) over the classes

    Args:
        name: under which the result is reported.
        dtype: of the sums and the result.
        from_logits: the predictions are not probabilities but logits.
        label_smoothing: how far labels are moved from 0 and 1 towards equal probabilities.
        axis: of the classes.
    """

    loss = "categorical_crossentropy"

    def __init__(
        self,
        name: str = "categorical_crossentropy",
        dtype: str = "float64",
        from_logits: bool = False,
        label_smoothing: float = 0,
        axis: int = -1,
    ):
        super().__init__(name, dtype)
        self.options = {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}


class SparseCategoricalCrossentropy(LossMean):
    """-log(y_pred[label]) over the classes, for integer labels

    Args:
        name: under which the result is reported.
        dtype: of the sums and the result.
        from_logits: the predictions are not probabilities but logits.
        ignore_class: a label that does not count.
        axis: of the classes.
    """

    loss = "sparse_categorical_crossentropy"

    def __init__(
        self,
        name: str = "sparse_categorical_crossentropy",
        dtype: str = "float64",
        from_logits: bool = False,
        ignore_class: "int | None" = None,
        axis: int = -1,
    ):
        super().__init__(name, dtype)
        self.options = {"from_logits": from_logits, "ignore_class": ignore_class, "axis": axis}
