"""From the same weights and batches, the four programs follow Keras's loss curves."""

import keras
import numpy as np
import pytest

import dlgpu.layers
import dlgpu.models

pytestmark = pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`", "ignore:__array__ implementation")

ROWS = {"fnn": 640, "cnn": 96, "rnn": 96, "lstm": 96}
SHAPES = {"fnn": (20,), "cnn": (64, 64, 3), "rnn": (20, 8), "lstm": (20, 8)}


def build(library, program):
    """The program as the README shows it, in either library."""
    layers, model = library.layers, library.models.Sequential()
    if program == "fnn":
        model.add(layers.Dense(64, input_dim=20, activation="relu"))
        model.add(layers.Dense(1, activation="sigmoid"))
    elif program == "cnn":
        model.add(layers.Conv2D(32, (3, 3), activation="relu", input_shape=(64, 64, 3)))
        model.add(layers.MaxPooling2D(pool_size=(2, 2)))
        model.add(layers.Flatten())
        model.add(layers.Dense(128, activation="relu"))
        model.add(layers.Dense(1, activation="sigmoid"))
    elif program == "rnn":
        model.add(layers.SimpleRNN(50, input_shape=(20, 8)))
        model.add(layers.Dense(1, activation="sigmoid"))
    else:
        model.add(layers.LSTM(50, input_shape=(20, 8)))
        model.add(layers.Dense(1))
    if program == "lstm":
        model.compile(loss="mean_squared_error", optimizer="adam")
    else:
        model.compile(loss="binary_crossentropy", optimizer="adam", metrics=["accuracy"])
    return model


@pytest.mark.parametrize("program", ROWS)
def test_the_loss_curve_is_keras_own(program, rng):
    x = rng.standard_normal((ROWS[program], *SHAPES[program])).astype("float32")
    target = x.reshape(len(x), -1)[:, :5].sum(axis=1, keepdims=True)
    if program == "cnn":
        x *= 0.1  # pixels of unit variance make the first steps of so wide a Dense jump
    y = np.tanh(target) if program == "lstm" else (target > 0).astype("float32")
    ours, theirs = build(dlgpu, program), build(keras, program)
    theirs.set_weights(ours.get_weights())
    a = ours.fit(x, y, epochs=5, batch_size=32, shuffle=False, verbose=0).history
    b = theirs.fit(x, y, epochs=5, batch_size=32, shuffle=False, verbose=0).history
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-3)
    assert a["loss"][-1] < a["loss"][0]
    np.testing.assert_allclose(ours.predict(x, verbose=0), theirs.predict(x, verbose=0), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_weights_after_twenty_steps_are_keras_own(optimizer, rng):
    x, y = rng.standard_normal((640, 20)).astype("float32"), rng.integers(0, 2, (640, 1)).astype("float32")
    ours, theirs = build(dlgpu, "fnn"), build(keras, "fnn")
    theirs.set_weights(ours.get_weights())
    for model in (ours, theirs):
        model.compile(optimizer, "binary_crossentropy")
        model.fit(x, y, batch_size=32, shuffle=False, verbose=0)
    bound = 1e-4 if optimizer == "sgd" else 1e-3
    for a, b in zip(ours.get_weights(), theirs.get_weights()):
        assert np.abs(a - b).max() <= bound * np.abs(b).max()
