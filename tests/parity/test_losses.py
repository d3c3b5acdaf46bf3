"""Losses and their gradients: as PyTorch, and as Keras, with weights, masks and reductions."""

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dlgpu import Tensor, losses

RNG = np.random.default_rng(0)
ROWS, CLASSES = 24, 7
LOGITS = RNG.normal(0, 3, (ROWS, CLASSES)).astype(np.float32)
PROBABILITIES = torch.softmax(torch.tensor(LOGITS), -1).numpy()
TARGETS = RNG.dirichlet(np.ones(CLASSES), ROWS).astype(np.float32)
BINARY = RNG.integers(0, 2, (ROWS, CLASSES)).astype(np.float32)
LABELS = RNG.integers(0, CLASSES, ROWS)
NUMBERS = RNG.normal(0, 2, (ROWS, CLASSES)).astype(np.float32)
WEIGHTS = RNG.uniform(0, 2, ROWS).astype(np.float32)


def agree(ours, theirs, prediction):
    """Both losses of a prediction, and their gradients by it."""
    p, t = Tensor(prediction, requires_grad=True), torch.tensor(prediction, requires_grad=True)
    mine, other = ours(p), theirs(t)
    mine.backward()
    other.backward()
    np.testing.assert_allclose(mine.item(), other.item(), rtol=1e-5)
    expected = t.grad.numpy()
    np.testing.assert_allclose(p.grad.numpy(), expected, rtol=1e-5, atol=1e-6 * abs(expected).max())


TORCH = {
    "binary_crossentropy from logits": (
        losses.BinaryCrossentropy(from_logits=True),
        BINARY,
        LOGITS,
        lambda p, t: F.binary_cross_entropy_with_logits(p, t),
    ),
    "binary_crossentropy": (losses.BinaryCrossentropy(), BINARY, PROBABILITIES, F.binary_cross_entropy),
    "categorical_crossentropy from logits": (
        losses.CategoricalCrossentropy(from_logits=True),
        TARGETS,
        LOGITS,
        F.cross_entropy,
    ),
    "label smoothing": (
        losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        np.eye(CLASSES, dtype=np.float32)[LABELS],
        LOGITS,
        lambda p, t: F.cross_entropy(p, t, label_smoothing=0.1),
    ),
    "sparse_categorical_crossentropy from logits": (
        losses.SparseCategoricalCrossentropy(from_logits=True),
        LABELS,
        LOGITS,
        F.cross_entropy,
    ),
    "ignored class": (
        losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=2),
        LABELS,
        LOGITS,
        lambda p, t: F.cross_entropy(p, t, ignore_index=2),
    ),
    "mean_squared_error": (losses.MeanSquaredError(), NUMBERS, LOGITS, F.mse_loss),
    "mean_absolute_error": (losses.MeanAbsoluteError(), NUMBERS, LOGITS, F.l1_loss),
    "huber": (losses.Huber(1.7), NUMBERS, LOGITS, lambda p, t: F.huber_loss(p, t, delta=1.7)),
    "kl_divergence": (
        losses.KLDivergence(),
        TARGETS,
        PROBABILITIES,
        lambda p, t: F.kl_div(p.clamp(1e-7, 1).log(), t.clamp(1e-7, 1), reduction="batchmean"),
    ),
    "poisson": (
        losses.Poisson(),
        abs(NUMBERS),
        PROBABILITIES,
        lambda p, t: F.poisson_nll_loss(p, t, log_input=False, eps=1e-7),
    ),
    "cosine_similarity": (
        losses.CosineSimilarity(),
        NUMBERS,
        LOGITS,
        lambda p, t: -F.cosine_similarity(p, t, dim=-1).mean(),
    ),
}
KERAS = {
    "BinaryCrossentropy": (BINARY, PROBABILITIES),
    "CategoricalCrossentropy": (TARGETS, PROBABILITIES),
    "CategoricalHinge": (np.eye(CLASSES, dtype=np.float32)[LABELS], LOGITS),
    "CosineSimilarity": (NUMBERS, LOGITS),
    "Hinge": (BINARY, LOGITS),
    "Huber": (NUMBERS, LOGITS),
    "KLDivergence": (TARGETS, PROBABILITIES),
    "LogCosh": (NUMBERS, LOGITS),
    "MeanAbsoluteError": (NUMBERS, LOGITS),
    "MeanAbsolutePercentageError": (NUMBERS, LOGITS),
    "MeanSquaredError": (NUMBERS, LOGITS),
    "MeanSquaredLogarithmicError": (abs(NUMBERS), LOGITS),
    "Poisson": (abs(NUMBERS), PROBABILITIES),
    "SparseCategoricalCrossentropy": (LABELS, PROBABILITIES),
    "SquaredHinge": (BINARY * 2 - 1, LOGITS),
}


@pytest.mark.parametrize("name", TORCH)
def test_loss_is_torchs(name):
    loss, labels, prediction, theirs = TORCH[name]
    agree(lambda p: loss(labels, p), lambda p: theirs(p, torch.tensor(labels)), prediction)


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("name", KERAS)
def test_loss_is_keras(name, weights, reduction):
    labels, prediction = KERAS[name]
    ours, theirs = getattr(losses, name)(reduction=reduction), getattr(keras.losses, name)(reduction=reduction)
    assert ours.name == theirs.name
    agree(lambda p: ours(labels, p, weights), lambda p: theirs(labels, p, weights), prediction)


@pytest.mark.parametrize("name", ["bce", "kld", "mae", "mse", "mape", "msle", "MSE"])
def test_short_names_are_keras(name):
    labels = BINARY if name == "bce" else TARGETS
    theirs = keras.losses.get(name)(torch.tensor(labels), torch.tensor(PROBABILITIES)).mean().item()
    assert losses.get(name)(labels, PROBABILITIES).item() == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "labels"),
    [("BinaryCrossentropy", np.zeros((1, 6))), ("BinaryCrossentropy", np.ones((1, 6)))]
    + [("SparseCategoricalCrossentropy", np.array([label])) for label in range(6)],
)
def test_probabilities_at_and_near_their_ends_are_clipped_as_keras_clips_them(name, labels):
    p = np.array([[0, 1, 1e-8, 1e-6, 1 - 1e-6, 0.5]], np.float32)
    ours, theirs = getattr(losses, name)(), getattr(keras.losses, name)()
    agree(lambda t: ours(labels, t), lambda t: theirs(labels, t), p)


def test_masked_predictions_are_weighed_as_keras_weighs_them():
    labels, prediction = NUMBERS.reshape(4, 6, CLASSES), LOGITS.reshape(4, 6, CLASSES)
    mask, weights = RNG.integers(0, 2, (4, 6)).astype(bool), WEIGHTS.reshape(4, 6)

    def ours(p):
        p.mask = Tensor(mask)
        return losses.MeanSquaredError()(labels, p, weights)

    def theirs(p):
        p._keras_mask = torch.tensor(mask)
        return keras.losses.MeanSquaredError()(labels, p, weights)

    agree(ours, theirs, prediction)
