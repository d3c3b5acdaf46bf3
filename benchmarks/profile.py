"""Where the time of a training step goes: in each recorded call, and outside of them.

    python -m benchmarks profile lstm
    python -m benchmarks profile cnn --epochs 50 --all
    python -m benchmarks profile lstm --device cuda          on a GPU; see benchmarks/launches.py

Loops that are joined to one native call are called one by one here. A call's time is the median over the steps of that
many epochs of `fit`; that of the clock is taken off. What is outside of calls is the rest of the time of these epochs:
the loop over epochs and batches, the choice of the rows, callbacks, the optimizer's host part, and the list of calls
itself; the part that comes once an epoch is told apart by fits of one epoch and of several. "reference" marks a kernel
that has no compiled version, or an array function outside of kernels.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import programs, wider
from dlgpu.errors import DeviceError


def fitted(program: str) -> tuple[Any, Callable[[int], object], int]:
    """The model, what trains it for some epochs, and the steps of one."""
    if program in wider.NETWORKS:
        model, (x, y, batch) = wider.keras_network("dlgpu", program), wider.data(program)
    else:
        model, (x, y), batch = programs.keras_model("dlgpu", program), programs.data(program), programs.BATCH
    return model, lambda epochs: model.fit(x, y, epochs=epochs, batch_size=batch, verbose=0), len(x) // batch


def name(function: Callable, args: Any) -> str:
    """What a recorded call does, as its author named it."""
    while isinstance(function, functools.partial):
        function = function.func
    own = getattr(function, "__name__", type(function).__name__)
    return f"reference: {name(args[0], ())}" if own in ("_again", "_do") else own


def parts(function: Any, args: Any) -> list[tuple[Callable, Any]]:
    """The calls of which a recorded one consists."""
    inside = getattr(function, "calls", None)
    return [(function, args)] if inside is None else [(function.wake, ()), *((call, ()) for call in inside)]


def about(function: Any, args: Any) -> tuple[str, str]:
    """The name and the arrays of a recorded call; of work that threads share, of one part."""
    if not hasattr(function, "loop"):
        return name(function, args), shapes(args)
    many = getattr(function.args[-1], "parts", ())
    call = many[0] if many else function
    return call.loop.__name__ + (f", {len(many)} parts" if many else ""), shapes(call.args)


def shapes(args: Any) -> str:
    """Of its arrays."""
    return " ".join("x".join(map(str, a.shape)) or "()" for a in args if isinstance(a, np.ndarray))


def timed(function: Callable, found: list[int]) -> Callable:
    """The function, whose nanoseconds join `found`."""
    clock = time.perf_counter_ns

    def watched(*args: Any) -> None:
        start = clock()
        function(*args)
        found.append(clock() - start)

    return watched


@dataclass
class Profile:
    """Microseconds of a step.

    Attributes:
        calls: name, shapes of the arrays, and time of each, in their order.
        outside: the rest.
        fitting: of the rest, what comes once a `fit`, divided by its steps.
    """

    calls: list[tuple[str, str, float]]
    outside: float
    fitting: float


def profile(program: str, epochs: int) -> Profile:
    """Train that many epochs with a clock on each recorded call."""
    model, fit, steps = fitted(program)
    fit(max(3, -(-6 // steps)))
    replays = [r for r in model._step.replays._known.values() if getattr(r, "tried", False)]
    if not replays:
        raise SystemExit(f"{program}: its steps are not replayed")
    several = 4
    once = statistics.median(
        several * seconds(fit, 1) - seconds(fit, several) for _ in range(max(3, epochs // several))
    )
    calls = replays[0].recording.recording.program
    calls[:] = [part for function, args in calls for part in parts(function, args)]
    times: list[list[int]] = [[] for _ in calls]
    rows = [about(f, args) for f, args in calls]
    for i, (function, args) in enumerate(calls):
        calls[i] = timed(function, times[i]), args
    clock, watching = cost_of_watching()
    rest = []
    for _ in range(epochs):
        before = sum(map(sum, times))
        spent = seconds(fit, 1) * 1e9
        rest.append((spent - (sum(map(sum, times)) - before)) / steps - len(calls) * watching)
    found = [(*row, max(0.0, statistics.median(t) - clock) / 1e3) for row, t in zip(rows, times)]
    return Profile(found, statistics.median(rest) / 1e3, max(0.0, once) / (several - 1) / steps * 1e6)


def seconds(fit: Callable, epochs: int) -> float:
    """Of one `fit`."""
    start = time.perf_counter()
    fit(epochs)
    return time.perf_counter() - start


def cost_of_watching() -> tuple[float, float]:
    """Nanoseconds that the clock adds to a call's time, and that it takes beside."""
    times: list[int] = []
    empty = timed(lambda: None, times)
    loops = []
    for _ in range(20):
        times.clear()
        start = time.perf_counter_ns()
        for _ in range(500):
            empty()
        loops.append(((time.perf_counter_ns() - start) - sum(times)) / 500)
    return statistics.median(times), min(loops)


def table(found: Profile, least: float) -> str:
    """The calls with the longest first, those of a smaller share than `least` together."""
    inside = sum(c[2] for c in found.calls)
    step = inside + found.outside
    width = max(len(c[0]) for c in found.calls) + 2
    lines = [f"{'call':{width}}{'us':>10}{'share':>8}  arrays"]

    def line(what: str, spent: float, arrays: str = "") -> None:
        lines.append(f"{what:{width}}{spent:10.2f}{spent / step:8.1%}  {arrays[:90]}".rstrip())

    for call, arrays, spent in sorted(found.calls, key=lambda c: -c[2]):
        if spent >= least * step:
            line(call, spent, arrays)
    small = [c[2] for c in found.calls if c[2] < least * step]
    if small:
        line(f"{len(small)} smaller", sum(small))
    line(f"all {len(found.calls)} calls", inside)
    line("outside of calls", found.outside)
    line("  once a fit", min(found.fitting, found.outside))
    line("a step of fit", step)
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, measure, print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks profile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("program", choices=[*programs.ROWS, *wider.NETWORKS])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--all", action="store_true", help="each call, however short")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, or emulator to try that out")
    options = parser.parse_args(arguments)
    least = 0.0 if options.all else 0.005
    if options.device == "cpu":
        print(table(profile(options.program, options.epochs), least))
        return
    from benchmarks import launches

    try:
        print(launches.table(launches.profile(options.program, options.device, options.epochs), least))
    except DeviceError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
