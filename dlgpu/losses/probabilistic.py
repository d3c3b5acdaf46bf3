"""Losses between distributions: cross-entropies, Kullback-Leibler divergence, Poisson."""

import math
from typing import Any

from dlgpu.losses.base import EPSILON, PresetLoss, as_labels, pair
from dlgpu.losses.labels import check_classes
from dlgpu.ops.elementwise import clip, log, not_equal, where
from dlgpu.ops.operands import astype, floating
from dlgpu.ops.reduction import mean
from dlgpu.ops.shape import moveaxis, squeeze
from dlgpu.ops.softmax import (
    binary_cross_entropy,
    categorical_cross_entropy,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
)
from dlgpu.tensor import Tensor


def binary_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Tensor:
    """mean(-y_true log(y_pred) - (1 - y_true) log(1 - y_pred)) over an axis.

    Args:
        y_true: labels in [0, 1].
        y_pred: probabilities, which are kept 1e-7 from 0 and 1; or their logits.
        from_logits: whether y_pred are logits.
        label_smoothing: how far, in [0, 1], the labels are moved towards 1 / 2.
        axis: to average over.
    """
    y_true, y_pred = pair(y_true, y_pred)
    if label_smoothing:
        y_true = y_true * (1 - label_smoothing) + 0.5 * label_smoothing
    if axis not in (-1, y_pred.ndim - 1):
        y_true, y_pred = moveaxis(y_true, axis, -1), moveaxis(y_pred, axis, -1)
    return (sigmoid_cross_entropy if from_logits else binary_cross_entropy)(y_pred, y_true)


def categorical_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Tensor:
    """-sum(y_true log(y_pred)) over the axis of classes.

    Args:
        y_true: one-hot labels, or probabilities of the classes.
        y_pred: probabilities, which are divided by their sum and kept 1e-7 from 0 and 1; or their logits.
        from_logits: whether y_pred are logits.
        label_smoothing: how far, in [0, 1], the labels are moved towards 1 / classes.
        axis: of the classes.
    """
    y_true, y_pred = pair(y_true, y_pred)
    if label_smoothing:
        y_true = y_true * (1 - label_smoothing) + label_smoothing / y_pred.shape[axis]
    if axis not in (-1, y_pred.ndim - 1):
        y_true, y_pred = moveaxis(y_true, axis, -1), moveaxis(y_pred, axis, -1)
    return (softmax_cross_entropy if from_logits else categorical_cross_entropy)(y_pred, y_true)


def sparse_categorical_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, ignore_class: int | None = None, axis: int = -1
) -> Tensor:
    """-log(y_pred[y_true]) for integer labels.

    Args:
        y_true: integers in [0, classes), of y_pred's shape without the axis of classes, or with length 1 there.
        y_pred: probabilities, which are divided by their sum and kept 1e-7 from 0 and 1; or their logits.
        from_logits: whether y_pred are logits.
        ignore_class: a label whose samples count for nothing; the result's `mask` leaves them out of a Loss's mean.
        axis: of the classes.
    """
    y_pred = floating(y_pred)
    y_true = as_labels(y_true, y_pred)
    if y_true.ndim == y_pred.ndim and y_true.shape[axis] == 1:
        y_true = squeeze(y_true, axis)
    if y_true.dtype.kind not in "iu":
        y_true = astype(y_true, "int64")
    if axis not in (-1, y_pred.ndim - 1):
        y_pred = moveaxis(y_pred, axis, -1)
    if y_true.shape != y_pred.shape[:-1]:
        raise ValueError(f"expected labels of shape {y_pred.shape[:-1]}, got {y_true.shape}")
    counted = None if ignore_class is None else not_equal(y_true, ignore_class)
    labels = y_true if counted is None else where(counted, y_true, 0)
    values = (softmax_cross_entropy if from_logits else categorical_cross_entropy)(y_pred, labels)
    if counted is not None:
        values = where(counted, values, 0.0)
        values.mask = counted
    return values


def kl_divergence(y_true: Any, y_pred: Any) -> Tensor:
    """sum(y_true log(y_true / y_pred)) over the last axis, both clipped to [1e-7, 1]."""
    y_true, y_pred = pair(y_true, y_pred)
    y_true, y_pred = clip(y_true, EPSILON, 1.0), clip(y_pred, EPSILON, 1.0)
    return (y_true * log(y_true / y_pred)).sum(-1)


def poisson(y_true: Any, y_pred: Any) -> Tensor:
    """mean(y_pred - y_true log(y_pred + 1e-7)) over the last axis."""
    y_true, y_pred = pair(y_true, y_pred)
    return mean(y_pred - y_true * log(y_pred + EPSILON), -1)


class BinaryCrossentropy(PresetLoss):
    """Cross-entropy of labels in [0, 1] and probabilities of class 1; the arguments are `binary_crossentropy`'s."""

    function = staticmethod(binary_crossentropy)
    aliases = ("bce",)
    labels_between = (0, 1)
    labels_hint = " For several classes use sparse_categorical_crossentropy or categorical_crossentropy."

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ):
        super().__init__(reduction, name)
        self.options = {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}


class CategoricalCrossentropy(PresetLoss):
    """Cross-entropy of one-hot labels and probabilities; the arguments are `categorical_crossentropy`'s."""

    function = staticmethod(categorical_crossentropy)
    labels_between = (0, 1)
    labels_hint = " For integer labels use sparse_categorical_crossentropy."

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ):
        super().__init__(reduction, name)
        self.options = {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}


class SparseCategoricalCrossentropy(PresetLoss):
    """Cross-entropy of integer labels and probabilities; the arguments are `sparse_categorical_crossentropy`'s."""

    function = staticmethod(sparse_categorical_crossentropy)

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        axis: int = -1,
        name: str | None = None,
    ):
        super().__init__(reduction, name)
        self.options = {"from_logits": from_logits, "ignore_class": ignore_class, "axis": axis}

    def check_labels(self, y_true: Any, y_pred_shape: tuple) -> None:
        check_classes(self.name, y_true, y_pred_shape, self.options["axis"], self.options["ignore_class"])


class KLDivergence(PresetLoss):
    """sum(y_true log(y_true / y_pred)) for probabilities."""

    function = staticmethod(kl_divergence)
    aliases = ("kld", "kullback_leibler_divergence")
    labels_between = (0, 1)


class Poisson(PresetLoss):
    """mean(y_pred - y_true log(y_pred)) for counts and their expected values."""

    function = staticmethod(poisson)
    labels_between = (0, math.inf)
