"""What `dlgpu train` trains: four networks, each on data that come with the package or on the user's own."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dlgpu import datasets
from dlgpu.layers import LSTM, BatchNormalization, Conv2D, Dense, Flatten, Layer, MaxPooling2D, SimpleRNN
from dlgpu.metrics import RootMeanSquaredError
from dlgpu.models import Input, Sequential
from dlgpu.optimizers import Adam

Arrays = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Data:
    """Arrays to train on and to test with.

    Attributes:
        name: to print.
        train, test: x and y; y holds integers in [0, classes), or numbers (n, outputs).
        classes: how many; None for regression.
        labels: what the file calls the classes.
        baseline: for regression, a forecast of the test's y to compare with, and its name.
        raw: whether x and y are in units of any size, so that the model has to standardize them.
    """

    name: str
    train: Arrays
    test: Arrays
    classes: int | None = None
    labels: tuple | None = None
    baseline: np.ndarray | None = None
    baseline_name: str = ""
    raw: bool = False


@dataclass(frozen=True)
class Program:
    """A network, the data that it is shown with, and how to train it.

    Attributes:
        network: makes the layers, up to the last one, which depends on the data.
        dimensions: of x.
        data: loads the data that come with the package.
        goal: what the test score should reach on those data: an accuracy, or at most that share of the baseline's RMSE.
        epochs, batch_size, learning_rate: of Adam.
    """

    network: Callable[[], list[Layer]]
    dimensions: int
    data: Callable[[], Data]
    goal: float
    epochs: int
    batch_size: int = 32
    learning_rate: float = 1e-3

    @property
    def wants(self) -> str:
        """The shape of x in words."""
        shapes = {2: "rows of features, (n, features)", 3: "series, (n, time, features)"}
        return shapes.get(self.dimensions, "images, (n, height, width, channels)")


def _breast_cancer() -> Data:
    train, test = datasets.breast_cancer.load_data()
    return Data("breast cancer", train, test, classes=2)


def _digits() -> Data:
    train, test = datasets.digits.load_data()
    return Data("digits", train, test, classes=10)


def _digits_by_rows() -> Data:
    train, test = ((x[..., 0], y) for x, y in datasets.digits.load_data())
    return Data("digits, row by row", train, test, classes=10)


def _sunspots() -> Data:
    train, test = datasets.sunspots.load_data()
    return Data("sunspots", train, test, baseline=test[0][:, -1], baseline_name="persistence")


def _convolutional() -> list[Layer]:
    return [
        Conv2D(32, 3, padding="same", activation="relu"),
        Conv2D(64, 3, padding="same", activation="relu"),
        MaxPooling2D(2),
        Flatten(),
        Dense(128, activation="relu"),
    ]


PROGRAMS = {
    "fnn": Program(lambda: [Dense(64, activation="relu")], 2, _breast_cancer, 0.96, epochs=50),
    "cnn": Program(_convolutional, 4, _digits, 0.98, epochs=20),
    "rnn": Program(lambda: [SimpleRNN(64)], 3, _digits_by_rows, 0.96, epochs=40),
    "lstm": Program(lambda: [LSTM(50)], 3, _sunspots, 0.75, epochs=50, batch_size=16, learning_rate=3e-3),
}


def compiled_model(name: str, data: Data) -> Sequential:
    """The network of a program with a last layer and a loss that suit the data."""
    program = PROGRAMS[name]
    (x, y), classes = data.train, data.classes
    model = Sequential([Input(x.shape[1:])], name=name)
    if data.raw:
        _add_standardization(model, x)
    for layer in program.network():
        model.add(layer)
    optimizer = Adam(program.learning_rate)
    if classes is None:
        model.add(Dense(y.shape[1]))
        metric, scale = RootMeanSquaredError(name="rmse"), 1.0
        if data.raw:
            scale = _add_units(model, y)
        model.compile(optimizer, "mean_squared_error", loss_weights=scale, metrics=[metric])
    elif classes == 2:
        model.add(Dense(1, activation="sigmoid"))
        model.compile(optimizer, "binary_crossentropy", metrics=["accuracy"])
    else:
        model.add(Dense(classes, activation="softmax"))
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def _add_standardization(model: Sequential, x: np.ndarray) -> None:
    """A first layer that brings each feature to mean 0 and variance 1, and is saved with the model."""
    layer = BatchNormalization(epsilon=0.0, center=False, scale=False, trainable=False, name="standardize")
    model.add(layer)
    axes = tuple(range(x.ndim - 1))
    variance = x.var(axis=axes, dtype=np.float64)
    layer.moving_mean.assign(x.mean(axis=axes, dtype=np.float64))
    layer.moving_variance.assign(np.where(variance > 0, variance, 1))


def _add_units(model: Sequential, y: np.ndarray) -> float:
    """A last layer that brings the outputs to the mean and spread of y; the factor that makes the loss relative."""
    mean, deviation = y.mean(axis=0, dtype=np.float64), y.std(axis=0, dtype=np.float64)
    deviation = np.where(deviation > 0, deviation, 1)
    layer = Dense(y.shape[1], trainable=False, name="units")
    model.add(layer)
    layer.set_weights([np.diag(deviation), mean])
    return float(1 / np.mean(deviation**2))
