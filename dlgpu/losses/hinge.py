"""Hinge losses: labels are -1 or 1, and a prediction is asked to be past the label by a margin of 1."""

from typing import Any

from dlgpu.losses.base import PresetLoss, pair
from dlgpu.ops.elementwise import maximum, square, where
from dlgpu.ops.reduction import mean
from dlgpu.tensor import Tensor, wrap


def hinge(y_true: Any, y_pred: Any) -> Tensor:
    """mean(max(1 - y_true y_pred, 0)) over the last axis; labels of 0 and 1 become -1 and 1."""
    y_true, y_pred = pair(y_true, y_pred)
    return mean(maximum(1.0 - signed(y_true) * y_pred, 0), -1)


def squared_hinge(y_true: Any, y_pred: Any) -> Tensor:
    """mean(max(1 - y_true y_pred, 0)**2) over the last axis; labels of 0 and 1 become -1 and 1."""
    y_true, y_pred = pair(y_true, y_pred)
    return mean(square(maximum(1.0 - signed(y_true) * y_pred, 0)), -1)


def categorical_hinge(y_true: Any, y_pred: Any) -> Tensor:
    """max(the largest wrong score - the right score + 1, 0), for one-hot y_true along the last axis."""
    y_true, y_pred = pair(y_true, y_pred)
    right = (y_true * y_pred).sum(-1)
    wrong = ((1.0 - y_true) * y_pred).max(-1)
    return maximum(wrong - right + 1.0, 0)


def signed(y_true: Tensor) -> Tensor:
    """Labels as -1 and 1: if all of them are 0 or 1, as 2 y - 1; decided where the labels live."""
    array = y_true.array
    return where(wrap(((array == 0) | (array == 1)).all()), y_true * 2.0 - 1.0, y_true)


class Hinge(PresetLoss):
    """mean(max(1 - y_true y_pred, 0))."""

    function = staticmethod(hinge)
    labels_between = (-1, 1)


class SquaredHinge(PresetLoss):
    """mean(max(1 - y_true y_pred, 0)**2)."""

    function = staticmethod(squared_hinge)
    labels_between = (-1, 1)


class CategoricalHinge(PresetLoss):
    """max(the largest wrong score - the right score + 1, 0), for one-hot labels."""

    function = staticmethod(categorical_hinge)
    labels_between = (0, 1)
