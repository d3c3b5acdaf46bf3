"""The four programs, as users of dlgpu, Keras, PyTorch and JAX would write them: one epoch of training each.

A step is all that training does with one batch of 32: pick the shuffled rows, forward, loss, backward, Adam.
Each function returns another that trains one epoch and waits for the device.
"""

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable
from typing import Any

import numpy as np

ROWS = {"fnn": 3200, "cnn": 320, "rnn": 640, "lstm": 640}
SHAPES = {"fnn": (20,), "cnn": (64, 64, 3), "rnn": (100, 8), "lstm": (100, 8)}
BATCH = 32


def data(program: str, rows: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Random inputs, and targets: real numbers for the LSTM, else 0 and 1."""
    random = np.random.default_rng(0)
    rows = ROWS[program] if rows is None else rows
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
    """The program in dlgpu or in Keras; a callback looks at each epoch."""
    model = keras_model(library, program)
    watcher = importlib.import_module(f"{library}.callbacks").EarlyStopping("loss", patience=10**6)
    x, y = data(program)
    return lambda: model.fit(x, y, epochs=1, batch_size=BATCH, verbose=0, callbacks=[watcher])


def torch_model(program: str) -> Any:
    """The program's network in PyTorch, which takes images as (batch, channels, height, width); it returns logits."""
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
    if program == "fnn":
        return nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 1))
    if program == "cnn":
        head = [nn.Flatten(), nn.Linear(32 * 31 * 31, 128), nn.ReLU(), nn.Linear(128, 1)]
        return nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2), *head)
    return Last((nn.RNN if program == "rnn" else nn.LSTM)(8, 50, batch_first=True))


def torch_way(program: str, compiled: bool = False) -> Callable[[], object]:
    """The program in PyTorch."""
    from torch import nn

    x, y = data(program)
    if program == "cnn":
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    loss_of = nn.MSELoss() if program == "lstm" else nn.BCEWithLogitsLoss()
    return torch_training(torch_model(program), loss_of, x, y, BATCH, compiled)


def torch_training(
    model: Any, loss_of: Callable, x: np.ndarray, y: np.ndarray, batch: int, compiled: bool = False
) -> Callable[[], object]:
    """A training loop by hand, with PyTorch's fused Adam; eager, or through torch.compile."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device)
    x, y = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    if compiled:
        model = torch.compile(model, mode="reduce-overhead" if device == "cuda" else None)

    def epoch():
        order = torch.randperm(len(x), device=device)
        for start in range(0, len(x), batch):
            rows = order[start : start + batch]
            optimizer.zero_grad()
            loss_of(model(x[rows]), y[rows]).backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return epoch


def jax_layer(key: Any, *shape: int) -> dict:
    """Weights `w` of that shape and a bias `b`."""
    import jax.numpy as jnp

    return {"w": jax_weights(key, *shape), "b": jnp.zeros(shape[-1])}


def jax_weights(key: Any, *shape: int) -> Any:
    """Uniform weights of a layer's scale."""
    import jax

    limit = (6 / (shape[-2] + shape[-1])) ** 0.5
    return jax.random.uniform(key, shape, minval=-limit, maxval=limit)


def jax_affine(layer: dict, x: Any) -> Any:
    """x w + b."""
    return x @ layer["w"] + layer["b"]


def jax_convolution(layer: dict, x: Any) -> Any:
    """Channels last."""
    import jax

    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, layer["w"], (1, 1), "VALID", dimension_numbers=layout) + layer["b"]


def jax_max_pool(x: Any) -> Any:
    """Of windows of 2 x 2."""
    import jax

    return jax.lax.reduce_window(x, -np.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def jax_lstm(layer: dict, x: Any) -> Any:
    """The last output, (batch, units), by lax.scan over time."""
    import jax
    import jax.numpy as jnp

    def cell(state, z):
        h, c = state
        i, f, g, o = jnp.split(z + h @ layer["u"], 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

    zeros = jnp.zeros((len(x), len(layer["u"])))
    return jax.lax.scan(cell, (zeros, zeros), jax_affine(layer, x).swapaxes(0, 1))[0][0]


def jax_model(program: str) -> tuple[Callable, Any]:
    """The program's function of weights and inputs, which returns logits, and its weights."""
    import jax
    import jax.numpy as jnp

    keys = jax.random.split(jax.random.PRNGKey(0), 3)
    if program == "fnn":
        weights = [jax_layer(keys[0], 20, 64), jax_layer(keys[1], 64, 1)]
        return lambda w, x: jax_affine(w[1], jax.nn.relu(jax_affine(w[0], x))), weights
    if program == "cnn":
        sizes = [(3, 3, 3, 32), (31 * 31 * 32, 128), (128, 1)]

        def forward(w, x):
            h = jax_max_pool(jax.nn.relu(jax_convolution(w[0], x)))
            return jax_affine(w[2], jax.nn.relu(jax_affine(w[1], h.reshape(len(h), -1))))

        return forward, [jax_layer(key, *size) for key, size in zip(keys, sizes)]
    units = 50 * (4 if program == "lstm" else 1)
    cell = {**jax_layer(keys[0], 8, units), "u": jax_weights(keys[1], 50, units)}

    def rnn(layer, x):
        def step(h, z):
            return jnp.tanh(z + h @ layer["u"]), None

        return jax.lax.scan(step, jnp.zeros((len(x), 50)), jax_affine(layer, x).swapaxes(0, 1))[0]

    recurrent = jax_lstm if program == "lstm" else rnn
    return lambda w, x: jax_affine(w[1], recurrent(w[0], x)), [cell, jax_layer(keys[2], 50, 1)]


def jax_scan(program: str) -> Callable[[], object]:
    """The program in JAX by hand."""
    import jax.numpy as jnp

    def loss_of(z, y):
        if program == "lstm":
            return jnp.mean((z - y) ** 2)
        return jnp.mean(jnp.maximum(z, 0) - z * y + jnp.log1p(jnp.exp(-jnp.abs(z))))

    return jax_training(*jax_model(program), loss_of, *data(program), BATCH)


def jax_training(
    forward: Callable, start: Any, loss_of: Callable, x: np.ndarray, y: np.ndarray, batch: int
) -> Callable[[], object]:
    """A whole epoch as one jitted lax.scan, with Adam: the strongest that a user of JAX would write."""
    import jax
    import jax.numpy as jnp

    x, y = jax.device_put(x), jax.device_put(y)

    def step(state, rows):
        weights, m, v, t = state
        grads = jax.grad(lambda w: loss_of(forward(w, x[rows]), y[rows]))(weights)
        t = t + 1
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, grads)
        rate = 1e-3 * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        weights = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + 1e-7), weights, m, v)
        return (weights, m, v, t), None

    @jax.jit
    def scan_epoch(state, key):
        order = jax.random.permutation(key, len(x)).reshape(-1, batch)
        return jax.lax.scan(step, state, order)[0]

    zeros = jax.tree.map(jnp.zeros_like, start)
    state, key = (start, zeros, zeros, 0.0), jax.random.PRNGKey(1)

    def epoch():
        nonlocal state, key
        key, now = jax.random.split(key)
        state = jax.block_until_ready(scan_epoch(state, now))

    return epoch


PEERS: dict[str, Callable[[str], Callable[[], object]]] = {
    "dlgpu": functools.partial(keras_way, "dlgpu"),
    "dlgpu-numpy": functools.partial(keras_way, "dlgpu"),
    "keras-jax": functools.partial(keras_way, "keras"),
    "keras-torch": functools.partial(keras_way, "keras"),
    "torch-fused": torch_way,
    "torch-compile": functools.partial(torch_way, compiled=True),
    "jax-scan": jax_scan,
}
ENVIRONMENT = {  # to be there before the library is imported
    "dlgpu-numpy": {"DLGPU_NUMBA": "0"},
    "keras-jax": {"KERAS_BACKEND": "jax"},
    "keras-torch": {"KERAS_BACKEND": "torch"},
}
NEEDS = {
    "dlgpu": ["dlgpu"],
    "dlgpu-numpy": ["dlgpu"],
    "keras-jax": ["jax", "keras"],
    "keras-torch": ["torch", "keras"],
    "torch": ["torch"],
    "torch-fused": ["torch"],
    "torch-compile": ["torch"],
    "jax-scan": ["jax"],
}


def installed(peer: str) -> bool:
    """Whether a peer's libraries are here."""
    return all(importlib.util.find_spec(name) for name in NEEDS[peer])


def imported(peer: str) -> None:
    """Import a peer's libraries, as it wants them."""
    os.environ.update(ENVIRONMENT.get(peer, {}))
    for name in NEEDS[peer]:
        importlib.import_module(name)
