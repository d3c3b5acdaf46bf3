"""Losses between numbers: squares, absolute values and what lies between, averaged over the last axis."""

import math
from typing import Any

from dlgpu.losses.base import EPSILON, PresetLoss, pair
from dlgpu.ops.activation import softplus
from dlgpu.ops.elementwise import absolute, clip, less_equal, log1p, maximum, sqrt, square, where
from dlgpu.ops.reduction import mean
from dlgpu.tensor import Tensor

ANY = (-math.inf, math.inf)


def mean_squared_error(y_true: Any, y_pred: Any) -> Tensor:
    """mean((y_true - y_pred)**2) over the last axis."""
    y_true, y_pred = pair(y_true, y_pred)
    return mean(square(y_pred - y_true), -1)


def mean_absolute_error(y_true: Any, y_pred: Any) -> Tensor:
    """mean(|y_true - y_pred|) over the last axis."""
    y_true, y_pred = pair(y_true, y_pred)
    return mean(absolute(y_pred - y_true), -1)


def mean_absolute_percentage_error(y_true: Any, y_pred: Any) -> Tensor:
    """100 mean(|y_true - y_pred| / max(|y_true|, 1e-7)) over the last axis."""
    y_true, y_pred = pair(y_true, y_pred)
    return 100.0 * mean(absolute((y_true - y_pred) / maximum(absolute(y_true), EPSILON)), -1)


def mean_squared_logarithmic_error(y_true: Any, y_pred: Any) -> Tensor:
    """mean((log(1 + y_true) - log(1 + y_pred))**2) over the last axis; values under 1e-7 count as 1e-7."""
    y_true, y_pred = pair(y_true, y_pred)
    return mean(square(log1p(clip(y_pred, EPSILON)) - log1p(clip(y_true, EPSILON))), -1)


def huber(y_true: Any, y_pred: Any, delta: float = 1.0) -> Tensor:
    """mean of e**2 / 2 where |e| <= delta, and of delta |e| - delta**2 / 2 elsewhere, for e = y_pred - y_true."""
    y_true, y_pred = pair(y_true, y_pred)
    error = y_pred - y_true
    size = absolute(error)
    return mean(where(less_equal(size, delta), square(error) * 0.5, size * delta - 0.5 * delta * delta), -1)


def log_cosh(y_true: Any, y_pred: Any) -> Tensor:
    """mean(log(cosh(y_pred - y_true))) over the last axis, with no overflow."""
    y_true, y_pred = pair(y_true, y_pred)
    error = y_pred - y_true
    return mean(error + softplus(error * -2.0) - math.log(2), -1)


def cosine_similarity(y_true: Any, y_pred: Any, axis: int = -1) -> Tensor:
    """Minus the cosine of the angle between y_true and y_pred: from -1, alike, to 1, opposite. 0 where one is zero."""
    y_true, y_pred = pair(y_true, y_pred)
    return -(_unit(y_true, axis) * _unit(y_pred, axis)).sum(axis)


def _unit(x: Tensor, axis: int) -> Tensor:
    return x / sqrt(maximum(square(x).sum(axis, keepdims=True), EPSILON**2))


class MeanSquaredError(PresetLoss):
    """mean((y_true - y_pred)**2)."""

    function = staticmethod(mean_squared_error)
    aliases = ("mse",)
    labels_between = ANY


class MeanAbsoluteError(PresetLoss):
    """mean(|y_true - y_pred|)."""

    function = staticmethod(mean_absolute_error)
    aliases = ("mae",)
    labels_between = ANY


class MeanAbsolutePercentageError(PresetLoss):
    """100 mean(|y_true - y_pred| / |y_true|)."""

    function = staticmethod(mean_absolute_percentage_error)
    aliases = ("mape",)
    labels_between = ANY


class MeanSquaredLogarithmicError(PresetLoss):
    """mean((log(1 + y_true) - log(1 + y_pred))**2)."""

    function = staticmethod(mean_squared_logarithmic_error)
    aliases = ("msle",)
    labels_between = ANY


class Huber(PresetLoss):
    """Half the square of an error up to delta, linear beyond.

    Args:
        delta: where the square goes over into a line.
    """

    function = staticmethod(huber)
    aliases = ("huber_loss",)
    labels_between = ANY

    def __init__(self, delta: float = 1.0, reduction: str | None = "sum_over_batch_size", name: str = "huber_loss"):
        super().__init__(reduction, name)
        self.options = {"delta": delta}


class LogCosh(PresetLoss):
    """mean(log(cosh(y_pred - y_true)))."""

    function = staticmethod(log_cosh)
    aliases = ("logcosh",)
    labels_between = ANY


class CosineSimilarity(PresetLoss):
    """Minus the cosine of the angle between y_true and y_pred.

    Args:
        axis: along which they are vectors.
    """

    function = staticmethod(cosine_similarity)
    labels_between = ANY

    def __init__(self, axis: int = -1, reduction: str | None = "sum_over_batch_size", name: str | None = None):
        super().__init__(reduction, name)
        self.options = {"axis": axis}
