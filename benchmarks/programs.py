"""The four programs, as users of dlgpu, Keras, PyTorch and JAX would write them: one epoch of training each.

A step is all that training does with one batch of 32: pick the shuffled rows, forward, loss, backward, Adam.
Each function returns another that trains one epoch and waits for the device.
"""

import importlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np

ROWS = {"fnn": 3200, "cnn": 320, "rnn": 640, "lstm": 640}
SHAPES = {"fnn": (20,), "cnn": (64, 64, 3), "rnn": (100, 8), "lstm": (100, 8)}
BATCH = 32


def data(program: str) -> tuple[np.ndarray, np.ndarray]:
    """Random inputs, and targets: real numbers for the LSTM, else 0 and 1."""
    random = np.random.default_rng(0)
    rows = ROWS[program]
    x = random.standard_normal((rows, *SHAPES[program]), dtype=np.float32)
    if program == "lstm":
        return x, random.standard_normal((rows, 1), dtype=np.float32)
    return x, random.integers(0, 2, (rows, 1)).astype(np.float32)


def keras_model(library: str, program: str) -> Any:
    """The program's model in dlgpu or in Keras: the same lines for both."""
    layers = importlib.import_module(f"{library}.layers")
    model = importlib.import_module(f"{library}.models").Sequential()
    if program == "fnn":
        stack = [layers.Dense(64, activation="relu"), layers.Dense(1, activation="sigmoid")]
    elif program == "cnn":
        stack = [
            layers.Conv2D(32, (3, 3), activation="relu"),
            layers.MaxPooling2D(pool_size=(2, 2)),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(1, activation="sigmoid"),
        ]
    elif program == "rnn":
        stack = [layers.SimpleRNN(50), layers.Dense(1, activation="sigmoid")]
    else:
        stack = [layers.LSTM(50), layers.Dense(1)]
    for layer in stack:
        model.add(layer)
    if program == "lstm":
        model.compile(loss="mean_squared_error", optimizer="adam")
    else:
        model.compile(loss="binary_crossentropy", optimizer="adam", metrics=["accuracy"])
    return model


def keras_way(library: str, program: str) -> Callable[[], object]:
    """The program in dlgpu or in Keras."""
    model = keras_model(library, program)
    x, y = data(program)
    return lambda: model.fit(x, y, epochs=1, batch_size=BATCH, verbose=0)


def dlgpu(program: str) -> Callable[[], object]:
    """dlgpu on its current device."""
    return keras_way("dlgpu", program)


def keras_jax(program: str) -> Callable[[], object]:
    """Keras on JAX."""
    os.environ["KERAS_BACKEND"] = "jax"
    return keras_way("keras", program)


def keras_torch(program: str) -> Callable[[], object]:
    """Keras on PyTorch."""
    os.environ["KERAS_BACKEND"] = "torch"
    return keras_way("keras", program)


def torch_fused(program: str) -> Callable[[], object]:
    """PyTorch, eager, with its fused Adam."""
    return torch_way(program, compiled=False)


def torch_compile(program: str) -> Callable[[], object]:
    """PyTorch through torch.compile, with its fused Adam."""
    return torch_way(program, compiled=True)


def torch_way(program: str, compiled: bool) -> Callable[[], object]:
    """The program in PyTorch, with a training loop by hand."""
    import torch
    from torch import nn

    class Last(nn.Module):
        """A recurrent layer's last output, through a linear head."""

        def __init__(self, cell):
            super().__init__()
            self.cell, self.head = cell, nn.Linear(50, 1)

        def forward(self, x):
            return self.head(self.cell(x)[0][:, -1])

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if program == "fnn":
        model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 1))
    elif program == "cnn":
        head = [nn.Flatten(), nn.Linear(32 * 31 * 31, 128), nn.ReLU(), nn.Linear(128, 1)]
        model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2), *head)
    elif program == "rnn":
        model = Last(nn.RNN(8, 50, batch_first=True))
    else:
        model = Last(nn.LSTM(8, 50, batch_first=True))
    model = model.to(device)
    x, y = data(program)
    if program == "cnn":
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    x, y = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    loss_of = nn.MSELoss() if program == "lstm" else nn.BCEWithLogitsLoss()
    if compiled:
        model = torch.compile(model, mode="reduce-overhead" if device == "cuda" else None)

    def epoch():
        order = torch.randperm(len(x), device=device)
        for start in range(0, len(x), BATCH):
            rows = order[start : start + BATCH]
            optimizer.zero_grad()
            loss_of(model(x[rows]), y[rows]).backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return epoch


def jax_scan(program: str) -> Callable[[], object]:
    """JAX by hand: a whole epoch as one jitted lax.scan, the strongest that a user would write."""
    import jax
    import jax.numpy as jnp

    x, y = (jax.device_put(a) for a in data(program))
    keys = jax.random.split(jax.random.PRNGKey(0), 5)

    def weights(key, *shape):
        limit = (6 / (shape[0] + shape[-1])) ** 0.5
        return jax.random.uniform(key, shape, minval=-limit, maxval=limit)

    def affine(layer, x):
        return x @ layer["w"] + layer["b"]

    def layer(key, *shape):
        return {"w": weights(key, *shape), "b": jnp.zeros(shape[-1])}

    if program == "fnn":
        start = [layer(keys[0], 20, 64), layer(keys[1], 64, 1)]
    elif program == "cnn":
        start = [layer(keys[0], 3, 3, 3, 32), layer(keys[1], 31 * 31 * 32, 128), layer(keys[2], 128, 1)]
    else:
        gates = 4 if program == "lstm" else 1
        start = [
            {**layer(keys[0], 8, 50 * gates), "u": weights(keys[1], 50, 50 * gates)},
            layer(keys[2], 50, 1),
        ]

    def recurrent(params, x):
        projected = affine(params[0], x).swapaxes(0, 1)
        zeros = jnp.zeros((x.shape[0], 50))

        def lstm(state, z):
            h, c = state
            i, f, g, o = jnp.split(z + h @ params[0]["u"], 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

        def rnn(state, z):
            return (jnp.tanh(z + state[0] @ params[0]["u"]), state[1]), None

        cell = lstm if program == "lstm" else rnn
        return affine(params[1], jax.lax.scan(cell, (zeros, zeros), projected)[0][0])

    def forward(params, x):
        if program == "fnn":
            return affine(params[1], jax.nn.relu(affine(params[0], x)))
        if program != "cnn":
            return recurrent(params, x)
        layout = ("NHWC", "HWIO", "NHWC")
        h = jax.lax.conv_general_dilated(x, params[0]["w"], (1, 1), "VALID", dimension_numbers=layout)
        h = jax.nn.relu(h + params[0]["b"])
        h = jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return affine(params[2], jax.nn.relu(affine(params[1], h.reshape(len(h), -1))))

    def loss_of(params, x, y):
        z = forward(params, x)
        if program == "lstm":
            return jnp.mean((z - y) ** 2)
        return jnp.mean(jnp.maximum(z, 0) - z * y + jnp.log1p(jnp.exp(-jnp.abs(z))))

    def step(state, rows):
        params, m, v, t = state
        grads = jax.grad(loss_of)(params, x[rows], y[rows])
        t = t + 1
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, grads)
        rate = 1e-3 * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        params = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + 1e-7), params, m, v)
        return (params, m, v, t), None

    @jax.jit
    def scan_epoch(state, key):
        order = jax.random.permutation(key, len(x)).reshape(-1, BATCH)
        return jax.lax.scan(step, state, order)[0]

    zeros = jax.tree.map(jnp.zeros_like, start)
    state, key = (start, zeros, zeros, 0.0), keys[4]

    def epoch():
        nonlocal state, key
        key, now = jax.random.split(key)
        state = jax.block_until_ready(scan_epoch(state, now))

    return epoch


PEERS: dict[str, Callable[[str], Callable[[], object]]] = {
    "dlgpu": dlgpu,
    "keras-jax": keras_jax,
    "keras-torch": keras_torch,
    "torch-fused": torch_fused,
    "torch-compile": torch_compile,
    "jax-scan": jax_scan,
}
NEEDS = {
    "dlgpu": ["dlgpu"],
    "keras-jax": ["keras", "jax"],
    "keras-torch": ["keras", "torch"],
    "torch-fused": ["torch"],
    "torch-compile": ["torch"],
    "jax-scan": ["jax"],
}
