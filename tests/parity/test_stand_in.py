"""The stand-in for CuPy offers names, arguments and loops that the real CuPy has; importing that needs no GPU."""

import subprocess
import sys
from pathlib import Path

DOUBLES = Path(__file__).parents[1] / "doubles"


def test_the_recorded_signatures_are_those_of_cupy(tmp_path):
    command = [sys.executable, str(DOUBLES / "signatures.py")]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout == (DOUBLES / "signatures.txt").read_text()
