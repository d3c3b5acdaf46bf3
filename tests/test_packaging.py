"""What a wheel holds, and what an import finds."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_a_wheel_has_every_file_of_the_package_and_every_kernel(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    held = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    files = [f.relative_to(ROOT) for f in (ROOT / "dlgpu").rglob("*") if f.is_file() and f.suffix != ".pyc"]
    kernels = [Path("dlgpu", f.relative_to(ROOT)) for f in (ROOT / "kernels").glob("*.cu*")]
    assert {f.as_posix() for f in files + kernels} == {name for name in held if ".dist-info/" not in name}
    assert kernels
