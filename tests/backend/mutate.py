"""Breaks each CUDA kernel in many small ways, and demands that its tests notice every one.

    python -m tests.backend.mutate [FILE ...] [--each N] [--jobs N]

An index is flipped, a bound moved by one, an operator changed, a barrier dropped, or two arguments of one type are
swapped: one at a time, in a copy of the checkout, whose tests of that file must then fail. What they do not see they
get to see again under AddressSanitizer. Prints a line for each mutant; exits with 1 if one survived.
"""

import argparse
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tqdm import tqdm

from dlgpu.backend.cuda.signature import without_comments
from tests.backend.emulator.test_sanitizer import sanitized_environment
from tests.backend.equivalent import EQUIVALENT

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "kernels"
ROWS = dict.fromkeys(["simple_rnn.cu", "lstm.cu", "gru.cu"], "recurrent")  # whose tests have another name
ROWS |= {f"tensor_{name}": "tensor_recurrent" for name in ROWS}
OPERATORS = {"+": "-", "-": "+", "*": "+", "/": "*", "%": "/", "+=": "-=", "-=": "+=", "&": "|", "|": "&"}
BOUNDS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
OPERATOR = re.compile(r"(?<= )(\+=|-=|[-+*/%&|])(?= )")
BOUND = re.compile(r"(?<!template) (<=?|>=?) ")
AXIS = re.compile(r"(?<=Idx\.|Dim\.)[xy]\b")
BARRIER = re.compile(r"\b(__sync\w+\([^()]*\)|\w*sync_grid\w*\([^()]*\)|\w*grid_barrier\w*\([^()]*\));")
FUNCTION = re.compile(
    r"(?:__global__|__device__)\s[\w\s<>*&]*?(?:__launch_bounds__\([^()]*\)\s*)?\w+\s*\(([^()]*)\)\s*(?:const\s*)?[{:]"
)
DECLARATION = re.compile(r"\s*(?!return\b|else\b)(?:\w+\s+)+(?:\w+(?:\[[^]]*\])+,\s*)*\w+(?:\[[^]]*\])*$")
TIMEOUT = 60  # seconds at least; a mutant may loop forever


@dataclass(frozen=True)
class Mutant:
    """The source of `file` with what lies from `start` to `end` replaced by `text`."""

    file: str
    kind: str
    start: int
    end: int
    text: str
    source: str

    @property
    def mutated(self) -> str:
        return self.source[: self.start] + self.text + self.source[self.end :]

    @property
    def line(self) -> int:
        return self.source.count("\n", 0, self.start) + 1

    def __str__(self) -> str:
        lines = self.mutated[self.source.rfind("\n", 0, self.start) + 1 :]
        return " ".join(lines[: lines.index("\n", len(self.text))].split())


def subscripts(code: str) -> Iterator[tuple[int, int]]:
    """Where the indices begin and end; not the lengths of declared arrays, nor what a lambda captures."""
    for match in re.finditer(r"(?<=[\w\])])\[", code):
        depth, end = 1, match.end()
        while depth:
            depth += {"[": 1, "]": -1}.get(code[end], 0)
            end += 1
        statement = re.split(r"[;{}(]", code[: match.start()])[-1]
        if code[match.start() - 1] != ")" and not DECLARATION.fullmatch(statement):
            yield match.end(), end - 1


def mutants(file: str) -> Iterator[Mutant]:
    """Every mutant of a file in kernels/."""
    source = (KERNELS / file).read_text()
    code = without_comments(source)

    def made(kind: str, start: int, end: int, text: str) -> Mutant:
        return Mutant(file, kind, start, end, text, source)

    for start, end in subscripts(code):
        yield made("index", start, end, f"({source[start:end]}) + 1")
    for m in AXIS.finditer(code):
        yield made("axis", *m.span(), {"x": "y", "y": "x"}[m[0]])
    for m in BOUND.finditer(code):
        yield made("bound", *m.span(1), BOUNDS[m[1]])
    for m in OPERATOR.finditer(code):
        yield made("operator", *m.span(), OPERATORS[m[0]])
    for m in BARRIER.finditer(code):
        yield made("barrier", *m.span(), ";")
    for m in FUNCTION.finditer(code):
        parameters = re.finditer(r"([^,]*?[\s*&])(\w+)(?=\s*(?:,|$))", m[1])
        of_type: dict[str, list[re.Match]] = {}
        for p in parameters:
            of_type.setdefault(" ".join(p[1].split()), []).append(p)
        for group in of_type.values():
            for p, q in pairwise(group):
                start, end = m.start(1) + p.start(2), m.start(1) + q.end(2)
                between = source[m.start(1) + p.end(2) : m.start(1) + q.start(2)]
                yield made("arguments", start, end, q[2] + between + p[2])


def chosen(file: str, each: int) -> list[Mutant]:
    """All mutants not known to be equivalent; or `each` of a kind, evenly spread, and every barrier."""
    kinds: dict[str, list[Mutant]] = {}
    for m in mutants(file):
        if (file, str(m)) not in EQUIVALENT:
            kinds.setdefault(m.kind, []).append(m)
    step = {k: max(1, len(all) / each) if each and k != "barrier" else 1 for k, all in kinds.items()}
    return [all[int(i * step[k])] for k, all in kinds.items() for i in range(int(len(all) / step[k]))]


def tests_of(file: str) -> list[str]:
    """A file's own tests, and a header's by all that include it; first those of fewer and shorter modules."""
    sources = {p.name: p.read_text() for p in KERNELS.glob("*.cu*")}
    users = {file}
    while more := {n for n, text in sources.items() if any(f'#include "{u}"' in text for u in users)} - users:
        users |= more
    rows = sorted((u for u in users if u.endswith(".cu")), key=lambda u: ("#ifndef" in sources[u], len(sources[u])))
    names = (ROWS.get(name, Path(name).stem) for name in (file, *rows))
    tests = [f"tests/backend/cuda/test_{name}.py" for name in dict.fromkeys(names)]
    return [test for test in tests if (ROOT / test).exists()]


def run(folder: Path, tests: list[str], environment: dict[str, str], seconds: int) -> tuple[int | None, str]:
    """pytest's exit status and output; None if it hung."""
    command = [sys.executable, "-m", "pytest", "-x", "-vv", "--tb=short", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace", timeout=seconds
        )
    except subprocess.TimeoutExpired as late:
        return None, (late.stdout or b"").decode(errors="replace")
    return done.returncode, done.stdout + done.stderr


def limit(file: str, folder: Path, environment: dict[str, str]) -> int:
    """After how many seconds a mutant hangs: five times as many as the tests take of the file as it is, and pass."""
    began = time.monotonic()
    status, output = run(folder, tests_of(file), environment, 20 * TIMEOUT)
    if status != 0:
        sys.exit(f"{file}: the tests of the file as it is do not pass:\n{output}")
    return max(TIMEOUT, int(5 * (time.monotonic() - began)))


def verdict(m: Mutant, folder: Path, environment: dict[str, str], seconds: int) -> str:
    """The test that caught a mutant; "SURVIVED"; or "no mutant" if it does not compile."""
    path, tests = folder / "kernels" / m.file, tests_of(m.file)
    path.write_text(m.mutated)
    try:
        status, output = run(folder, tests, environment, seconds)
        if status is None:
            return "hung"
        how = ""
        if not status:
            status, output = run(folder, tests, environment | sanitized_environment(), 10 * seconds)
            how = " under AddressSanitizer"
        if "the kernel does not compile" in output:
            return "no mutant"
        if status:
            test = re.findall(r"(test_\w+\.py::\S+)", output.split("short test summary")[0])[-1:] or ["collection"]
            return test[0] + how + (" (crashed)" if status not in (1, 2) else "")
    finally:
        path.write_text(m.source)
    return "SURVIVED"


def main() -> int:
    """Make the mutants, run their tests, print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="*", metavar="FILE", help="of kernels/; all by default")
    parser.add_argument("--each", type=int, default=6, help="mutants of each kind in a file; 0 means all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="mutants tested at the same time")
    options = parser.parse_args()
    files = options.files or sorted(p.name for p in KERNELS.glob("*.cu*"))
    todo = [m for file in files for m in chosen(file, options.each)]
    results: list[tuple[Mutant, str]] = []
    with tempfile.TemporaryDirectory() as top, ThreadPoolExecutor(options.jobs) as pool:
        environment = os.environ | {"DLGPU_CACHE_DIR": f"{top}/cache", "OMP_NUM_THREADS": "1"}
        folders: queue.Queue[Path] = queue.Queue()
        for i in range(options.jobs):
            for part in ("dlgpu", "kernels", "tests"):
                shutil.copytree(ROOT / part, Path(top, str(i), part), ignore=shutil.ignore_patterns("__pycache__"))
            shutil.copy(ROOT / "pyproject.toml", Path(top, str(i)))
            folders.put(Path(top, str(i)))

        first = Path(top, "0")
        limits = {file: limit(file, first, environment | {"PYTHONPATH": str(first)}) for file in files}

        def judge(m: Mutant) -> str:
            folder = folders.get()
            try:
                return verdict(m, folder, environment | {"PYTHONPATH": str(folder)}, limits[m.file])
            finally:
                folders.put(folder)

        jobs = {pool.submit(judge, m): m for m in todo}
        for job in tqdm(as_completed(jobs), total=len(jobs), unit="mutant"):
            results.append((jobs[job], job.result()))
            if results[-1][1] == "SURVIVED":
                tqdm.write(f"SURVIVED {jobs[job].file}:{jobs[job].line} {jobs[job].kind}: {jobs[job]}")
    results = sorted((r for r in results if r[1] != "no mutant"), key=lambda r: (files.index(r[0].file), r[0].start))
    for m, found in results:
        print(f"{m.file}:{m.line:<4} {m.kind:<10} {str(m)[:90]:<90} {found}")
    survived = sum(found == "SURVIVED" for _, found in results)
    print(f"{len(results)} mutants, {survived} survived")
    return survived > 0


if __name__ == "__main__":
    sys.exit(main())
