"""Time a training step of the four programs, dlgpu beside the peers that are installed.

    python -m benchmarks                                 every peer, every program
    python -m benchmarks --peers dlgpu,keras-jax --programs fnn,lstm --rounds 5
    python -m benchmarks cpu --help                      all measurements on a CPU, into a file
    python -m benchmarks profile lstm                    where the time of a step goes; --device cuda on a GPU
    python -m benchmarks table --into README.md          the file as tables

Each (peer, program) runs in a process of its own, in turn, so that none pays for another's threads. The first epoch
includes compilation; a step is the median over the later epochs, and over the rounds.
"""

import argparse
import importlib
import json
import statistics
import subprocess
import sys
import time

from tqdm import tqdm

from benchmarks.programs import BATCH, PEERS, ROWS, imported, installed

COMMANDS = ("cpu", "profile", "table")


def measure(peer: str, program: str, epochs: int) -> dict:
    """Milliseconds of the first epoch, and of a step in the later ones."""
    imported(peer)
    epoch = PEERS[peer](program)
    times = []
    for _ in range(epochs + 1):
        start = time.perf_counter()
        epoch()
        times.append((time.perf_counter() - start) * 1e3)
    steps = ROWS[program] // BATCH
    return {"first_epoch_ms": times[0], "step_ms": statistics.median(times[1:]) / steps}


def in_a_process(peer: str, program: str, epochs: int) -> dict | None:
    """`measure` in a fresh process; None where it failed, with the reason on stderr."""
    command = [sys.executable, "-m", "benchmarks", "--one", peer, program, "--epochs", str(epochs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        tqdm.write(f"{peer} {program} failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def table(results: dict[tuple[str, str], dict], peers: list[str], programs: list[str]) -> str:
    """Milliseconds a step and for the first epoch, a row a peer; then how many times dlgpu is faster than each."""
    width = max(len(p) for p in peers) + 2
    lines = [
        " " * width + "".join(f"{p:>22}" for p in programs),
        f"{'':{width}}" + f"{'step / first, ms':>22}" * len(programs),
    ]
    for peer in peers:
        cells = []
        for program in programs:
            found, own = results.get((peer, program)), results.get(("dlgpu", program))
            ratio = f" x{found['step_ms'] / own['step_ms']:.1f}" if found and own and peer != "dlgpu" else ""
            cells.append(f"{found['step_ms']:.3f}{ratio} / {found['first_epoch_ms']:.0f}" if found else "failed")
        lines.append(f"{peer:{width}}" + "".join(f"{c:>22}" for c in cells))
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, measure, print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    here = ",".join(filter(installed, PEERS))
    parser.add_argument("--peers", default=here, help=f"of {', '.join(PEERS)} (default: those installed)")
    parser.add_argument("--programs", default=",".join(ROWS))
    parser.add_argument("--epochs", type=int, default=5, help="after the first one")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--one", nargs=2, metavar=("PEER", "PROGRAM"), help="measure one in this process; prints JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one, options.epochs)))
        return
    peers, programs = options.peers.split(","), options.programs.split(",")
    unknown = [p for p in peers if p not in PEERS] + [p for p in programs if p not in ROWS]
    if unknown:
        parser.error(f"unknown {unknown[0]!r}: peers are {', '.join(PEERS)}; programs are {', '.join(ROWS)}")
    pairs = [(peer, program) for _ in range(options.rounds) for program in programs for peer in peers]
    rounds: dict[tuple[str, str], list[dict]] = {}
    for pair in tqdm(pairs, unit="run"):
        found = in_a_process(*pair, options.epochs)
        if found:
            rounds.setdefault(pair, []).append(found)
    results = {pair: {key: statistics.median(r[key] for r in runs) for key in runs[0]} for pair, runs in rounds.items()}
    print(table(results, peers, programs))


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in COMMANDS:
        importlib.import_module(f"benchmarks.{sys.argv[1]}").main(sys.argv[2:])
    else:
        main()
