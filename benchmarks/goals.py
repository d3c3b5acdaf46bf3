"""What dlgpu is to reach on a GPU, each part measured for it and for its peers, each of them in a process of its own.

    python -m benchmarks.goals recurrent torch --device cuda          one part of one peer; a line of JSON for each case

    steps        a step of `fit` of the four programs, batch 32; beside PyTorch (eager, fused Adam), torch.compile with
                 mode="reduce-overhead", and JAX with the epoch as one lax.scan. Milliseconds by the host's clock, from
                 epoch to epoch of one run, at the end of which all wait for the device
    recurrent    LSTM and GRU, forward, and forward and backward; beside cuDNN through PyTorch
    convolution  the layers of ResNet-50 and of the CNN among the programs, forward, and forward and backward (gradients
                 by images and kernel), in TF32 and bfloat16; beside cuDNN through PyTorch, channels last, autotuned.
                 The CNN's also with the relu and the pooling that follow it
    memory       kernels that are bound by memory: bytes of their arrays, each counted once, over the time, as a share
                 of a copy's
    mlp          a training step of a perceptron 4096 wide in mixed bfloat16; beside PyTorch with autocast

Single kernels are timed on the device: many in one CUDA graph where that is possible, PyTorch's too, medians by events.
On the emulator PyTorch and JAX run on the processor, and all sizes are small: it tries the code out.
"""

import argparse
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
POOLED = "cnn_pooled"
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


# -- epochs


def enough(ends: list[float], small: bool) -> bool:
    """Whether these epochs, by their ends, are enough."""
    return len(ends) > 4 and ends[-1] - ends[0] > (0 if small else SECONDS)


def epochs_of(case: str, start: float, ends: list[float], steps: int) -> dict:
    """Milliseconds of the first epoch, and of a step in those after the second, in which steps are still compiled."""
    times = [(b - a) * 1e3 / steps for a, b in itertools.pairwise(ends[1:])]
    return {"case": case, "step_ms": statistics.median(times), "first_ms": (ends[0] - start) * 1e3, "epochs": len(ends)}


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


# -- the cases


def recurrent_cases(small: bool) -> Iterator[tuple[str, str, int, int, int]]:
    """Name, cell, units, batch, and time; what is slow comes last."""
    sizes = itertools.product((3, 33), (2,), (4,)) if small else itertools.product(UNITS, BATCHES, TIMES)
    for units, batch, times in sizes:
        for cell in ("lstm", "gru"):
            yield f"{cell}/{units}/{batch}/{times}", cell, units, batch, times


def convolution_cases(small: bool) -> Iterator[tuple[str, int, str, tuple]]:
    """Name, batch, kind of numbers, and layer."""
    cnn = ("cnn", 6, 3, 4, 3, 1, "valid") if small else CNN
    for layer in (cnn, (POOLED, *cnn[1:]), *([("tiny", 7, 3, 5, 3, 2, "same")] if small else RESNET)):
        for kind in KINDS:
            yield f"{layer[0]}/{kind}", 2 if small else programs.BATCH, kind, layer


def wide(small: bool) -> tuple[str, int, np.ndarray, np.ndarray, int]:
    """Of the wide perceptron, which has four layers and ten classes: name, width, x, labels, and batch."""
    width, batch, steps = (48, 16, 2) if small else (4096, 4096, 8)
    random = np.random.default_rng(0)
    x = random.standard_normal((batch * steps, width), dtype=np.float32)
    return f"mlp{width}", width, x, random.integers(0, 10, len(x)), batch


def measured(part: str, peer: str, device: str) -> Iterator[dict]:
    """All cases of a part for one peer, of which no other is imported."""
    small = device == "emulator"
    programs.ROWS.update(dict.fromkeys(programs.ROWS, programs.BATCH * (2 if small else EPOCH)))
    if peer == "dlgpu":
        from benchmarks import dlgpu_goals

        dlgpu_goals.dlgpu.set_device(device)
        return getattr(dlgpu_goals, part)(small)
    if part == "steps":
        return peer_steps(peer, small)
    from benchmarks import torch_goals

    return torch_goals.mlp(small, peer == "torch-compile") if part == "mlp" else getattr(torch_goals, part)(small)


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
