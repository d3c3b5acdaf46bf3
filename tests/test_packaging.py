"""What a wheel holds: pyproject.toml lists the packages by hand, because kernels/ is installed as dlgpu.kernels."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_package_is_installed():
    listed = re.search(r"^packages = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE)[1]
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "dlgpu").rglob("__init__.py")}
    assert set(re.findall(r'"(.*?)"', listed)) == {".".join(f.parts) for f in folders} | {"dlgpu.kernels"}
