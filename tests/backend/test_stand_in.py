"""Device "cuda" on a machine without a GPU: CuPy's place is taken by the stand-in in tests/doubles."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_what_needs_a_gpu_passes_on_the_stand_in():
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, (TESTS / "doubles", TESTS.parent))),
        "DLGPU_DEVICE": "cuda",
    }
    command = [sys.executable, "-m", "pytest", str(TESTS / "cuda")]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=TESTS.parent)
    assert run.returncode == 0, run.stdout + run.stderr
