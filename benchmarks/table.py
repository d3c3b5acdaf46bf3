"""The results of `python -m benchmarks cpu` as tables: to read in a terminal, or in a Markdown file.

python -m benchmarks table                        those of benchmarks/results/cpu.json
python -m benchmarks table --into README.md       in Markdown, between the two marks in that file
"""

import argparse
import json
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "cpu.json"
BEGIN, END = "<!-- benchmarks/results/cpu.json -->", "<!-- end -->"
Table = tuple[str, Sequence[str], list[Sequence[str]]]  # what it is, the heads of the columns, the rows


def tables(result: dict) -> list[Table]:
    """The tables of all parts that are in the results."""
    return [table for part, found in result["parts"].items() for table in MAKERS[part](found["runs"])]


def of(runs: list[dict], case: str, peer: str, key: str) -> list[float]:
    """A number in all rounds."""
    return [r[key] for r in runs if (r["case"], r["peer"]) == (case, peer) and key in r]


def median(runs: list[dict], case: str, peer: str, key: str) -> float | None:
    """Of all rounds; None if there is none."""
    found = of(runs, case, peer, key)
    return statistics.median(found) if found else None


def names(runs: list[dict], key: str) -> list[str]:
    """In the order in which they come."""
    return list(dict.fromkeys(r[key] for r in runs))


def best(runs: list[dict], case: str, key: str) -> tuple[str, float] | None:
    """The peer with the least median of a number, and that number."""
    found = {p: median(runs, case, p, key) for p in names(runs, "peer") if not p.startswith("dlgpu")}
    return min(((p, v) for p, v in found.items() if v is not None), key=lambda pair: pair[1], default=None)


def ratio(runs: list[dict], case: str, key: str, own: str = "dlgpu") -> str:
    """How many times the best peer takes of what dlgpu takes."""
    ours, other = median(runs, case, own, key), best(runs, case, key)
    return f"{other[1] / ours:.2f}" if ours and other else ""


def number(value: float | None) -> str:
    """Three significant digits or more."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.{1 if value >= 10 else 2 if value >= 1 else 3}f}"


def spread(found: list[float]) -> str:
    """Its least and its largest value."""
    return f"{number(min(found))}..{number(max(found))}" if found else ""


def _programs(runs: list[dict]) -> list[Table]:
    heads = ("program", "peer", "step, ms", "min..max", "first epoch, ms", "from start, s", "peak, MB", "after import")
    rows, summary = [], []
    for case in names(runs, "case"):
        for peer in names(runs, "peer"):
            if not of(runs, case, peer, "first_ms"):
                rows.append((case, peer, "failed", *[""] * 6))
                continue
            steps = of(runs, case, peer, "step_ms")
            ours, theirs = median(runs, case, "dlgpu", "step_ms"), median(runs, case, peer, "step_ms")
            times = f"{theirs / ours:.2f}" if ours and theirs else ""
            others = [number(median(runs, case, peer, k)) for k in ("first_ms", "from_start_s", "peak_mb", "import_mb")]
            rows.append((case, peer, number(theirs), spread(steps), *others, times))
        if not of(runs, case, "dlgpu", "step_ms"):
            continue
        other = best(runs, case, "step_ms")
        of_memory = [
            f"{a / b:.2f}"
            if (a := median(runs, case, peer, "peak_mb")) and (b := median(runs, case, "dlgpu", "peak_mb"))
            else ""
            for peer in ("keras-jax", "torch-fused")
        ]
        of_keras = median(runs, case, "keras-jax", "first_ms"), median(runs, case, "dlgpu-cold", "first_ms")
        summary.append(
            (
                case,
                f"{number(other[1])} ({other[0]})" if other else "",
                number(median(runs, case, "dlgpu", "step_ms")),
                ratio(runs, case, "step_ms"),
                ratio(runs, case, "step_ms", "dlgpu-numpy"),
                ratio(runs, case, "first_ms"),
                f"{of_keras[0] / of_keras[1]:.2f}" if all(of_keras) else "",
                *of_memory,
            )
        )
    ratios = ("program", "best peer, ms", "dlgpu, ms", "ratio", "without Numba", "first epoch")
    return [
        ("The four programs", (*heads, "peer / dlgpu"), rows),
        (
            "Best peer / dlgpu",
            (*ratios, "cold, Keras on JAX / dlgpu", "peak, Keras on JAX / dlgpu", "peak, PyTorch / dlgpu"),
            summary,
        ),
    ]


def _wider(runs: list[dict]) -> list[Table]:
    rows = []
    for case in names(runs, "case"):
        other = best(runs, case, "step_ms")
        ours = of(runs, case, "dlgpu", "step_ms")
        rows.append(
            (
                case,
                number(statistics.median(ours)) if ours else "failed",
                spread(ours),
                number(other[1]) if other else "",
                other[0] if other else "",
                ratio(runs, case, "step_ms"),
                ratio(runs, case, "step_ms", "dlgpu-numpy"),
                ratio(runs, case, "step_ms", "dlgpu-eager"),
            )
        )
    heads = ("work", "dlgpu, ms", "min..max", "best peer, ms", "peer", "ratio", "without Numba", "not replayed")
    return [("Wider work", heads, rows)]


def _changes(runs: list[dict]) -> list[Table]:
    rows = []
    for case in names(runs, "case"):
        found = [number(median(runs, case, "dlgpu", k)) for k in ("plain_ms", "changed_ms", "ratio")]
        replayed = of(runs, case, "dlgpu", "replayed")
        rows.append((*case.split("/"), *found, "yes" if replayed and all(replayed) else "no"))
    return [("What users change", ("program", "change", "plain, ms", "changed, ms", "ratio", "replayed"), rows)]


def _imports(runs: list[dict]) -> list[Table]:
    rows = []
    for peer in names(runs, "peer"):
        times, torch = of(runs, "import", peer, "import_s"), median(runs, "import", "torch-fused", "import_s")
        part = f"{statistics.median(times) / torch:.3f}" if torch and times else ""
        rows.append((peer, number(median(runs, "import", peer, "import_s")), spread(times), part))
    return [("Import", ("peer", "s", "min..max", "of PyTorch's"), rows)]


def _sizes(runs: list[dict]) -> list[Table]:
    torch = median(runs, "size", "torch", "size_mb")
    rows = []
    for peer in names(runs, "peer"):
        found = median(runs, "size", peer, "size_mb")
        rows.append((peer, number(found), f"{found / torch:.3f}" if found and torch else ""))
    return [("Installed size", ("packages", "MB", "of PyTorch's"), rows)]


MAKERS: dict[str, Callable[[list[dict]], list[Table]]] = {
    "programs": _programs,
    "wider": _wider,
    "changes": _changes,
    "imports": _imports,
    "sizes": _sizes,
}


def text(result: dict) -> str:
    """The tables for a terminal."""
    return lined(tables(result))


def lined(found: Sequence[Table]) -> str:
    """Tables for a terminal."""
    lines = []
    for title, heads, rows in found:
        widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
        lines += ["", title]
        for row in (heads, *rows):
            lines.append(
                "  ".join(f"{c:>{w}}" if i else f"{c:{w}}" for i, (c, w) in enumerate(zip(row, widths))).rstrip()
            )
    return "\n".join(lines)


def markdown(result: dict) -> str:
    """The tables in Markdown, and where they were measured."""
    lines = []
    for title, heads, rows in tables(result):
        lines += [f"**{title}**", "", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in rows] + [""]
    places = dict.fromkeys(described(found) for found in result["parts"].values())
    return "\n".join([*lines, *(f"Measured on {place}." for place in places)])


def described(part: dict) -> str:
    """The machine and the versions."""
    about = part["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return f"{part['date'][:10]}, {about['cores']} cores of {about['processor']}, Python {about['python']}, {versions}"


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, print or write the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks table", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, nargs="?", default=RESULTS)
    parser.add_argument("--into", type=Path, help="a Markdown file with the marks")
    options = parser.parse_args(arguments)
    result = json.loads(options.results.read_text())
    if options.into is None:
        print(text(result))
        return
    page = options.into.read_text()
    marked = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if not marked.search(page):
        parser.error(f"{options.into} has no {BEGIN} and {END}")
    new = f"{BEGIN}\n\n{markdown(result)}\n\n{END}"
    options.into.write_text(marked.sub(lambda _: new, page, count=1))


if __name__ == "__main__":
    main()
