"""Prove and time dlgpu on the GPU of this machine: one command, from a plain checkout.

    PYTHONPATH=. python -m benchmarks.gpu --out results.json
    PYTHONPATH=. python -m benchmarks.gpu --out results.json --only programs,kernels
    PYTHONPATH=. python -m benchmarks.gpu --out results.json --device emulator       the same without a GPU

It needs NumPy, tqdm, safetensors, CuPy and pytest; PyTorch and JAX are peers if they are installed, pytest-xdist
spreads the tests over the cores, and compute-sanitizer is used if it is on the PATH. All ends within eight minutes,
with what is most wanted first. Each part runs in processes of its own with a time limit, and the file is written anew
after each. It exits with 1 if something failed, and with 2 where the device is not there. No figure decides that.

The file is one object: `device` (as asked for), `commit`, `machine` (what is there, and versions), `seconds`, `ok`, and
`parts`, of which each has `ok`, `seconds`, and `error` where it ended before it had a result:

    programs    by program: `cpu` and `device`, the losses of 5 epochs; `difference`, the largest relative one, of which
                1e-3 is allowed
    steps, recurrent, convolution, memory, mlp
                what is to be reached, `runs` by `case` and `peer`; see benchmarks/goals.py
    first       seconds from the start of Python to the end of the first step of each program, in turn in one process,
                with nothing compiled (`cold`; not on the emulator) and with what that compiled (`warm`)
    kernels     by kernel: milliseconds, and GB/s of its arguments and results
    sanitizers  by tool: `errors`, or why it was `not_run`, and what it said
    tests       `passed`, `failed`, `skipped`; those of kernels against their references in float64 again by themselves;
                `failures` by name with their message; `not_run`, files that need what is not installed; `exit`, the
                status of pytest, or 124 if the time limit stopped it
"""

import argparse
import contextlib
import functools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import dlgpu
from benchmarks import goal_tables, goals, programs
from benchmarks.processes import ROOT, PartError, python, run, tail
from benchmarks.suite import cores, run_tests
from benchmarks.table import lined
from dlgpu.backend.emulator import compiler
from dlgpu.errors import DeviceError

LIMIT = 450  # seconds, for all; a last part that is stopped takes some more
SANITIZERS = ("memcheck", "racecheck")
SAMPLES, EPOCHS, TOLERANCE = 64, 5, 1e-3
Part = tuple[dict, bool]  # what goes into the file, and whether all is well


# -- in a process of their own


def first_here(device: str) -> dict:
    """Seconds since Python began: to the end of the import, and of one step of each program."""
    began = float(os.environ["BEGAN"])
    found = {"import": time.time() - began}
    dlgpu.set_device(device)
    for program in programs.ROWS:
        x, y = (a[: programs.BATCH] for a in programs.data(program))
        programs.keras_model("dlgpu", program).fit(x, y, epochs=1, batch_size=programs.BATCH, verbose=0)
        found[program] = time.time() - began
    return found


def programs_here(device: str) -> dict:
    """The four programs' losses on the CPU and on the device, and their largest relative difference."""
    found = {}
    samples, epochs = (32, 2) if device == "emulator" else (SAMPLES, EPOCHS)  # there, to try it out
    for program in programs.ROWS:
        losses = []
        for place in ("cpu", device):
            with dlgpu.device(place):
                dlgpu.set_random_seed(3)
                x, y = (a[:samples] for a in programs.data(program))
                history = programs.keras_model("dlgpu", program).fit(x, y, epochs=epochs, batch_size=32, verbose=0)
                losses.append([float(v) for v in history.history["loss"]])
        difference = float(np.max(np.abs(np.subtract(*losses) / losses[0])))
        found[program] = {"cpu": losses[0], "device": losses[1], "difference": difference}
    return found


def machine(device: str) -> dict:
    """Names and versions."""
    found = {"python": platform.python_version(), "system": platform.platform(), "cores": cores()}
    found |= {"dlgpu": dlgpu.__version__, "numpy": np.__version__, "compiler": compiler.compiler()}
    if dlgpu.device(device).on_host:
        return found
    import cupy

    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(dlgpu.device(device).index)
    found |= {"gpu": properties["name"].decode(), "memory": int(properties["totalGlobalMem"])}
    found |= {"capability": f"{properties['major']}.{properties['minor']}", "cupy": cupy.__version__}
    found |= {"cuda_runtime": runtime.runtimeGetVersion(), "cuda_driver": runtime.driverGetVersion()}
    packages = "nvmath-python", "nvidia-cudnn-frontend", "nvidia-cuda-nvrtc", "pytest", "pytest-xdist"
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    smi = shutil.which("nvidia-smi")
    if smi:
        query = [smi, "--query-gpu=driver_version", "--format=csv,noheader"]
        found["driver"] = run(query, 20).stdout.strip()
    return found


HERE = {"machine": machine, "first": first_here, "programs": programs_here}


def child(part: str, device: str, seconds: float, **environment: str) -> dict:
    """What one of HERE finds in a process of its own."""
    environment["BEGAN"] = str(time.time())
    done = run([*python("benchmarks.gpu"), "--device", device, "--here", part], seconds, environment)
    if done.returncode:
        raise PartError(tail(done.stdout))
    return json.loads(done.stdout.splitlines()[-1])


# -- the parts


def first(device: str, seconds: float) -> Part:
    """The first steps with nothing compiled, and with what that compiled."""
    if device == "emulator":
        return {"warm": child("first", device, seconds)}, True
    with tempfile.TemporaryDirectory() as folder:
        return {state: child("first", device, seconds / 2, CUPY_CACHE_DIR=folder) for state in ("cold", "warm")}, True


def loss_curves(device: str, seconds: float) -> Part:
    """The four programs' loss curves on the device and on the CPU."""
    found = child("programs", device, seconds)
    return found, all(f["difference"] <= TOLERANCE for f in found.values())  # NaN fails too


def goal(part: str, device: str, seconds: float) -> Part:
    """One part of the goals, for dlgpu and each peer that is here; what is known when the time is over is kept."""
    runs: list[dict] = []
    end, peers = time.time() + seconds, goals.PEERS[part]
    for place, peer in enumerate(peers):
        if not programs.installed(peer):
            runs.append({"peer": peer, "error": f"not installed: {', '.join(programs.NEEDS[peer])}"})
            continue
        limit = (end - time.time()) / (len(peers) - place)
        done = run([*python("benchmarks.goals"), part, peer, "--device", device], max(1.0, limit))
        found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        runs += [{"peer": peer, **each} for each in found]
        if done.returncode:
            runs.append({"peer": peer, "error": tail(done.stdout)})
    return {"runs": runs}, not any("error" in r for r in runs if r["peer"] == "dlgpu")


def kernels(device: str, seconds: float) -> Part:
    """Each kernel's time."""
    small = ["--small", "--repeats", "2"] if device == "emulator" else []
    done = run([*python("benchmarks.kernels"), "--device", device, "--json", *small], seconds)
    if done.returncode:
        raise PartError(tail(done.stdout))
    return json.loads(done.stdout.splitlines()[-1]), True


def sanitizers(device: str, seconds: float) -> Part:
    """One call of each kernel on small arrays under NVIDIA's sanitizers."""
    found: dict[str, dict] = {}
    for tool in SANITIZERS:
        reason = "it watches GPUs only" if device == "emulator" else "compute-sanitizer is not on the PATH"
        if device == "emulator" or not shutil.which("compute-sanitizer"):
            found[tool] = {"not_run": reason}
            continue
        watch = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9"]
        done = run([*watch, *python("benchmarks.kernels"), "--device", device, "--once"], seconds / len(SANITIZERS))
        count = re.search(r"(?:ERROR|RACECHECK) SUMMARY: (\d+)", done.stdout)
        found[tool] = {"exit": done.returncode, "errors": int(count[1]) if count else None, "said": tail(done.stdout)}
    return found, all(f.get("exit", 0) == 0 for f in found.values())


# a part and its time limit in seconds; the tests come last, for what the others leave
GOALS = {"steps": 150, "recurrent": 80, "convolution": 90, "memory": 25, "mlp": 60}
PARTS: dict[str, tuple[Callable[..., Part], float]] = {
    "programs": (loss_curves, 60),
    **{part: (functools.partial(goal, part), limit) for part, limit in GOALS.items()},
    "kernels": (kernels, 40),
    "first": (first, 40),
    "sanitizers": (sanitizers, 60),
    "tests": (run_tests, 330),
}


def _commit() -> str | None:
    with contextlib.suppress(OSError):
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip() or None
    return None


def _write(path: Path, result: dict) -> None:
    """The file is whole at any time."""
    waiting = path.with_name(path.name + ".new")
    waiting.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(waiting, path)


def table(result: dict) -> str:
    """A line a part, and one for each failed test."""
    lines = [f"{result['machine'].get('gpu', result['device'])}: {'all well' if result['ok'] else 'NOT WELL'}"]
    for name, part in result["parts"].items():
        lines.append(f"  {name:12}{'ok' if part['ok'] else 'FAILED':8}{part['seconds']:7.1f} s  {_summary(name, part)}")
    failures = result["parts"].get("tests", {}).get("failures", {})
    lines += [f"    {name}: {message.splitlines()[0] if message else ''}" for name, message in failures.items()]
    if result["device"] == "emulator":
        lines.append("times of the emulator, and of peers on the processor, which say nothing of a GPU")
    return "\n".join([*lines, lined(goal_tables.tables(result["parts"]))])


def _summary(name: str, part: dict) -> str:
    if "error" in part:
        return part["error"].strip().splitlines()[-1] if part["error"].strip() else "no result"
    if name == "first":
        return ", ".join(f"{state} {max(part[state].values()):.1f} s" for state in ("cold", "warm") if state in part)
    if name == "programs":
        return "largest difference " + ", ".join(f"{p} {part[p]['difference']:.1e}" for p in programs.ROWS)
    if name in goals.PEERS:
        measured = dict.fromkeys(r["peer"] for r in part["runs"] if "case" in r)
        return ", ".join(f"{sum(r['peer'] == p for r in part['runs'] if 'case' in r)} of {p}" for p in measured)
    if name == "kernels":
        slowest = sorted((k for k in part if isinstance(part[k], dict)), key=lambda k: -part[k]["ms"])[:3]
        return "slowest " + ", ".join(f"{k} {part[k]['ms']:.3f} ms" for k in slowest)
    if name == "sanitizers":
        return ", ".join(f"{t}: {part[t].get('not_run') or part[t]['errors']}" for t in SANITIZERS)
    kernels = part["kernels"]
    stopped = ", stopped at the time limit" if part["exit"] == 124 else ""
    counts = f"{part['passed']} passed, {part['failed']} failed"
    return f"{counts}; of kernels {kernels['passed']} and {kernels['failed']}{stopped}"


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, run the parts, write the file, print the table; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="the file (default: gpu.json)")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or emulator to try it out (default: cuda)")
    parser.add_argument("--only", default=",".join(PARTS), help="the parts, with commas between (default: all)")
    parser.add_argument("--limit", type=float, default=LIMIT, help=f"seconds in all (default: {LIMIT})")
    parser.add_argument("--tests", nargs="+", default=["tests"], help="what pytest is given (default: tests)")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    chosen = options.only.split(",")
    if not set(chosen) <= set(PARTS):
        parser.error(f"--only: the parts are {', '.join(PARTS)}")
    try:
        place = dlgpu.device(options.device)
    except DeviceError as error:
        print(error, file=sys.stderr)
        return 2
    if options.here:
        print(json.dumps(HERE[options.here](str(place))))
        return 0
    began = time.time()
    result: dict[str, Any] = {"device": str(place), "commit": _commit()}
    try:
        result["machine"] = child("machine", str(place), 40)
    except PartError as error:
        result["machine"] = {"error": str(error)}
    result |= {"seconds": 0.0, "ok": "error" not in result["machine"], "parts": {}}
    parts = PARTS | {"tests": (functools.partial(run_tests, paths=options.tests), PARTS["tests"][1])}
    for name in [n for n in parts if n in chosen]:
        print(f"{name} ...", flush=True)
        function, limit = parts[name]
        start = time.time()
        try:
            seconds = min(limit, options.limit - (start - began))
            if seconds < 1:
                raise PartError("no time was left")
            found, ok = function(str(place), seconds)
        except (PartError, OSError, ValueError) as error:
            found, ok = {"error": str(error) or type(error).__name__}, False
        result["parts"][name] = {"ok": ok, "seconds": round(time.time() - start, 1), **found}
        result |= {"seconds": round(time.time() - began, 1), "ok": result["ok"] and ok}
        _write(options.out, result)
    print(table(result))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
