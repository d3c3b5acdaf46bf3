"""What PyTorch, and through it cuDNN, takes for the goals; see benchmarks/goals.py."""

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.functional import conv2d, max_pool2d, pad, relu

from benchmarks import goals, programs


def device() -> str:
    """The GPU, if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def milliseconds(call: Callable[[], Any]) -> float:
    """Milliseconds of a call: in a graph of many, or as the host launches them where that cannot be captured."""
    if device() == "cpu":
        start = time.perf_counter()
        call()
        return (time.perf_counter() - start) * 1e3
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):  # as the documentation of graphs has it
        for _ in range(3):
            call()

    def timed(work: Callable[[], Any], count: int) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        for _ in range(count):
            work()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    count = goals.repeats(timed(call, 1))
    graph, captured = torch.cuda.CUDAGraph(), True
    try:
        with torch.cuda.graph(graph):
            for _ in range(count):
                call()
    except Exception:
        captured = False
        torch.cuda.synchronize()
    times = [timed(graph.replay, 1) if captured else timed(call, count) for _ in range(5)]
    return statistics.median(times) / count


def recurrent(small: bool) -> Iterator[dict]:
    """nn.LSTM and nn.GRU, which call cuDNN on a GPU."""
    for case, cell, units, batch, times in goals.recurrent_cases(small):
        layer = getattr(torch.nn, cell.upper())(units, units, batch_first=True).to(device())
        x = torch.from_numpy(goals.normal(batch, times, units)).to(device()).requires_grad_()
        grad, inputs = torch.ones_like(x), [x, *layer.parameters()]
        forward = functools.partial(lambda layer, x: layer(x)[0], layer, x)

        def both(forward=forward, inputs=inputs, grad=grad):
            return torch.autograd.grad(forward(), inputs, grad)

        yield {"case": case, "forward_ms": milliseconds(forward), "both_ms": milliseconds(both)}


def convolution(small: bool) -> Iterator[dict]:
    """conv2d, which calls cuDNN on a GPU, channels last."""
    torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = True
    for case, batch, kind, (layer, size, channels, filters, side, stride, padding) in goals.convolution_cases(small):
        dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
        x, kernel = (
            torch.from_numpy(goals.normal(*shape))
            .to(device(), dtype, memory_format=torch.channels_last)
            .requires_grad_()
            for shape in ((batch, channels, size, size), (filters, channels, side, side))
        )
        if padding == "same" and stride > 1 and side > 1:  # Keras's, which is not the same on both sides
            total = max(0, (-(-size // stride) - 1) * stride + side - size)
            before, after = total // 2, total - total // 2
            x = pad(x.detach(), (before, after) * 2).contiguous(memory_format=torch.channels_last).requires_grad_()
            each = 0
        else:
            each = side // 2 if padding == "same" else 0
        forward = functools.partial(conv2d, x, kernel, stride=stride, padding=each)
        if layer == goals.POOLED:
            forward = functools.partial(lambda convolve: max_pool2d(relu(convolve()), 2), forward)
        grad = torch.ones_like(forward())

        def both(forward=forward, x=x, kernel=kernel, grad=grad):
            return torch.autograd.grad(forward(), [x, kernel], grad)

        yield {"case": case, "forward_ms": milliseconds(forward), "both_ms": milliseconds(both)}


class Wide(torch.nn.Module):
    """The wide perceptron, with products in bfloat16."""

    def __init__(self, width: int):
        super().__init__()
        stack = [m for _ in range(4) for m in (torch.nn.Linear(width, width), torch.nn.ReLU())]
        self.stack = torch.nn.Sequential(*stack, torch.nn.Linear(width, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device(), torch.bfloat16):
            return self.stack(x).float()


def mlp(small: bool, compiled: bool) -> Iterator[dict]:
    """The wide perceptron, with autocast."""
    case, width, x, y, batch = goals.wide(small)
    epoch = programs.torch_training(Wide(width), torch.nn.CrossEntropyLoss(), x, y, batch, compiled)
    yield goals.looped(case, epoch, len(x) // batch, small)
