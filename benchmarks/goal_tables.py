"""The goals on a GPU as tables: dlgpu beside its peers, and what was to be reached."""

import math
from collections.abc import Callable

from benchmarks.goals import POOLED
from benchmarks.table import Table, best, median, names, number

# what is to be reached; a ratio is the peer's time over dlgpu's
EAGER, COMPILED, RECURRENT, SMALL_RECURRENT, CONVOLUTION, OF_COPY, MLP = 5.0, 1.5, 1.0, 2.0, 0.8, 0.85, 0.95
SMALL = 256  # units


def against(ours: float | None, theirs: float | None, goal: float) -> tuple[str, str, str]:
    """How many times the other takes of what dlgpu takes, the goal, and whether it is reached."""
    if not ours or not theirs:
        return "", f"{goal:g}", "not measured"
    return f"{theirs / ours:.2f}", f"{goal:g}", "yes" if theirs / ours >= goal else "no"


def missing(runs: list[dict]) -> list[Table]:
    """The peers of which there is no number, with the reason."""
    rows = [(r["peer"], r["error"].strip().splitlines()[-1][:100]) for r in runs if "error" in r]
    return [("Not measured", ("peer", "reason"), rows)] if rows else []


def _steps(runs: list[dict]) -> list[Table]:
    heads = ("program", "dlgpu, ms", "PyTorch, ms", "compiled, ms", "JAX, ms")
    rows = []
    for case in names(runs, "case"):
        times = {p: median(runs, case, p, "step_ms") for p in ("dlgpu", "torch-fused", "torch-compile", "jax-scan")}
        others = [t for p, t in times.items() if p in ("torch-compile", "jax-scan") and t]
        eager = against(times["dlgpu"], times["torch-fused"], EAGER)
        rows.append(
            (case, *map(number, times.values()), *eager, *against(times["dlgpu"], min(others, default=None), COMPILED))
        )
    more = ("of PyTorch", "goal", "reached", "of the best compiled", "goal", "reached")
    return [("A training step, batch 32", (*heads, *more), rows)]


def _recurrent(runs: list[dict]) -> list[Table]:
    heads = ("cell/units/batch/time", "forward, ms", "cuDNN", "ratio", "both, ms", "cuDNN", "ratio", "goal", "reached")
    rows = []
    for case in names(runs, "case"):
        goal = SMALL_RECURRENT if int(case.split("/")[1]) <= SMALL else RECURRENT
        forward, both = ([median(runs, case, p, f"{k}_ms") for p in ("dlgpu", "torch")] for k in ("forward", "both"))
        ratio = against(*forward, goal)[0]
        rows.append((case, *map(number, forward), ratio, *map(number, both), *against(*both, goal)))
    return [("Recurrent layers", heads, rows)]


def _convolution(runs: list[dict]) -> list[Table]:
    heads = ("layer", "forward, ms", "cuDNN", "ratio", "both, ms", "cuDNN", "ratio")
    rows, kinds = [], {}
    for case in names(runs, "case"):
        forward, both = ([median(runs, case, p, f"{k}_ms") for p in ("dlgpu", "torch")] for k in ("forward", "both"))
        if all((*forward, *both)) and not case.startswith(POOLED):  # of the layers alone
            found = kinds.setdefault(case.split("/")[1], [])
            found += [theirs / ours for ours, theirs in (forward, both)]
        ratios = [against(*pair, CONVOLUTION)[0] for pair in (forward, both)]
        rows.append((case, *map(number, forward), ratios[0], *map(number, both), ratios[1]))
    means = []
    for kind, ratios in kinds.items():
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        means.append((kind, str(len(ratios)), number(min(ratios)), *against(1.0, mean, CONVOLUTION)))
    summary = ("kind", "times", "least", "geometric mean", "goal", "reached")
    return [("Convolution", heads, rows), ("Convolution, cuDNN / dlgpu", summary, means)]


def _memory(runs: list[dict]) -> list[Table]:
    rows = []
    for case in names(runs, "case"):
        share = median(runs, case, "dlgpu", "of_copy")
        reached = "yes" if share and share >= OF_COPY else "no" if share else "not measured"
        cells = number(median(runs, case, "dlgpu", "ms")), number(median(runs, case, "dlgpu", "gb_s"))
        rows.append((case, *cells, f"{share:.0%}" if share else "", f"{OF_COPY:.0%}", reached))
    return [("Kernels bound by memory", ("kernel", "ms", "GB/s", "of a copy's", "goal", "reached"), rows)]


def _mlp(runs: list[dict]) -> list[Table]:
    rows = []
    for case in names(runs, "case"):
        ours, other = median(runs, case, "dlgpu", "step_ms"), best(runs, case, "step_ms")
        peer, theirs = other or ("", None)
        rows.append((case, number(ours), number(theirs), peer, *against(ours, theirs, MLP)))
    return [("MLP in bfloat16", ("network", "dlgpu, ms", "PyTorch, ms", "the best", "ratio", "goal", "reached"), rows)]


MAKERS: dict[str, Callable[[list[dict]], list[Table]]] = {
    "steps": _steps,
    "recurrent": _recurrent,
    "convolution": _convolution,
    "memory": _memory,
    "mlp": _mlp,
}


def tables(parts: dict) -> list[Table]:
    """Those of all goals that are among the parts of a run."""
    found = []
    for part, maker in MAKERS.items():
        runs = parts.get(part, {}).get("runs", [])
        found += [t for t in maker([r for r in runs if "case" in r]) if t[2]] + missing(runs)
    return found
