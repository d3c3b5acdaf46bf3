"""Metrics: numbers that watch training and tell how good a model is, with Keras's names and arguments."""

from typing import Any

from dlgpu.metrics.accuracy import (
    Accuracy,
    BinaryAccuracy,
    CategoricalAccuracy,
    SparseCategoricalAccuracy,
    SparseTopKCategoricalAccuracy,
    TopKCategoricalAccuracy,
)
from dlgpu.metrics.base import Mean, MeanMetricWrapper, Metric, Sum
from dlgpu.metrics.confusion import FalseNegatives, FalsePositives, Precision, Recall, TrueNegatives, TruePositives
from dlgpu.metrics.curves import (
    AUC,
    PrecisionAtRecall,
    RecallAtPrecision,
    SensitivityAtSpecificity,
    SpecificityAtSensitivity,
)
from dlgpu.metrics.f_score import F1Score, FBetaScore
from dlgpu.metrics.losses import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    CategoricalHinge,
    CosineSimilarity,
    Hinge,
    KLDivergence,
    LogCoshError,
    MeanAbsolutePercentageError,
    MeanSquaredLogarithmicError,
    Poisson,
    SparseCategoricalCrossentropy,
    SquaredHinge,
)
from dlgpu.metrics.regression import MeanAbsoluteError, MeanSquaredError, R2Score, RootMeanSquaredError

# the names whose meaning depends on the shapes of labels and outputs: binary, sparse, categorical
BY_SHAPE = {
    "accuracy": (BinaryAccuracy, SparseCategoricalAccuracy, CategoricalAccuracy),
    "crossentropy": (BinaryCrossentropy, SparseCategoricalCrossentropy, CategoricalCrossentropy),
}
BY_SHAPE |= {"acc": BY_SHAPE["accuracy"], "ce": BY_SHAPE["crossentropy"]}


def get(identifier: Any) -> Any:
    """The Metric that `identifier` means: a Metric, a class, a name, a configuration, or None; a function of
    (y_true, y_pred) is wrapped into its mean. A metric found by name reports under that name.

    Raises:
        ValueError: an unknown name; the message names the nearest known one.
    """
    if callable(identifier) and not isinstance(identifier, (type, Metric)):
        return MeanMetricWrapper(identifier)
    metric = Metric.get(identifier)
    if isinstance(identifier, str):
        metric.name = identifier
    return metric


def for_output(identifier: Any, y_true_shape: tuple, y_pred_shape: tuple) -> Any:
    """The Metric for an output: "accuracy" and "crossentropy" ("acc", "ce") go by the shapes of a batch.

    One output is binary; labels without the classes' axis, or with one of length 1, are sparse; others categorical.
    """
    if not isinstance(identifier, str) or identifier.lower() not in BY_SHAPE:
        return get(identifier)
    binary, sparse, categorical = BY_SHAPE[identifier.lower()]
    if y_pred_shape[-1] == 1:
        return binary(name=identifier)
    if len(y_true_shape) < len(y_pred_shape) or y_true_shape[-1] == 1:
        return sparse(name=identifier)
    return categorical(name=identifier)
