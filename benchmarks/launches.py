"""Where the time of a training step goes on a GPU: in each kernel, beside what the device could do, and between them.

    python -m benchmarks profile lstm --device cuda
    nsys profile --cuda-graph-trace=node python -m benchmarks profile lstm --device cuda

A step of `fit` is timed as users run it. Then one step is run as written, each call of a kernel is noted with its
arrays and launches, and timed by itself (see benchmarks.clock). That step has NVTX ranges, of the step, its layers and
its kernels, for Nsight Systems.

    bytes   each array among a call's arguments and results once, over the time, as a share of a copy's bandwidth in the
            same run. More than all of it means that the arrays were in a cache
    peak    operations of products, over the time, as a share of what the multiprocessors' clock allows: float32 without
            tensor cores, 16-bit types with them
    gaps    a step of `fit` without the sum of the calls: what lies between kernels, the array functions that no kernel
            of dlgpu's does, and the host where the device waits for it

On the emulator all of this runs too; its times say nothing of a GPU.
"""

import functools
import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import dlgpu
from benchmarks import clock, programs
from benchmarks.kernels import arrays_in
from benchmarks.profile import fitted, seconds
from dlgpu.backend.cuda.source import Source
from dlgpu.backend.dispatch import Kernel
from dlgpu.layers import Layer
from dlgpu.training.step import Step

RECURRENT = ("simple_rnn", "lstm", "gru")


@dataclass
class Call:
    """A call of a kernel, or a launch outside of one."""

    name: str
    repeat: Callable[[], Any]
    args: tuple
    results: Any = None
    launches: list["Call"] = field(default_factory=list)
    milliseconds: float = 0.0

    @property
    def bytes(self) -> int:
        """Of all its arrays, each counted once."""
        arrays = {_address(a): a.nbytes for a in arrays_in((self.args, self.results))}
        return sum(arrays.values())

    @property
    def kind(self) -> str:
        """Which of the device's peaks its products are held to."""
        return "16 bit" if any(a.dtype.itemsize == 2 for a in arrays_in(self.args)) else "float32"


def _address(array: Any) -> tuple:
    return array.ctypes.data if hasattr(array, "ctypes") else array.data.ptr, array.shape


def operations(call: Call, before: list[Call]) -> float | None:
    """The additions and multiplications of a call's products; None for calls that have none.

    Args:
        call: of a kernel.
        before: the calls before it: a recurrent layer's backward is known by its forward.
    """
    a, name = call.args, call.name
    if name == "matmul":
        return 2.0 * call.results.size * a[0].shape[-1]
    if name == "dense":
        return 2.0 * a[0].size * a[1].shape[-1]
    if name == "dense_backward":
        made = a[5][0] is True, a[5][1]  # "factors": the product is made later
        return 2.0 * a[1].size * a[2].shape[-1] * sum(made)
    if name == "dense_activation_backward":
        return 2.0 * a[0].size * a[1].shape[0]
    if name == "convolution":
        return 2.0 * call.results[0].size * math.prod(a[1].shape[:3])
    if name == "convolution_pooled":
        return 2.0 * 4 * call.results[0].size * math.prod(a[1].shape[:3])
    if name == "convolution_backward":
        return 2.0 * a[0].size * math.prod(a[2].shape[:3]) * sum(a[5][:2])
    if name == "convolution_data_gradient":
        return 2.0 * a[0].size * math.prod(a[1].shape[:3])
    if name == "convolution_kernel_gradient":
        return 2.0 * a[1].size * math.prod(call.results.shape[:3])
    if name in RECURRENT:
        return 2.0 * math.prod(a[0].shape[:2]) * (a[1].size + a[2].size)
    if name.removesuffix("_backward") in RECURRENT:
        cell = name.removesuffix("_backward")
        forward = [operations(c, []) for c in before if c.name == cell and c.args[1].size == a[0].size]
        return 2 * forward[-1] if forward and forward[-1] is not None else None
    return None


# -- one step, noted


@contextmanager
def noted() -> Iterator[list[Call]]:
    """The calls of kernels inside the `with`, and the launches of each; those in another's are part of that."""
    calls: list[Call] = []
    inside: list[Call] = []
    call, launch = Kernel.__call__, Source.launch

    def calling(self: Kernel, *args: Any, **options: Any) -> Any:
        if inside:
            return call(self, *args, **options)
        made = Call(self.__name__, functools.partial(call, self, *args, **options), args)
        inside.append(made)
        try:
            made.results = call(self, *args, **options)
        finally:
            inside.pop()
        calls.append(made)
        return made.results

    def launching(self: Source, name: str, grid: Any, block: Any, args: Any, *more: Any, **options: Any) -> None:
        again = functools.partial(launch, self, name, grid, block, args, *more, **options)
        (inside[-1].launches if inside else calls).append(Call(name, again, tuple(args)))
        again()

    with mock.patch.object(Kernel, "__call__", calling), mock.patch.object(Source, "launch", launching):
        yield calls


@contextmanager
def ranges() -> Iterator[None]:
    """Inside the `with`, steps, layers and kernels are NVTX ranges, if there is a GPU and NVTX for it."""
    if dlgpu.current_device().on_host:
        yield
        return
    from cupy.cuda import nvtx

    def named(original: Callable, label: Callable[[Any], str]) -> Callable:
        def within(self: Any, *args: Any, **options: Any) -> Any:
            nvtx.RangePush(label(self))
            try:
                return original(self, *args, **options)
            finally:
                nvtx.RangePop()

        return within

    with ExitStack() as stack:
        for kind, method, label in (
            (Step, "run", lambda step: f"step of {step.model.name}"),
            (Layer, "__call__", lambda layer: layer.name),
            (Kernel, "__call__", lambda kernel: kernel.__name__),
        ):
            stack.enter_context(mock.patch.object(kind, method, named(getattr(kind, method), label)))
        yield


@contextmanager
def last_step(calls: list[Call]) -> Iterator[list[slice]]:
    """After the `with`, where in `calls` those of the last training step are."""
    found, train = [slice(0)], Step.train

    def training(self: Step, *batches: Any) -> None:
        start = len(calls)
        train(self, *batches)
        found[0] = slice(start, len(calls))

    with mock.patch.object(Step, "train", training):
        yield found


# -- the profile


@dataclass
class Profile:
    """What a step takes, milliseconds, and the calls in it, in their order; copies in bytes a second."""

    device: str
    step: float
    calls: list[Call]
    bandwidth: float
    peaks: dict[str, float]


def profile(program: str, device: str, epochs: int) -> Profile:
    """Train, note a step, and time what it consists of."""
    with dlgpu.device(device) as place:
        if place.on_host:  # to try it out
            programs.ROWS.update(dict.fromkeys(programs.ROWS, 2 * programs.BATCH))
        model, fit, steps = fitted(program)
        fit(3 if place.on_host else max(6, -(-256 // steps)))  # until several steps are launched at once
        several = 2 if place.on_host else max(4, epochs)
        found = [seconds(fit, 1 + several) - seconds(fit, 1) for _ in range(1 if place.on_host else 5)]
        step = statistics.median(found) / several / steps * 1e3
        model.run_eagerly = True
        fit(1)
        with noted() as calls, ranges(), last_step(calls) as place_of:
            fit(1)
        calls = calls[place_of[0]]
        repeats = 2 if place.on_host else 20
        for call in calls:
            call.milliseconds = clock.milliseconds(call.repeat, repeats)
            for launch in call.launches if len(call.launches) > 1 else ():
                launch.milliseconds = clock.milliseconds(launch.repeat, repeats)
        return Profile(str(place), step, calls, clock.copy_bandwidth(), clock.peaks())


def table(found: Profile, least: float) -> str:
    """A line for each call, the longest first, and the launches of those that have several; then what is between."""
    whole = sum(call.milliseconds for call in found.calls)
    width = max(len(c.name) for c in (*found.calls, *(part for c in found.calls for part in c.launches))) + 4
    lines = [f"{'call':{width}}{'us':>10}{'share':>8}{'bytes':>8}{'GFLOP/s':>10}{'peak':>8}  arrays"]
    if found.device == "emulator":
        lines.insert(0, "times of the emulator, which say nothing of a GPU")

    def line(name: str, spent: float, rest: str = "") -> None:
        lines.append(f"{name:{width}}{spent * 1e3:10.2f}{spent / found.step:8.1%}{rest}".rstrip())

    for place, call in sorted(enumerate(found.calls), key=lambda c: -c[1].milliseconds):
        if call.milliseconds < least * found.step:
            continue
        second = call.milliseconds / 1e3
        work, peak = operations(call, found.calls[:place]), found.peaks.get(call.kind)
        rest = f"{call.bytes / second / found.bandwidth:8.0%}"
        rest += f"{work / second / 1e9:10.0f}" if work else " " * 10
        rest += f"{work / second / peak:8.1%}" if work and peak else " " * 8
        shapes = " ".join("x".join(map(str, a.shape)) or "()" for a in arrays_in(call.args))
        line(call.name, call.milliseconds, f"{rest}  {shapes[:60]}")
        for launch in call.launches if len(call.launches) > 1 else ():
            line(f"  {launch.name}", launch.milliseconds)
    line(f"all {len(found.calls)} calls", whole)
    line("gaps", found.step - whole)
    line("a step of fit", found.step)
    lines.append(f"a copy: {found.bandwidth / 1e9:.0f} GB/s")
    lines += [f"peak, {kind}: {peak / 1e12:.1f} TFLOP/s" for kind, peak in found.peaks.items()]
    return "\n".join(lines)
