"""The four programs train in the emulator as they do on the CPU, with nothing changed above the backend."""

import numpy as np
import pytest

import dlgpu
from dlgpu.layers import LSTM, Conv2D, Dense, Flatten, MaxPooling2D, SimpleRNN
from dlgpu.models import Sequential

PROGRAMS = {
    "fnn": ((20,), lambda: [Dense(64, activation="relu"), Dense(1, activation="sigmoid")]),
    "cnn": (
        (16, 16, 3),
        lambda: [
            Conv2D(32, (3, 3), activation="relu"),
            MaxPooling2D(pool_size=(2, 2)),
            Flatten(),
            Dense(128, activation="relu"),
            Dense(1, activation="sigmoid"),
        ],
    ),
    "rnn": ((20, 8), lambda: [SimpleRNN(50), Dense(1, activation="sigmoid")]),
    "lstm": ((20, 8), lambda: [LSTM(50), Dense(1)]),
}


def train(program, device, x, y):
    """Loss curve, initial weights and predictions of a program on a device."""
    with dlgpu.device(device):
        dlgpu.set_random_seed(3)
        model = Sequential(PROGRAMS[program][1]())
        model.compile("adam", "mse" if program == "lstm" else "binary_crossentropy")
        model(x[:1])
        initial = model.get_weights()
        losses = model.fit(x, y, epochs=5, verbose=0).history["loss"]
        return losses, initial, model.predict(x, verbose=0)


@pytest.mark.parametrize("program", PROGRAMS)
def test_loss_curves_and_initial_weights_are_the_cpus(program, rng):
    x = rng.standard_normal((64, *PROGRAMS[program][0])).astype("f")
    y = (x.reshape(64, -1)[:, :1] > 0).astype("f")
    here, there = (train(program, device, x, y) for device in ("cpu", "emulator"))
    np.testing.assert_allclose(there[0], here[0], rtol=1e-3)
    for a, b in zip(here[1], there[1]):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(there[2], here[2], atol=1e-3)
