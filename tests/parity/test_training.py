"""Weights after 20 steps of training are Keras's, with each layer, each loss and each optimizer.

From the same weights on the same batches; with SGD to 1e-4, otherwise to 1e-3.
"""

import keras
import numpy as np
import pytest

import dlgpu
from tests.parity.layer_cases import CASES, build, data

STEPS, BATCH = 20, 8
LOSSES = {
    "BinaryCrossentropy": ("sigmoid", "binary"),
    "CategoricalCrossentropy": ("softmax", "classes"),
    "CategoricalHinge": ("softmax", "classes"),
    "CosineSimilarity": ("linear", "numbers"),
    "Hinge": ("tanh", "binary"),
    "Huber": ("linear", "numbers"),
    "KLDivergence": ("softmax", "classes"),
    "LogCosh": ("linear", "numbers"),
    "MeanAbsoluteError": ("linear", "numbers"),
    "MeanAbsolutePercentageError": ("linear", "numbers"),
    "MeanSquaredError": ("linear", "numbers"),
    "MeanSquaredLogarithmicError": ("softplus", "numbers"),
    "Poisson": ("softplus", "numbers"),
    "SparseCategoricalCrossentropy": ("softmax", "labels"),
    "SquaredHinge": ("tanh", "binary"),
}
OPTIMIZERS = {
    "SGD": {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True},
    "RMSprop": {"momentum": 0.5, "centered": True},
    "Adam": {"amsgrad": True, "clipnorm": 1.0},
    "AdamW": {"weight_decay": 0.1},
    "Adagrad": {"learning_rate": 0.1},
    "Nadam": {"global_clipnorm": 0.5},
}
BOUNDS = {"SGD": 1e-4}


def assert_training_agrees(ours, theirs, x, y, optimizer, loss, arguments=None):
    """Both models train from our weights; each weight array is compared relative to its largest value."""
    theirs.set_weights(ours.get_weights())
    for model, library in ((ours, dlgpu), (theirs, keras)):
        made = getattr(library.optimizers, optimizer)(**(arguments or {}))
        model.compile(made, getattr(library.losses, loss)())
    start = ours.get_weights()
    for i in range(STEPS):
        rows = slice(i * BATCH, (i + 1) * BATCH)
        a, b = ours.train_on_batch(x[rows], y[rows]), theirs.train_on_batch(x[rows], y[rows])
    assert a == pytest.approx(float(b), rel=1e-3, abs=1e-5)
    assert any((now != then).any() for now, then in zip(ours.get_weights(), start))
    bound = BOUNDS.get(optimizer, 1e-3)
    for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        assert np.abs(mine - other).max() <= bound * np.abs(other).max()


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("layer", CASES)
def test_with_each_layer(layer, optimizer, rng):
    x, y = data(layer, rng, STEPS * BATCH), rng.normal(size=(STEPS * BATCH, 2)).astype(np.float32)
    assert_training_agrees(build(dlgpu, layer), build(keras, layer), x, y, optimizer, "MeanSquaredError")


def perceptron(library, activation):
    layers = library.layers
    made = library.models.Sequential([layers.Dense(8, activation="tanh"), layers.Dense(3, activation=activation)])
    made.build((None, 5))
    return made


def targets(kind, rng):
    labels = rng.integers(0, 3, STEPS * BATCH)
    if kind == "labels":
        return labels
    if kind == "classes":
        return np.eye(3, dtype=np.float32)[labels]
    values = rng.uniform(0.5, 2, (STEPS * BATCH, 3)).astype(np.float32)
    return values if kind == "numbers" else (values > 1).astype(np.float32)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("loss", LOSSES)
def test_with_each_loss(loss, optimizer, rng):
    activation, kind = LOSSES[loss]
    x = rng.normal(size=(STEPS * BATCH, 5)).astype(np.float32)
    models = perceptron(dlgpu, activation), perceptron(keras, activation)
    assert_training_agrees(*models, x, targets(kind, rng), optimizer, loss)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_with_each_optimizer(optimizer, rng):
    x = rng.normal(size=(STEPS * BATCH, 5)).astype(np.float32)
    models = perceptron(dlgpu, "linear"), perceptron(keras, "linear")
    y, arguments = targets("numbers", rng), OPTIMIZERS[optimizer]
    assert_training_agrees(*models, x, y, optimizer, "MeanSquaredError", arguments)


def test_means_of_weights_accumulated_gradients_and_scaled_losses_in_fit(rng):
    x = rng.normal(size=(STEPS * BATCH, 5)).astype(np.float32)
    y, models = targets("numbers", rng), (perceptron(dlgpu, "linear"), perceptron(keras, "linear"))
    models[1].set_weights(models[0].get_weights())
    for model, library in zip(models, (dlgpu, keras)):
        optimizer = library.optimizers.Adam(
            0.01, use_ema=True, ema_momentum=0.8, gradient_accumulation_steps=2, loss_scale_factor=16.0
        )
        model.compile(optimizer, "mse")
        model.fit(x, y, batch_size=BATCH, epochs=1, shuffle=False, verbose=0)
    for mine, other in zip(*(model.get_weights() for model in models), strict=True):
        assert np.abs(mine - other).max() <= 1e-3 * np.abs(other).max()


def test_penalties_of_outputs_and_weights_in_fit(rng):
    x, y = rng.normal(size=(90, 6, 4)).astype(np.float32), rng.normal(size=(90, 1)).astype(np.float32)

    def build(library):
        layers, l2 = library.layers, library.regularizers.L2(0.05)
        recurrent = layers.LSTM(5, return_sequences=True, activity_regularizer=l2)
        dense = layers.Dense(3, activation="relu", activity_regularizer="l1", kernel_regularizer="l2")
        model = library.Sequential([library.Input((6, 4)), recurrent, dense, layers.Flatten(), layers.Dense(1)])
        model.compile("sgd", "mse")
        return model

    ours, theirs = build(dlgpu), build(keras)
    theirs.set_weights(ours.get_weights())
    losses = [m.fit(x, y, batch_size=20, epochs=4, shuffle=False, verbose=0).history["loss"] for m in (ours, theirs)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert ours.evaluate(x, y, verbose=0) == pytest.approx(theirs.evaluate(x, y, verbose=0), rel=1e-5)
    for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        assert np.abs(mine - other).max() <= 1e-4 * np.abs(other).max()
