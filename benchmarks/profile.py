"""Where the time of a training step goes: in each recorded call, and outside of them.

    python -m benchmarks profile lstm
    python -m benchmarks profile cnn --epochs 50 --all

A call's time is the median over the steps of that many epochs of `fit`; that of the clock itself is taken off. The step
is timed by itself before, with no clock inside. What is outside of calls: the loop over epochs and batches, the choice
of the rows, callbacks, the optimizer's host part, and the list of calls itself. "reference" marks a kernel that has no
compiled version, or arrays that are not computed by a kernel of this column.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import programs, wider


def fitted(program: str) -> tuple[Any, Callable[[], object], int]:
    """The model, what trains one epoch, and its steps."""
    if program in wider.NETWORKS:
        model, (x, y, batch) = wider.keras_network("dlgpu", program), wider.data(program)
    else:
        model, (x, y), batch = programs.keras_model("dlgpu", program), programs.data(program), programs.BATCH
    return model, lambda: model.fit(x, y, epochs=1, batch_size=batch, verbose=0), len(x) // batch


def name(function: Callable, args: Any) -> str:
    """What a recorded call does, as its author named it."""
    while isinstance(function, functools.partial):
        function = function.func
    own = getattr(function, "__name__", type(function).__name__)
    if own in ("share", "_again", "_do") and len(args) and callable(args[0]):
        return f"{'reference' if own != 'share' else 'share'}: {name(args[0], ())}"
    return own


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


def profile(program: str, epochs: int) -> tuple[list[tuple[str, str, float]], float]:
    """Name, shapes and microseconds of each call of a step in their order, and microseconds of the step."""
    model, epoch, steps = fitted(program)
    for _ in range(max(2, -(-6 // steps))):
        epoch()
    replays = [r for r in model._step.replays._known.values() if getattr(r, "tried", False)]
    if not replays:
        raise SystemExit(f"{program}: its steps are not replayed")
    whole = []
    for _ in range(epochs):
        start = time.perf_counter_ns()
        epoch()
        whole.append((time.perf_counter_ns() - start) / steps)
    calls = replays[0].recording.program
    times: list[list[int]] = [[] for _ in calls]
    rows = [(name(f, args), shapes(args)) for f, args in calls]
    for i, (function, args) in enumerate(calls):
        calls[i] = timed(function, times[i]), args
    for _ in range(epochs):
        epoch()
    nothing: list[int] = []
    empty = timed(lambda: None, nothing)
    for _ in range(1000):
        empty()
    clock = statistics.median(nothing)
    return [(*row, max(0.0, statistics.median(t) - clock) / 1e3) for row, t in zip(rows, times)], statistics.median(
        whole
    ) / 1e3


def table(calls: list[tuple[str, str, float]], step: float, least: float) -> str:
    """The calls with the longest first, those of a smaller share than `least` together."""
    inside = sum(c[2] for c in calls)
    width = max(len(c[0]) for c in calls) + 2
    lines = [f"{'call':{width}}{'us':>10}{'share':>8}  arrays"]
    small = [c for c in calls if c[2] < least * step]
    for call, arrays, spent in sorted(calls, key=lambda c: -c[2]):
        if spent >= least * step:
            lines.append(f"{call:{width}}{spent:10.2f}{spent / step:8.1%}  {arrays[:90]}")
    if small:
        lines.append(f"{f'{len(small)} smaller':{width}}{sum(c[2] for c in small):10.2f}")
    lines.append(f"{f'all {len(calls)} calls':{width}}{inside:10.2f}{inside / step:8.1%}")
    lines.append(f"{'outside of calls':{width}}{step - inside:10.2f}{(step - inside) / step:8.1%}")
    return "\n".join([*lines, f"{'a step of fit':{width}}{step:10.2f}"])


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, measure, print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks profile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("program", choices=[*programs.ROWS, *wider.NETWORKS])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--all", action="store_true", help="each call, however short")
    options = parser.parse_args(arguments)
    print(table(*profile(options.program, options.epochs), 0.0 if options.all else 0.005))


if __name__ == "__main__":
    main()
