"""A small model that is trained with steps replayed and as written."""

import numpy as np
import pytest

import dlgpu
from dlgpu import layers
from dlgpu.training.replay import Replay

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((70, 6), np.float32), RNG.integers(0, 2, (70, 1)).astype(np.float32)


@pytest.fixture(autouse=True)
def on_the_cpu():
    with dlgpu.device("cpu"):  # where steps are replayed
        yield


def dense_model(*more, optimizer="adam", **compiled):
    model = dlgpu.Sequential([layers.Dense(9, activation="relu"), *more, layers.Dense(1, activation="sigmoid")])
    model.compile(optimizer=optimizer, loss="binary_crossentropy", metrics=["accuracy"], **compiled)
    return model


def replays(model):
    """For each layout of a batch: whether its step is replayed."""
    return [type(found) is Replay and found.tried for found in model._step.replays._known.values()]


def both(make, train):
    """What `train` returns and the weights it leaves, with steps replayed and as written."""
    found = []
    for eagerly in (False, True):
        dlgpu.set_random_seed(1)
        model = make(run_eagerly=eagerly)
        result = train(model)
        found.append((result, [w.numpy().copy() for w in model.weights], model))
    return found


def assert_same_bits(make, train):
    """Returns the model of which steps were replayed."""
    (result, weights, model), (written, expected, _) = both(make, train)
    assert result == written
    for w, e in zip(weights, expected):
        assert w.tobytes() == e.tobytes()
    return model


def fit(model, x=X, y=Y, epochs=4, **more):
    return model.fit(x, y, epochs=epochs, verbose=0, **more).history
