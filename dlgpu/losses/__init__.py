"""Losses, with Keras's names, arguments and defaults: classes that reduce, and functions of single samples."""

from collections.abc import Callable
from typing import Any

from dlgpu.losses.base import FunctionLoss, Loss, PresetLoss
from dlgpu.losses.hinge import CategoricalHinge, Hinge, SquaredHinge, categorical_hinge, hinge, squared_hinge
from dlgpu.losses.probabilistic import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    KLDivergence,
    Poisson,
    SparseCategoricalCrossentropy,
    binary_crossentropy,
    categorical_crossentropy,
    kl_divergence,
    poisson,
    sparse_categorical_crossentropy,
)
from dlgpu.losses.regression import (
    CosineSimilarity,
    Huber,
    LogCosh,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    cosine_similarity,
    huber,
    log_cosh,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_logarithmic_error,
)

_CLASSES: dict[Callable, type[PresetLoss]] = {cls.function: cls for cls in PresetLoss.__subclasses__()}


def get(identifier: Any) -> Loss | None:
    """The loss that `identifier` means: a Loss, a class of them, a name, a configuration, a function, or None.

    A function of (y_true, y_pred) that returns the values of single samples is wrapped as a FunctionLoss.

    Raises:
        ValueError: an unknown name; the message names the nearest known one.
        TypeError: none of these.
    """
    if callable(identifier) and not isinstance(identifier, (Loss, type)):
        known = _CLASSES.get(identifier) if hasattr(identifier, "__code__") else None
        return known() if known else FunctionLoss(identifier)
    return Loss.get(identifier)
