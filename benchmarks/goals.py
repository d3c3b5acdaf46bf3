"""What dlgpu is to reach on a GPU, each part measured for it and for its peers, each of them in a process of its own.

    python -m benchmarks.goals recurrent torch --device cuda          one part of one peer; a line of JSON for each case

    steps        a step of `fit` of the four programs, batch 32; beside PyTorch (eager, fused Adam), torch.compile with
                 mode="reduce-overhead", and JAX with the epoch as one lax.scan. Milliseconds by the host's clock, from
                 epoch to epoch of one run, at the end of which all wait for the device
    recurrent    LSTM and GRU, forward, and forward and backward; beside cuDNN through PyTorch
    convolution  the layers of ResNet-50 and of the CNN among the programs, forward, and forward and backward (gradients
                 by images and kernel), in TF32 and bfloat16; beside cuDNN through PyTorch, channels last, autotuned
    memory       kernels that are bound by memory: bytes of their arrays, each counted once, over the time, as a share
                 of a copy's
    mlp          a training step of a perceptron 4096 wide in mixed bfloat16; beside PyTorch with autocast

Single kernels are timed on the device: many in one CUDA graph where that is possible, PyTorch's too, medians by events.
On the emulator PyTorch and JAX run on the processor, and all sizes are small: it tries the code out.
"""

import argparse
import functools
import importlib
import itertools
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import programs

PEERS = {
    "steps": ("dlgpu", "torch-fused", "jax-scan", "torch-compile"),  # what compiles for long comes last
    "recurrent": ("dlgpu", "torch"),
    "convolution": ("dlgpu", "torch"),
    "memory": ("dlgpu",),
    "mlp": ("dlgpu", "torch-fused", "torch-compile"),
}
EPOCH = 100  # steps
SECONDS = 1.5  # of repetition of a program
BUDGET = 150.0  # milliseconds of repetition of a kernel
UNITS, BATCHES, TIMES = (50, 128, 256, 512, 1024), (32, 128), (100, 512)
CNN = ("cnn", 64, 3, 32, 3, 1, "valid")
# name, height and width, channels, filters, kernel, stride, padding; of a bottleneck's blocks each layer once
RESNET = [("conv1", 224, 3, 64, 7, 2, "same")] + [
    layer
    for stage, size, before, width, stride in (
        (2, 56, 64, 64, 1),
        (3, 56, 256, 128, 2),
        (4, 28, 512, 256, 2),
        (5, 14, 1024, 512, 2),
    )
    for layer in (
        (f"conv{stage}_first", size, before, width, 1, 1, "same"),
        (f"conv{stage}_3x3_{stride}", size, width, width, 3, stride, "same"),
        (f"conv{stage}_last", size // stride, width, 4 * width, 1, 1, "same"),
        (f"conv{stage}_shortcut", size, before, 4 * width, 1, stride, "same"),
        (f"conv{stage}_next", size // stride, 4 * width, width, 1, 1, "same"),
        *([(f"conv{stage}_3x3", size // stride, width, width, 3, 1, "same")] if stride > 1 else []),
    )
]
KINDS = ("tf32", "bfloat16")


def normal(*shape: int) -> np.ndarray:
    """Random numbers of a size that suits weights."""
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32) / math.sqrt(shape[0])


def repeats(once: float) -> int:
    """How often to repeat what takes so many milliseconds."""
    return int(min(50, max(3, BUDGET / max(once, 1e-3))))


# -- dlgpu


def of_dlgpu(call: Callable[[], Any]) -> float:
    """Milliseconds of a call on the current device."""
    from benchmarks import clock

    return clock.milliseconds(call, repeats(clock.milliseconds(call, 1)))


def dlgpu_recurrent(small: bool) -> Iterator[dict]:
    """The kernels of a whole sequence, through the dispatch."""
    import dlgpu
    from dlgpu.backend.dispatch import registry

    device = dlgpu.current_device()
    for case, cell, units, batch, times in recurrent_cases(small):
        parts, more = (4, ()) if cell == "lstm" else (3, (True,))
        x, weights = normal(batch, times, units), (normal(units, parts * units), normal(units, parts * units))
        bias = np.zeros((4 * units,) if cell == "lstm" else (2, 3 * units), np.float32)
        arrays = [device.asarray(a) for a in (x, *weights, bias)]
        grads = device.asarray(normal(batch, times, units)), *(None,) * (parts - 2)
        forward = functools.partial(registry[cell], *arrays, *(None,) * (parts - 2), None, *more)
        backward = registry[f"{cell}_backward"]

        def both(forward=forward, backward=backward, arrays=arrays, grads=grads, more=more):
            return backward(*arrays[1:3], forward()[-1], grads, (True, True), *more)

        yield {"case": case, "forward_ms": of_dlgpu(forward), "both_ms": of_dlgpu(both)}


def dlgpu_convolution(small: bool) -> Iterator[dict]:
    """The kernels of a convolution, through the dispatch."""
    import dlgpu
    from dlgpu.backend.dispatch import registry
    from dlgpu.backend.windows import padding_pairs

    dlgpu.allow_tf32()
    device = dlgpu.current_device()
    for case, batch, kind, (_, size, channels, filters, side, stride, padding) in convolution_cases(small):
        dtype = importlib.import_module("ml_dtypes").bfloat16 if kind == "bfloat16" else np.float32
        x, kernel = (
            device.asarray(normal(*s), dtype) for s in ((batch, size, size, channels), (side, side, channels, filters))
        )
        pads = padding_pairs(padding, (size, size), (side, side), (stride, stride), (1, 1))
        geometry = (stride, stride), pads, (1, 1), 1
        forward = functools.partial(registry["convolution"], x, kernel, None, "linear", *geometry)
        backward, grad = registry["convolution_backward"], device.asarray(normal(*forward()[0].shape), dtype)

        def both(forward=forward, backward=backward, grad=grad, x=x, kernel=kernel, geometry=geometry):
            return backward(grad, x, kernel, forward()[1], "linear", (True, True, False), *geometry)

        yield {"case": case, "forward_ms": of_dlgpu(forward), "both_ms": of_dlgpu(both)}


def dlgpu_memory(small: bool) -> Iterator[dict]:
    """Kernels whose time is that of their arrays' way through memory; arrays are larger than caches."""
    import dlgpu
    from benchmarks import clock
    from benchmarks.launches import Call, noted
    from dlgpu import ops
    from dlgpu.ops.activation import activation
    from dlgpu.parameters import Parameter

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
            milliseconds = of_dlgpu(call.repeat)
            speed = call.bytes / milliseconds * 1e3
            yield {"case": name, "ms": milliseconds, "gb_s": speed / 1e9, "of_copy": speed / copied}


def slopes(function: Callable, *inputs: Any) -> None:
    """A function and its gradients by all inputs."""
    from dlgpu.ops.differentiation import fresh, pull_back

    inner = [fresh(x.array) for x in inputs]
    output = function(*inner)
    pull_back([output], [output.array], inner)


def dlgpu_steps(small: bool) -> Iterator[dict]:
    """`fit`, whose epochs a callback times."""
    if small:
        programs.SHAPES.update(cnn=(8, 8, 3), rnn=(4, 8), lstm=(4, 8))
    for program in programs.ROWS:
        x, y = programs.data(program)
        yield fitted(program, programs.keras_model("dlgpu", program), x, y, programs.BATCH, small)


def fitted(case: str, model: Any, x: np.ndarray, y: np.ndarray, batch: int, small: bool) -> dict:
    """Epochs of one `fit`."""
    import dlgpu

    class Watch(dlgpu.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.ends, self.start = [], time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            self.ends.append(time.perf_counter())
            self.model.stop_training = enough(self.ends, small)

    watch = Watch()
    model.fit(x, y, epochs=10**6, batch_size=batch, verbose=0, callbacks=[watch])
    return epochs_of(case, watch.start, watch.ends, len(x) // batch)


def enough(ends: list[float], small: bool) -> bool:
    """Whether these epochs, by their ends, are enough."""
    return len(ends) > 4 and ends[-1] - ends[0] > (0 if small else SECONDS)


def epochs_of(case: str, start: float, ends: list[float], steps: int) -> dict:
    """Milliseconds of the first epoch, and of a step in those after the second, in which steps are still compiled."""
    times = [(b - a) * 1e3 / steps for a, b in itertools.pairwise(ends[1:])]
    return {"case": case, "step_ms": statistics.median(times), "first_ms": (ends[0] - start) * 1e3, "epochs": len(ends)}


# -- the peers


def peer_steps(peer: str, small: bool) -> Iterator[dict]:
    """The programs as users of PyTorch and JAX write them."""
    for program in programs.ROWS:
        epoch = programs.PEERS[peer](program)
        yield looped(program, epoch, programs.ROWS[program] // programs.BATCH, small)


def looped(case: str, epoch: Callable[[], Any], steps: int, small: bool) -> dict:
    """Epochs, each of which waits for the device at its end."""
    start, ends = time.perf_counter(), []
    while not enough(ends, small):
        epoch()
        ends.append(time.perf_counter())
    return epochs_of(case, start, ends, steps)


# -- the wide perceptron


def mlp(peer: str, small: bool) -> Iterator[dict]:
    """Four layers and ten classes; x, labels and weights' copies in float32, products in bfloat16."""
    width, batch, steps = (48, 16, 2) if small else (4096, 4096, 8)
    random = np.random.default_rng(0)
    x = random.standard_normal((batch * steps, width), dtype=np.float32)
    y = random.integers(0, 10, len(x))
    if peer == "dlgpu":
        import dlgpu

        dlgpu.mixed_precision.set_global_policy("mixed_bfloat16")
        stack = [dlgpu.layers.Dense(width, activation="relu") for _ in range(4)]
        model = dlgpu.Sequential([*stack, dlgpu.layers.Dense(10, activation="softmax", dtype="float32")])
        model.compile("adam", "sparse_categorical_crossentropy")
        yield fitted(f"mlp{width}", model, x, y, batch, small)
        return
    import torch

    from benchmarks import torch_goals

    class Narrow(torch.nn.Module):
        def __init__(self):
            super().__init__()
            stack = [m for _ in range(4) for m in (torch.nn.Linear(width, width), torch.nn.ReLU())]
            self.stack = torch.nn.Sequential(*stack, torch.nn.Linear(width, 10))

        def forward(self, x):
            with torch.autocast(torch_goals.device(), torch.bfloat16):
                return self.stack(x).float()

    loss_of = torch.nn.CrossEntropyLoss()
    epoch = programs.torch_training(Narrow(), loss_of, x, y, batch, peer == "torch-compile")
    yield looped(f"mlp{width}", epoch, steps, small)


# -- the cases


def recurrent_cases(small: bool) -> Iterator[tuple[str, str, int, int, int]]:
    """Name, cell, units, batch, and time; what is slow comes last."""
    sizes = itertools.product((3, 33), (2,), (4,)) if small else itertools.product(UNITS, BATCHES, TIMES)
    for units, batch, times in sizes:
        for cell in ("lstm", "gru"):
            yield f"{cell}/{units}/{batch}/{times}", cell, units, batch, times


def convolution_cases(small: bool) -> Iterator[tuple[str, int, str, tuple]]:
    """Name, batch, kind of numbers, and layer."""
    for layer in (("tiny", 7, 3, 5, 3, 2, "same"), ("cnn", 6, 3, 4, 3, 1, "valid")) if small else (CNN, *RESNET):
        for kind in KINDS:
            yield f"{layer[0]}/{kind}", 2 if small else programs.BATCH, kind, layer


def measured(part: str, peer: str, device: str) -> Iterator[dict]:
    """All cases of a part for one peer."""
    small = device == "emulator"
    programs.ROWS.update(dict.fromkeys(programs.ROWS, programs.BATCH * (2 if small else EPOCH)))
    if peer == "dlgpu":
        import dlgpu

        dlgpu.set_device(device)
        works = {
            "recurrent": dlgpu_recurrent,
            "convolution": dlgpu_convolution,
            "memory": dlgpu_memory,
            "steps": dlgpu_steps,
        }
    else:
        from benchmarks import torch_goals

        works = {
            "recurrent": torch_goals.recurrent,
            "convolution": torch_goals.convolution,
            "steps": functools.partial(peer_steps, peer),
        }
    return {**works, "mlp": functools.partial(mlp, peer)}[part](small)


def main() -> None:
    """Measure one part of one peer; a line for each case, as soon as it is known."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.goals")
    parser.add_argument("part", choices=PEERS)
    parser.add_argument("peer")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    if options.peer not in PEERS[options.part]:
        parser.error(f"unknown peer {options.peer!r}: expected one of {', '.join(PEERS[options.part])}")
    if options.device == "emulator":  # the peers on the processor
        os.environ |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    for found in measured(options.part, options.peer, options.device):
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
