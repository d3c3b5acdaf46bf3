"""Measure dlgpu beside its peers on the CPU, and write all numbers to a file.

    python -m benchmarks cpu                                    programs, wider, changes and imports; five rounds
    python -m benchmarks cpu --parts programs --programs fnn,lstm --peers dlgpu,torch-fused --rounds 1
    python -m benchmarks cpu --parts sizes                      installs into fresh environments; needs the network

Each (peer, case) runs in a process of its own, in turn, so that none pays for another's threads; and all of it again in
each round. A number is the median over the rounds. A part that is measured anew replaces itself in the file.

    programs    the four programs by every peer, and by dlgpu with nothing compiled before ("dlgpu-cold")
    wider       larger networks, single operations, prediction
    changes     what users change in a program, each beside the plain one, epoch by epoch in turn
    imports     seconds of the import
    sizes       megabytes of the installed packages, dependencies included

Of each run the file has: the import, s; the first epoch, compilation included, ms, and its end, counted from the start
of Python, s; a step, ms, the median over the later epochs, and the fastest; and the largest resident set, MB, of the
process at the end, and after the import.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

from tqdm import tqdm

from benchmarks import changes, programs, sizes, wider
from benchmarks.processes import ROOT, PartError, python, run, tail
from benchmarks.table import text

RESULTS = ROOT / "benchmarks" / "results" / "cpu.json"
PARTS = ("programs", "wider", "changes", "imports", "sizes")
ON_CPU = {"CUDA_VISIBLE_DEVICES": "", "DLGPU_DEVICE": "cpu", "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
LIMIT = 900  # seconds, of one process
COLD = "dlgpu-cold"
IMPORT = """import time
start = time.perf_counter()
import {}
print('{{"import_s": %.6f}}' % (time.perf_counter() - start))"""
CACHED = ("dlgpu", "torch-compile")  # keep compiled code on disk


# -- in a process of their own


def peak_mb() -> float:
    """The largest resident set of this process until now.

    getrusage's also counts the moment before exec, which is the parent's memory; Linux's own count does not.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1e3 * 1.024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def measured(part: str, case: str, peer: str, seconds: float) -> dict:
    """One run: see the top of this file.

    Args:
        part: "programs" or "wider".
        case: of the part.
        peer: whose.
        seconds: how long to repeat after the first epoch, three times at least; 0: not at all.
    """
    start = time.perf_counter()
    programs.imported(peer if peer in programs.NEEDS else "dlgpu")
    found = {"import_s": time.perf_counter() - start, "import_mb": peak_mb()}
    if part == "programs":
        work, steps = programs.PEERS["dlgpu" if peer == COLD else peer](case), programs.ROWS[case] // programs.BATCH
    else:
        work, steps = wider.CASES[case][peer]()
    times: list[float] = []
    while len(times) < (4 if seconds else 1) or sum(times[1:]) < seconds * 1e3:
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
        if len(times) == 1:
            found |= {"first_ms": times[0], "from_start_s": time.time() - float(os.environ.get("BEGAN", "nan"))}
    if seconds:
        found |= {"step_ms": statistics.median(times[1:]) / steps, "fastest_ms": min(times[1:]) / steps}
    return {**found, "epochs": len(times) - 1, "peak_mb": peak_mb()}


def one(part: str, case: str, peer: str, seconds: float) -> dict:
    """One run of any part but imports in this process."""
    if part == "changes":
        return changes.compare(*case.split("/"), seconds)
    return measured(part, case, peer, seconds)


# -- the parts


def plan(part: str, peers: list[str], cases: list[str]) -> list[tuple[str, str]]:
    """The (case, peer) of one round."""
    if part == "programs":
        chosen = [*peers, *([COLD] if "dlgpu" in peers else [])]
        pairs = [(program, peer) for program in programs.ROWS for peer in chosen]
    elif part == "wider":
        pairs = [(c, p) for c, works in wider.CASES.items() for p in works if p in peers or p == "dlgpu-eager"]
    elif part == "changes":
        pairs = [(f"{program}/{change}", "dlgpu") for program in changes.STEPS for change in changes.CHANGES]
    else:
        pairs = [("import", peer) for peer in peers if peer in ("dlgpu", "keras-jax", "torch-fused", "jax-scan")]
    return [pair for pair in pairs if not cases or part == "imports" or pair[0].split("/")[0] in cases]


def in_a_process(part: str, case: str, peer: str, seconds: float, fresh: str = "") -> dict:
    """One run, or the `error` that ended it; `fresh` is an empty folder for what is compiled."""
    command = [*python("benchmarks.cpu"), "--one", part, case, peer, "--seconds", str(seconds)]
    if part == "imports":
        command = [sys.executable, "-c", IMPORT.format(", ".join(programs.NEEDS[peer]))]
    environment = {**ON_CPU, **programs.ENVIRONMENT.get(peer, {}), "BEGAN": str(time.time())}
    if peer == COLD:
        environment["DLGPU_CACHE_DIR"] = fresh
    done = run(command, LIMIT, environment)
    last = next((line for line in reversed(done.stdout.splitlines()) if line.startswith("{")), None)
    if done.returncode or last is None:
        return {"error": tail(done.stdout) or f"status {done.returncode}"}
    return json.loads(last)


def rounds_of(part: str, pairs: list[tuple[str, str]], rounds: int, seconds: float) -> list[dict]:
    """All runs of a part; what is kept on disk is compiled before the first one."""
    ahead = [(case, peer) for case, peer in pairs if peer in CACHED and part in ("programs", "wider")]
    ahead += pairs if part == "imports" else []
    runs: list[dict] = []
    with tqdm(total=len(ahead) + rounds * len(pairs), unit="run", desc=part, leave=False) as bar:
        for case, peer in ahead:
            in_a_process(part, case, peer, 0)
            bar.update()
        for i in range(rounds):
            for case, peer in pairs if i % 2 == 0 else pairs[::-1]:
                bar.set_postfix_str(f"{case} {peer}")
                with tempfile.TemporaryDirectory() as folder:
                    found = in_a_process(part, case, peer, 0 if peer == COLD else seconds, folder)
                if "error" in found:
                    tqdm.write(f"{case} {peer} failed: {found['error'].splitlines()[-1]}", file=sys.stderr)
                runs.append({"round": i, "case": case, "peer": peer, **found})
                bar.update()
    return runs


def machine() -> dict:
    """The processor, the system and the versions of what is measured."""
    from benchmarks.suite import cores  # brings dlgpu, which a run imports under the clock

    versions = {}
    for name in ("numpy", "numba", "torch", "jax", "jaxlib", "keras"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "processor": processor(),
        "cores": cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "dlgpu": run(["git", "describe", "--always", "--dirty"], 9).stdout.strip(),
        "versions": versions,
    }


def processor() -> str:
    """Its name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, run the parts, write the file, print the tables; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks cpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    here = [peer for peer in programs.PEERS if programs.installed(peer)]
    parser.add_argument("--parts", default=",".join(PARTS[:-1]), help=f"of {', '.join(PARTS)} (default: all but sizes)")
    parser.add_argument("--wider", action="store_const", dest="parts", const="wider", help="the same as --parts wider")
    parser.add_argument("--sizes", action="store_const", dest="parts", const="sizes", help="the same as --parts sizes")
    parser.add_argument("--peers", default=",".join(here), help=f"of {', '.join(programs.PEERS)} (default: those here)")
    parser.add_argument("--programs", default="", metavar="NAMES", help="programs and wider cases (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of repetition in each run (default: 2)")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(one(*options.one, options.seconds)))
        return 0
    parts, peers, cases = (list(filter(None, o.split(","))) for o in (options.parts, options.peers, options.programs))
    for name, known in (*((p, PARTS) for p in parts), *((p, programs.PEERS) for p in peers)):
        if name not in known:
            parser.error(f"unknown {name!r}: expected some of {', '.join(known)}")
    for name in cases:
        if name not in programs.ROWS and name not in wider.CASES:
            parser.error(f"unknown {name!r}: expected some of {', '.join([*programs.ROWS, *wider.CASES])}")
    result = json.loads(options.out.read_text()) if options.out.exists() else {"parts": {}}
    failed = False
    for part in parts:
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        about = {"date": now, "machine": machine(), "rounds": options.rounds, "seconds": options.seconds}
        try:
            if part == "sizes":
                runs = sizes.measured()
            else:
                runs = rounds_of(part, plan(part, peers, cases), options.rounds, options.seconds)
        except PartError as error:
            runs = [{"round": 0, "case": part, "peer": "", "error": str(error)}]
        failed = failed or any("error" in r for r in runs)
        result["parts"][part] = {**about, "runs": runs}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")
        print(text({"parts": {part: result["parts"][part]}}))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
