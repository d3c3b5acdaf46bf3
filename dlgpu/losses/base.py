"""Loss: one value for each sample, weighted and reduced to the number that training makes small."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from dlgpu.backend.dispatch import is_floating
from dlgpu.backend.narrow import is_narrow
from dlgpu.errors import unknown_name
from dlgpu.losses.labels import check_shape, check_values
from dlgpu.ops.elementwise import maximum
from dlgpu.ops.operands import astype, floating
from dlgpu.ops.shape import broadcast_to
from dlgpu.saving.configurable import Configurable, function_named, snake_case
from dlgpu.tensor import Tensor, as_tensor

EPSILON = 1e-7  # Keras's: how far values are kept from 0 under a logarithm or a division
REDUCTIONS = ("sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", "none", None)


class Loss(Configurable):
    """loss(y_true, y_pred, sample_weight=None) -> a Tensor of one element (or of values, with no reduction).

        class Quartic(Loss):
            def call(self, y_true, y_pred):
                return dlgpu.ops.mean((y_true - y_pred) ** 4, axis=-1)

    Args:
        name: made from the class's name by default.
        reduction: "sum_over_batch_size" or "mean": the mean of the weighted values, over the number of values;
            "sum": their sum; "mean_with_sample_weight": their sum over the sum of the weights; "none" or None: none.
    """

    def __init__(self, name: str | None = None, reduction: str | None = "sum_over_batch_size", **kwargs: Any):
        super().__init__(**kwargs)
        self.name = name or snake_case(type(self).__name__)
        if reduction not in REDUCTIONS:
            raise ValueError(f"{self.name}: {unknown_name('reduction', reduction, map(str, REDUCTIONS))}")
        self.reduction = reduction

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The values of single samples: (batch,), or (batch, time) and so on."""
        raise NotImplementedError(f"{type(self).__name__} does not define call()")

    def check_labels(self, y_true: Any, y_pred_shape: tuple) -> None:
        """Check a whole array of labels on the host before training: its shape, its dtype, its range.

        A loss of the user's own knows its labels itself; nothing is checked then.

        Args:
            y_true: labels of all samples.
            y_pred_shape: the model's output shape, None where a length is unknown.
        Raises:
            ValueError: what was expected, and the first row that differs.
        """

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        y_pred = widened(as_tensor(y_pred))
        y_true = as_labels(y_true, y_pred)
        values = self.call(astype(y_true, y_pred.dtype) if is_floating(y_true) else y_true, y_pred)
        mask = y_pred.mask
        if values.mask is not None:  # the loss's own: classes that it ignores
            mask = values.mask if mask is None else mask * values.mask
        if sample_weight is None and mask is None and self.reduction in ("sum_over_batch_size", "mean"):
            return values.mean() if values.size else values.sum()
        return self._reduce(values, self._weights(values, sample_weight, mask))

    def _weights(self, values: Tensor, sample_weight: Any, mask: Any) -> Tensor | None:
        """The factor of each value, aligned with `values`; None for ones."""
        weights = None
        if sample_weight is not None:
            weights = weights_along(
                astype(as_labels(sample_weight, values), values.dtype), values.shape, "sample_weight"
            )
        if mask is not None:
            kept = weights_along(astype(mask, values.dtype), values.shape, "the mask of the predictions")
            if self.reduction in ("sum_over_batch_size", "mean"):
                kept = kept * (kept.size / maximum(kept.sum(), 1))  # so that the mean is over what is kept
            weights = kept if weights is None else weights * kept
        return weights

    def _reduce(self, values: Tensor, weights: Tensor | None) -> Tensor:
        weighted = values if weights is None else values * weights
        if self.reduction in ("none", None):
            return weighted
        if self.reduction == "sum":
            return weighted.sum()
        if self.reduction == "mean_with_sample_weight" and weights is not None:
            total = broadcast_to(weights, values.shape).sum()
            return weighted.sum() / (total + astype(total == 0, total.dtype))
        return weighted.sum() / max(values.size, 1)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


def widened(predictions: Tensor) -> Tensor:
    """16-bit predictions as float32, in which losses are computed; their mask stays."""
    if not is_narrow(predictions):
        return predictions
    made = astype(predictions, np.float32)
    made.mask = predictions.mask
    return made


class FunctionLoss(Loss):
    """A function of (y_true, y_pred, **options) as a Loss. The ranks of both are made to agree first.

    Args:
        function: to a Tensor of values, one for each sample.
        reduction: as for every Loss.
        name: the function's by default.
        kwargs: further arguments of the function.
    """

    labels_between: ClassVar[tuple[float, float] | None] = None  # None: nothing is known of the labels
    labels_hint: ClassVar[str] = ""

    def __init__(
        self,
        function: Callable | str,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        **kwargs: Any,
    ):
        if isinstance(function, str):  # from a configuration
            function = function_named(function)
        super().__init__(name or getattr(function, "__name__", snake_case(type(function).__name__)), reduction)
        self.function = function
        self.options = kwargs

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = same_rank(y_true, y_pred)
        return as_tensor(self.function(y_true, y_pred, **self.options))

    def check_labels(self, y_true: Any, y_pred_shape: tuple) -> None:
        if self.labels_between is not None:
            labels = check_shape(self.name, y_true, y_pred_shape, self.labels_hint)
            check_values(self.name, labels, *self.labels_between)


class PresetLoss(FunctionLoss, abstract=True):
    """A loss whose function is its class's."""

    function: Callable

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str | None = None):
        super().__init__(self.function, reduction, name or snake_case(type(self).__name__))


def as_labels(value: Any, like: Tensor) -> Tensor:
    """`value` as a Tensor on the device of `like`; a list keeps the precision of its numbers."""
    if isinstance(value, Tensor):
        return value if type(value.array) is type(like.array) else value.to(like.device)
    return Tensor(value if hasattr(value, "dtype") else np.asarray(value), device=like.device)


def same_rank(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Both with as many dimensions, where they differ by one last axis of length 1: labels (n,) fit outputs (n, 1).

    For Tensors and for bare arrays.
    """
    if y_true.ndim == y_pred.ndim + 1 and y_true.shape[-1] == 1:
        if y_pred.ndim == 1:
            return y_true, y_pred.reshape(*y_pred.shape, 1)
        return y_true.reshape(y_true.shape[:-1]), y_pred
    if y_pred.ndim == y_true.ndim + 1 and y_pred.shape[-1] == 1:
        return y_true.reshape(*y_true.shape, 1), y_pred
    return y_true, y_pred


def pair(y_true: Any, y_pred: Any) -> tuple[Tensor, Tensor]:
    """Labels and predictions as floating Tensors of one dtype and one shape.

    Raises:
        ValueError: the shapes differ by more than a last axis of length 1.
    """
    y_pred = floating(y_pred)
    y_true, y_pred = same_rank(astype(as_labels(y_true, y_pred), y_pred.dtype), y_pred)
    if y_true.shape != y_pred.shape or not y_pred.ndim:
        raise ValueError(f"expected labels of the predictions' shape {y_pred.shape}, got {y_true.shape}")
    return y_true, y_pred


def weights_along(weights: Any, shape: tuple, what: str) -> Any:
    """`weights` with axes of length 1 put behind its own (or dropped there), so that they go along `shape`.

    For Tensors and for bare arrays.
    """
    if weights.ndim == len(shape) + 1 and weights.shape[-1] == 1:
        weights = weights.reshape(weights.shape[:-1])
    if weights.ndim < len(shape) and weights.shape == shape[: weights.ndim]:
        weights = weights.reshape(weights.shape + (1,) * (len(shape) - weights.ndim))
    if weights.ndim > len(shape) or any(w not in (1, n) for w, n in zip(weights.shape[::-1], shape[::-1])):
        raise ValueError(f"expected {what} to fit values of shape {shape}, got shape {weights.shape}")
    return weights
