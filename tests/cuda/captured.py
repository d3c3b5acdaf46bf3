"""Small models that are trained with steps captured and as written."""

import numpy as np

import dlgpu
from dlgpu import layers, schedules
from dlgpu.training.replay import Replay

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((70, 6), np.float32), RNG.integers(0, 2, (70, 1)).astype(np.float32)


def model_of(*network, optimizer="adam", loss="binary_crossentropy", **compiled):
    model = dlgpu.Sequential(list(network))
    model.compile(optimizer=optimizer, loss=loss, metrics=["mae"], **compiled)
    return model


def dense_model(*more, **compiled):
    return model_of(layers.Dense(5, activation="relu"), *more, layers.Dense(1, activation="sigmoid"), **compiled)


def fit(model, x=X, y=Y, epochs=4, **more):
    return model.fit(x, y, epochs=epochs, verbose=0, **more).history


def captured(model):
    """For each layout of a batch: whether its step is captured."""
    return [type(found) is Replay and found.tried for found in model._step.replays._known.values()]


def assert_same_bits(make, train=fit):
    """Train with steps captured and as written; returns the model of which steps were captured."""
    found = []
    for eagerly in (False, True):
        dlgpu.set_random_seed(1)
        model = make(run_eagerly=eagerly)
        result = train(model)
        found.append((result, [w.numpy() for w in model.weights], dlgpu.ops.random.default_generator().state, model))
    (result, weights, state, model), (written, expected, written_state, _) = found
    assert result == written
    assert state == written_state
    for w, e in zip(weights, expected):
        assert w.tobytes() == e.tobytes()
    return model


def told(caught):
    return [str(w.message) for w in caught if "cannot be captured" in str(w.message)]


PROGRAMS = {
    "fnn": ((20,), lambda: [layers.Dense(8, activation="relu"), layers.Dropout(0.3), layers.Dense(1, "sigmoid")]),
    "cnn": (
        (8, 8, 3),
        lambda: [
            layers.Conv2D(4, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(6, activation="relu"),
            layers.Dense(1, activation="sigmoid"),
        ],
    ),
    "rnn": ((5, 3), lambda: [layers.SimpleRNN(6, dropout=0.2), layers.Dropout(0.3), layers.Dense(1, "sigmoid")]),
    "lstm": ((5, 3), lambda: [layers.LSTM(6), layers.Dropout(0.3), layers.Dense(1)]),
}


def program(name, **compiled):
    optimizer = dlgpu.optimizers.Adam(schedules.ExponentialDecay(0.01, 3, 0.9), global_clipnorm=1.0)
    loss = "mse" if name == "lstm" else "binary_crossentropy"
    return model_of(*PROGRAMS[name][1](), optimizer=optimizer, loss=loss, **compiled)


def program_data(name):
    shape = PROGRAMS[name][0]
    rng = np.random.default_rng(1)
    return rng.standard_normal((20, *shape), np.float32), rng.integers(0, 2, (20, 1)).astype(np.float32)
