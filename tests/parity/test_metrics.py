"""Metrics give Keras's numbers over several batches, with and without weights."""

import keras
import numpy as np
import pytest

from dlgpu import metrics

BINARY = [
    "BinaryAccuracy",
    "BinaryCrossentropy",
    "Precision",
    "Recall",
    "TruePositives",
    "FalsePositives",
    "TrueNegatives",
    "FalseNegatives",
    "AUC",
]
REGRESSION = [
    "MeanSquaredError",
    "RootMeanSquaredError",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredLogarithmicError",
    "LogCoshError",
    "CosineSimilarity",
    "Poisson",
    "R2Score",
]
CLASSES = ["CategoricalAccuracy", "CategoricalCrossentropy", "KLDivergence", "CategoricalHinge", "F1Score"]
SPARSE = ["SparseCategoricalAccuracy", "SparseCategoricalCrossentropy"]

CASES = [(name, {}, "binary") for name in BINARY]
CASES += [(name, {}, "regression") for name in REGRESSION]
CASES += [(name, {}, "classes") for name in CLASSES]
CASES += [(name, {}, "sparse") for name in SPARSE]
CASES += [
    ("Accuracy", {}, "labels"),
    ("Hinge", {}, "signs"),
    ("SquaredHinge", {}, "signs"),
    ("BinaryAccuracy", {"threshold": 0.3}, "binary"),
    ("BinaryCrossentropy", {"from_logits": True, "label_smoothing": 0.2}, "binary"),
    ("Precision", {"thresholds": [0.7, 0.2, 0.5]}, "binary"),
    ("Recall", {"top_k": 2}, "classes"),
    ("Precision", {"top_k": 2, "class_id": 1}, "classes"),
    ("AUC", {"curve": "PR"}, "binary"),
    ("AUC", {"num_thresholds": 11, "summation_method": "majoring"}, "binary"),
    ("AUC", {"curve": "PR", "summation_method": "minoring"}, "binary"),
    ("AUC", {"thresholds": [0.3, 0.1, 0.8]}, "binary"),
    ("AUC", {"from_logits": True}, "binary"),
    ("SensitivityAtSpecificity", {"specificity": 0.6}, "binary"),
    ("SpecificityAtSensitivity", {"sensitivity": 0.6}, "binary"),
    ("PrecisionAtRecall", {"recall": 0.6}, "binary"),
    ("RecallAtPrecision", {"precision": 0.6}, "binary"),
    ("CategoricalCrossentropy", {"label_smoothing": 0.1}, "classes"),
    ("TopKCategoricalAccuracy", {"k": 2}, "classes"),
    ("SparseTopKCategoricalAccuracy", {"k": 2}, "sparse"),
    ("F1Score", {"average": "micro", "threshold": 0.4}, "classes"),
    ("FBetaScore", {"average": "weighted", "beta": 2.0}, "classes"),
    ("FBetaScore", {"average": "macro", "beta": 0.5}, "classes"),
    ("R2Score", {"class_aggregation": "variance_weighted_average"}, "regression"),
]
VALUES = [("Mean", {}), ("Sum", {})]


def data(kind, rng, samples):
    """Labels and predictions of one batch."""
    if kind == "binary":
        return rng.integers(0, 2, (samples, 1)), rng.random((samples, 1))
    if kind == "regression":
        return rng.random((samples, 3)) + 0.1, rng.random((samples, 3)) + 0.1
    if kind == "labels":
        return rng.integers(0, 3, (samples, 2)), rng.integers(0, 3, (samples, 2))
    if kind == "signs":
        return rng.choice([-1, 1], (samples, 2)), rng.normal(size=(samples, 2))
    scores = rng.random((samples, 5)) + 0.01
    labels = rng.integers(0, 5, samples)
    return (labels if kind == "sparse" else np.eye(5)[labels]), scores / scores.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("name", "arguments", "kind"), CASES)
def test_metrics_equal_keras(name, arguments, kind, weighted, rng):
    ours, theirs = getattr(metrics, name)(**arguments), getattr(keras.metrics, name)(**arguments)
    assert ours.name == theirs.name or theirs.name.startswith(ours.name + "_")
    for samples in (7, 1, 12):
        y_true, y_pred = data(kind, rng, samples)
        y_pred = y_pred.astype(np.float32)
        weight = rng.random(samples).astype(np.float32) if weighted else None
        ours.update_state(y_true, y_pred, weight)
        theirs.update_state(y_true.astype(np.float32), y_pred, weight)
        np.testing.assert_allclose(ours.result().numpy(), theirs.result().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("name", "arguments"), VALUES)
def test_metrics_of_values_equal_keras(name, arguments, weighted, rng):
    ours, theirs = getattr(metrics, name)(**arguments), getattr(keras.metrics, name)(**arguments)
    for samples in (7, 1, 12):
        values = rng.normal(size=(samples, 2)).astype(np.float32)
        weight = rng.random(samples).astype(np.float32) if weighted else None
        ours.update_state(values, weight)
        theirs.update_state(values, weight)
        np.testing.assert_allclose(float(ours.result()), float(theirs.result()), rtol=1e-5)


def test_weights_of_single_steps_equal_keras(rng):
    y_true, y_pred, weight = rng.random((4, 5, 2)), rng.random((4, 5, 2)), rng.random((4, 5))
    ours, theirs = metrics.MeanSquaredError(), keras.metrics.MeanSquaredError()
    ours.update_state(y_true, y_pred, weight)
    theirs.update_state(y_true, y_pred, weight)
    np.testing.assert_allclose(float(ours.result()), float(theirs.result()), rtol=1e-5)
