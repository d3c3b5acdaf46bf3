"""What dlgpu takes for the goals, a function for each part; see benchmarks/goals.py."""

import functools
import importlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import dlgpu
from benchmarks import clock, goals, programs
from benchmarks.goals import normal
from benchmarks.launches import Call, noted
from dlgpu import ops
from dlgpu.backend.dispatch import registry
from dlgpu.backend.reference.convolution import convolution_pooled_backward
from dlgpu.backend.windows import padding_pairs
from dlgpu.ops.activation import activation
from dlgpu.ops.differentiation import fresh, pull_back
from dlgpu.parameters import Parameter


def milliseconds(call: Callable[[], Any]) -> float:
    """Milliseconds of a call on the current device."""
    return clock.milliseconds(call, goals.repeats(clock.milliseconds(call, 1)))


def recurrent(small: bool) -> Iterator[dict]:
    """The kernels of a whole sequence, through the dispatch."""
    device = dlgpu.current_device()
    for case, cell, units, batch, times in goals.recurrent_cases(small):
        parts, more = (4, ()) if cell == "lstm" else (3, (True,))
        x, weights = normal(batch, times, units), (normal(units, parts * units), normal(units, parts * units))
        bias = np.zeros((4 * units,) if cell == "lstm" else (2, 3 * units), np.float32)
        arrays = [device.asarray(a) for a in (x, *weights, bias)]
        grads = device.asarray(normal(batch, times, units)), *(None,) * (parts - 2)
        forward = functools.partial(registry[cell], *arrays, *(None,) * (parts - 2), None, *more)
        backward = registry[f"{cell}_backward"]

        def both(forward=forward, backward=backward, arrays=arrays, grads=grads, more=more):
            return backward(*arrays[1:3], forward()[-1], grads, (True, True), *more)

        yield {"case": case, "forward_ms": milliseconds(forward), "both_ms": milliseconds(both)}


def convolution(small: bool) -> Iterator[dict]:
    """The kernels of a convolution, through the dispatch."""
    dlgpu.allow_tf32()
    device = dlgpu.current_device()
    for case, batch, kind, (layer, size, channels, filters, side, stride, padding) in goals.convolution_cases(small):
        dtype = importlib.import_module("ml_dtypes").bfloat16 if kind == "bfloat16" else np.float32
        x, kernel = (
            device.asarray(normal(*s), dtype) for s in ((batch, size, size, channels), (side, side, channels, filters))
        )
        pads = padding_pairs(padding, (size, size), (side, side), (stride, stride), (1, 1))
        geometry = (stride, stride), pads, (1, 1), 1
        name, convolve, backward = "linear", registry["convolution"], registry["convolution_backward"]
        if layer == goals.POOLED:
            name, convolve, backward = "relu", registry["convolution_pooled"], convolution_pooled_backward
        forward = functools.partial(convolve, x, kernel, None, name, *geometry)
        grad, more = device.asarray(normal(*forward()[0].shape), dtype), (name, (True, True, False), *geometry)

        def both(forward=forward, backward=backward, grad=grad, x=x, kernel=kernel, more=more):
            return backward(grad, x, kernel, *forward()[1:], *more)

        yield {"case": case, "forward_ms": milliseconds(forward), "both_ms": milliseconds(both)}


def memory(small: bool) -> Iterator[dict]:
    """Kernels whose time is that of their arrays' way through memory; arrays are larger than caches."""
    device = dlgpu.current_device()
    rows, features, image = (64, 33, (4, 14, 12, 5)) if small else (1 << 16, 1024, (64, 128, 128, 64))
    x, images = (dlgpu.Tensor(device.asarray(normal(*s))) for s in ((rows, features), image))
    row = dlgpu.Tensor(device.asarray(normal(features)))
    works: list[Callable] = [
        functools.partial(slopes, lambda x, b: activation(x, "gelu", b), x, row),
        functools.partial(slopes, ops.softmax, x),
        functools.partial(slopes, lambda x, a, b: ops.batch_normalization(x, a, b)[0], x, row, row),
        functools.partial(slopes, ops.layer_normalization, x, row, row),
        functools.partial(slopes, lambda x: ops.max_pool(x, (2, 2), (2, 2)), images),
        functools.partial(slopes, lambda x: ops.average_pool(x, (2, 2), (2, 2)), images),
        lambda: ops.dropout(x, 0.5),
    ]
    weights = Parameter(device.asarray(normal(rows * features)), "weights")
    optimizer, gradient = dlgpu.optimizers.Adam(), dlgpu.Tensor(device.asarray(normal(rows * features)))
    works.append(lambda: optimizer.apply_gradients([(gradient, weights)]))
    copied = clock.copy_bandwidth()
    for work in works:
        work()
        with noted() as calls:
            work()
        found: dict[str, Call] = {call.name: call for call in calls if call.bytes > rows * features}
        for name, call in found.items():
            spent = milliseconds(call.repeat)
            speed = call.bytes / spent * 1e3
            yield {"case": name, "ms": spent, "gb_s": speed / 1e9, "of_copy": speed / copied}


def slopes(function: Callable, *inputs: Any) -> None:
    """A function and its gradients by all inputs."""
    inner = [fresh(x.array) for x in inputs]
    output = function(*inner)
    pull_back([output], [output.array], inner)


def steps(small: bool) -> Iterator[dict]:
    """`fit`, whose epochs a callback times."""
    if small:
        programs.SHAPES.update(cnn=(8, 8, 3), rnn=(4, 8), lstm=(4, 8))
    for program in programs.ROWS:
        x, y = programs.data(program)
        yield fitted(program, programs.keras_model("dlgpu", program), x, y, programs.BATCH, small)


def mlp(small: bool) -> Iterator[dict]:
    """The wide perceptron, in mixed_bfloat16."""
    case, width, x, y, batch = goals.wide(small)
    dlgpu.mixed_precision.set_global_policy("mixed_bfloat16")
    stack = [dlgpu.layers.Dense(width, activation="relu") for _ in range(4)]
    model = dlgpu.Sequential([*stack, dlgpu.layers.Dense(10, activation="softmax", dtype="float32")])
    model.compile("adam", "sparse_categorical_crossentropy")
    yield fitted(case, model, x, y, batch, small)


class Watch(dlgpu.callbacks.Callback):
    """When a run began and each of its epochs ended; it ends the run when these are enough."""

    def __init__(self, small: bool):
        self.small = small
        self.start, self.ends = 0.0, list[float]()

    def on_train_begin(self, logs: Any = None) -> None:
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.ends.append(time.perf_counter())
        self.model.stop_training = goals.enough(self.ends, self.small)


def fitted(case: str, model: Any, x: np.ndarray, y: np.ndarray, batch: int, small: bool) -> dict:
    """Epochs of one `fit`."""
    watch = Watch(small)
    model.fit(x, y, epochs=10**6, batch_size=batch, verbose=0, callbacks=[watch])
    return goals.epochs_of(case, watch.start, watch.ends, len(x) // batch)
