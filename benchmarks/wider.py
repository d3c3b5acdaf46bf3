"""Work beyond the four programs: larger networks, and prediction; in dlgpu, PyTorch, JAX and Keras."""

import functools
import importlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import operations, programs
from benchmarks.operations import Work

STEPS = 4
PREDICTED = 10_000


# -- networks: (shape of an input, batch)

NETWORKS = {
    "mlp": ((784,), 256),
    "vgg": ((32, 32, 3), 32),
    "lstm512": ((100, 128), 64),
    "gru256x2": ((100, 128), 64),
}
CHANNELS = (3, 64, 64, 128, 128, 256, 256)  # pooled by 2 x 2 after each second convolution
WIDTHS = (784, 2048, 2048, 10)


def classified(name: str) -> bool:
    """Whether the network tells ten classes apart; the others predict a number."""
    return name in ("mlp", "vgg")


def data(name: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Inputs, targets and the size of a batch."""
    shape, batch = NETWORKS[name]
    random = np.random.default_rng(0)
    x = random.standard_normal((STEPS * batch, *shape), dtype=np.float32)
    if classified(name):
        return x, random.integers(0, 10, len(x)), batch
    return x, random.standard_normal((len(x), 1), dtype=np.float32), batch


def keras_network(library: str, name: str) -> Any:
    """The network in dlgpu or in Keras."""
    layers = importlib.import_module(f"{library}.layers")
    if name == "mlp":
        stack = [layers.Dense(n, activation="relu") for n in WIDTHS[1:-1]]
    elif name == "vgg":
        stack = []
        for i, n in enumerate(CHANNELS[1:]):
            stack.append(layers.Conv2D(n, 3, padding="same", activation="relu"))
            stack += [layers.MaxPooling2D()] if i % 2 else []
        stack.append(layers.Flatten())
    elif name == "lstm512":
        stack = [layers.LSTM(512)]
    else:
        stack = [layers.GRU(256, return_sequences=True), layers.GRU(256)]
    stack.append(layers.Dense(10, activation="softmax") if classified(name) else layers.Dense(1))
    model = importlib.import_module(f"{library}.models").Sequential(stack)
    loss = "sparse_categorical_crossentropy" if classified(name) else "mean_squared_error"
    model.compile(loss=loss, optimizer="adam", metrics=["accuracy"] if classified(name) else None)
    return model


def keras_training(library: str, name: str) -> Work:
    """`fit` in dlgpu or in Keras."""
    model = keras_network(library, name)
    x, y, batch = data(name)
    return lambda: model.fit(x, y, epochs=1, batch_size=batch, verbose=0), STEPS


def torch_training(name: str) -> Work:
    """A training loop by hand in PyTorch."""
    from torch import nn

    class Recurrent(nn.Module):
        def __init__(self, cell):
            super().__init__()
            self.cell, self.head = cell, nn.Linear(cell.hidden_size, 1)

        def forward(self, x):
            return self.head(self.cell(x)[0][:, -1])

    x, y, batch = data(name)
    if name == "mlp":
        stack = [m for a, b in itertools.pairwise(WIDTHS) for m in (nn.Linear(a, b), nn.ReLU())][:-1]
        model = nn.Sequential(*stack)
    elif name == "vgg":
        stack = []
        for i, (a, b) in enumerate(itertools.pairwise(CHANNELS)):
            stack += [nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), *([nn.MaxPool2d(2)] if i % 2 else [])]
        model = nn.Sequential(*stack, nn.Flatten(), nn.Linear(256 * 4 * 4, 10))
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    elif name == "lstm512":
        model = Recurrent(nn.LSTM(128, 512, batch_first=True))
    else:
        model = Recurrent(nn.GRU(128, 256, num_layers=2, batch_first=True))
    loss_of = nn.CrossEntropyLoss() if classified(name) else nn.MSELoss()
    return programs.torch_training(model, loss_of, x, y, batch), STEPS


def jax_training(name: str) -> Work:
    """By hand in JAX, the epoch as one lax.scan."""
    import jax
    import jax.numpy as jnp

    keys = jax.random.split(jax.random.PRNGKey(0), 9)
    layer, affine = programs.jax_layer, programs.jax_affine

    def mlp(w, x):
        for inner in w[:-1]:
            x = jax.nn.relu(affine(inner, x))
        return affine(w[-1], x)

    def lstm(w, x):
        return affine(w[1], programs.jax_lstm(w[0], x))

    def gru(inner, x):
        def cell(h, z):
            of_x, of_h = jnp.split(z, 3, axis=-1), jnp.split(h @ inner["u"] + inner["c"], 3, axis=-1)
            update, reset = jax.nn.sigmoid(of_x[0] + of_h[0]), jax.nn.sigmoid(of_x[1] + of_h[1])
            h = update * h + (1 - update) * jnp.tanh(of_x[2] + reset * of_h[2])
            return h, h

        zeros = jnp.zeros((x.shape[1], len(inner["u"])))
        return jax.lax.scan(cell, zeros, affine(inner, x))[1]

    def grus(w, x):
        return affine(w[2], gru(w[1], gru(w[0], x.swapaxes(0, 1)))[-1])

    if name == "mlp":
        forward, start = mlp, [layer(k, *s) for k, s in zip(keys, itertools.pairwise(WIDTHS))]
    elif name == "lstm512":
        cell = {**layer(keys[0], 128, 2048), "u": programs.jax_weights(keys[1], 512, 2048)}
        forward, start = lstm, [cell, layer(keys[2], 512, 1)]
    else:
        cells = [
            {**layer(keys[i], n, 768), "u": programs.jax_weights(keys[i + 2], 256, 768), "c": jnp.zeros(768)}
            for i, n in enumerate((128, 256))
        ]
        forward, start = grus, [*cells, layer(keys[4], 256, 1)]

    def loss_of(z, y):
        if not classified(name):
            return jnp.mean((z - y) ** 2)
        return jnp.mean(jax.nn.logsumexp(z, axis=1) - jnp.take_along_axis(z, y[:, None], axis=1)[:, 0])

    x, y, batch = data(name)
    return programs.jax_training(
        forward, start, loss_of, x, y.astype(np.int32) if classified(name) else y, batch
    ), STEPS


# -- prediction of 10000 rows in batches of 32, Keras's default


def keras_predict(library: str, program: str) -> Work:
    """`predict` in dlgpu or in Keras."""
    model = programs.keras_model(library, program)
    x = programs.data(program, PREDICTED)[0]
    return lambda: model.predict(x, verbose=0), 1


def torch_predict(program: str) -> Work:
    """A loop by hand in PyTorch."""
    import torch

    model = programs.torch_model(program).eval()
    x = programs.data(program, PREDICTED)[0]
    x = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if program == "cnn" else x)
    last = torch.nn.Identity() if program == "lstm" else torch.nn.Sigmoid()

    def work():
        with torch.inference_mode():
            return torch.cat([last(model(rows)) for rows in x.split(programs.BATCH)]).numpy()

    return work, 1


def jax_predict(program: str) -> Work:
    """In JAX, jitted, all batches in one lax.map."""
    import jax

    forward, weights = programs.jax_model(program)
    x = jax.device_put(programs.data(program, PREDICTED)[0])

    @jax.jit
    def predict(weights, x):
        z = jax.lax.map(lambda row: forward(weights, row[None])[0], x, batch_size=programs.BATCH)
        return z if program == "lstm" else jax.nn.sigmoid(z)

    return lambda: np.asarray(predict(weights, x)), 1


def _of_keras(function: Callable, name: str, torch: Callable, jax: Callable) -> dict[str, Callable[[], Work]]:
    works = {peer: functools.partial(function, "dlgpu", name) for peer in ("dlgpu", "dlgpu-numpy")}
    works["keras-jax"] = functools.partial(function, "keras", name)
    return {**works, "torch-fused": functools.partial(torch, name), "jax-scan": functools.partial(jax, name)}


# by case and peer
CASES: dict[str, dict[str, Callable[[], Work]]] = {
    **{name: _of_keras(keras_training, name, torch_training, jax_training) for name in NETWORKS},
    **operations.CASES,
    **{f"predict_{p}": _of_keras(keras_predict, p, torch_predict, jax_predict) for p in programs.ROWS},
}
del CASES["vgg"]["jax-scan"]  # XLA's convolutions in a scan are too slow on a CPU to wait for
