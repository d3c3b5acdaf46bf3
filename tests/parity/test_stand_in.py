"""The stand-in for CuPy offers names, arguments and loops that the real CuPy has; importing that needs no GPU."""

import shutil
import subprocess
import sys
from pathlib import Path

DOUBLES = Path(__file__).parents[1] / "doubles"


def test_the_recorded_signatures_are_those_of_cupy(tmp_path):
    command = [sys.executable, str(DOUBLES / "signatures.py")]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout == (DOUBLES / "signatures.txt").read_text()


def test_a_name_without_its_arguments_gets_them(tmp_path):
    for name in ("signatures.py", "signatures.txt"):
        shutil.copy(DOUBLES / name, tmp_path)
    file = tmp_path / "signatures.txt"
    expected = file.read_text()
    lines = expected.split("\n")
    file.write_text("\n".join([*lines[:-2], lines[-2].split(" ")[0], ""]))
    subprocess.run([sys.executable, str(tmp_path / "signatures.py"), "--write"], check=True, cwd=tmp_path)
    assert file.read_text() == expected
