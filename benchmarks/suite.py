"""The test suite on a device, with its results as numbers and names."""

import ast
import importlib.util
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.processes import ROOT, PartError, python, run, tail
from dlgpu.backend.emulator import compiler

KERNELS = "tests/backend/cuda"  # where kernels are held to their references in float64
OWN = {"dlgpu", "tests", "benchmarks"}


def run_tests(device: str, seconds: float, paths: Sequence[str] = ("tests",)) -> tuple[dict, bool]:
    """Run the tests with `device` as the current one.

    Args:
        device: its name.
        seconds: the time limit; what was counted until then is reported.
        paths: what pytest is given.
    Returns:
        what the file is to hold (see benchmarks.gpu), and whether all passed.
    """
    if importlib.util.find_spec("pytest") is None:
        raise PartError("pytest is not installed")
    missing = not_runnable()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [*python("pytest"), *paths, f"--junitxml={report}", "-p", "no:cacheprovider"]
        command += [f"--ignore={name}" for name in missing]
        command += ["-n", str(min(16, cores()))] if importlib.util.find_spec("xdist") else []
        command += ["--timeout=120"] if importlib.util.find_spec("pytest_timeout") else []
        done = run(command, seconds, {"DLGPU_DEVICE": device})
        if not report.exists():
            raise PartError(tail(done.stdout))
        found = counted(ElementTree.parse(report).getroot())
    found |= {"exit": done.returncode, "not_run": missing}
    return found, done.returncode == 0 and not found["failed"]


def counted(report: ElementTree.Element) -> dict:
    """What a report in JUnit's format says."""
    counts, of_kernels = ({"passed": 0, "failed": 0, "skipped": 0} for _ in range(2))
    failures = {}
    for case in report.iter("testcase"):
        place = case.get("classname", "")
        wrong = next((e for e in case if e.tag in ("failure", "error")), None)
        kind = "failed" if wrong is not None else "skipped" if case.find("skipped") is not None else "passed"
        for each in (counts, of_kernels) if place.startswith(KERNELS.replace("/", ".")) else (counts,):
            each[kind] += 1
        if wrong is not None:
            failures[f"{place}::{case.get('name')}"] = (wrong.get("message") or wrong.text or "")[:500]
    return {**counts, "kernels": of_kernels, "failures": failures}


def not_runnable() -> dict[str, str]:
    """The test files that import what is not installed here, and the folders that need a C++ compiler."""
    found = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        nodes = ast.parse(path.read_text()).body
        names = [a.name for n in nodes if isinstance(n, ast.Import) for a in n.names]
        names += [n.module or "" for n in nodes if isinstance(n, ast.ImportFrom) and not n.level]
        needed = {n.partition(".")[0] for n in names} - OWN
        absent = sorted(name for name in needed if importlib.util.find_spec(name) is None)
        if absent and "parity" not in path.parts:
            found[str(path.relative_to(ROOT))] = f"{', '.join(absent)} not installed"
    if compiler.problem():
        found |= {folder: f"the emulator: {compiler.problem()}" for folder in (KERNELS, "tests/backend/emulator")}
    return found


def cores() -> int:
    """The processor's cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
