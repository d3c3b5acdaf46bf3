"""What an installation takes on the disk: fresh virtual environments, made with pip."""

import tempfile
from pathlib import Path

from tqdm import tqdm

from benchmarks.processes import ROOT, PartError, python, run, tail

TORCH_ON_CPU = "https://download.pytorch.org/whl/cpu"
INSTALLED = {  # what pip is given
    "dlgpu": [str(ROOT)],
    "dlgpu[cpu]": [f"{ROOT}[cpu]"],
    "torch": ["torch", "--index-url", TORCH_ON_CPU],
    "torch and numpy": ["torch", "numpy", "--index-url", TORCH_ON_CPU],
}
LIMIT = 600  # seconds, of one command


def measured() -> list[dict]:
    """Megabytes of each, without pip itself."""
    return [
        {"round": 0, "case": "size", "peer": name, "size_mb": size(given)} for name, given in tqdm(INSTALLED.items())
    ]


def size(given: list[str]) -> float:
    """Megabytes of site-packages after an installation, less those of a new environment."""
    with tempfile.TemporaryDirectory() as folder:
        _do([*python("venv"), folder])
        (packages,) = Path(folder).glob("lib/python*/site-packages")
        before = _bytes(packages)
        _do([f"{folder}/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *given])
        return (_bytes(packages) - before) / 1e6


def _bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_symlink() or path.is_file())


def _do(command: list[str]) -> None:
    done = run(command, LIMIT)
    if done.returncode:
        raise PartError(tail(done.stdout))
