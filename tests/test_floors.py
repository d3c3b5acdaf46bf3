"""The house stands as CONTRIBUTING.md draws it: floors, no circles, and devices known to the backend alone."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in sorted((ROOT / "dlgpu").rglob("*.py"))}
MODULES = {name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): name for name in FILES}
DEVICES = {"cpu", "cuda", "gpu", "emulator", "cupy"}


def places():
    """Name of a file or a package in dlgpu/ -> (floor, place from the left), as CONTRIBUTING.md lists them."""
    drawn = re.search(r"## The floors.*?```\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)[1]
    found = {}
    for line in drawn.splitlines():
        floor, names = line[:4].strip(), re.split(r"\s{2,}", line[4:])[0]
        if floor:
            found |= {name.strip("/"): (int(floor), place) for place, name in enumerate(names.split())}
    return found


PLACES = places()


def imports(tree):
    """The modules of dlgpu that a file imports, at its top or inside of its functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "dlgpu")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "dlgpu":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in MODULES:
                    yield inner
                elif inner != "dlgpu.__version__":
                    yield node.module


def unit(module):
    """dlgpu.layers.base -> layers."""
    return module.split(".")[1] if "." in module else "the top"


def test_every_file_and_package_has_its_floor():
    units = {unit(module) for module in MODULES} - {"the top", "__main__"}
    assert units == PLACES.keys()


def test_files_import_only_from_below_and_from_their_left():
    wrong = []
    for module, path in MODULES.items():
        for imported in imports(FILES[path]):
            allowed = {"the top"} if unit(module) == "cli" else set()
            if unit(module) in PLACES and unit(imported) not in allowed | {unit(module)}:
                below = unit(imported) in PLACES and PLACES[unit(imported)] < PLACES[unit(module)]
                wrong += [] if below else [f"{module} imports {imported}"]
    assert not wrong


def test_there_are_no_circles():
    graph = {m: {i for i in imports(FILES[path]) if i != m} for m, path in MODULES.items() if unit(m) != "cli"}
    graphlib.TopologicalSorter(graph).prepare()


def test_only_the_backend_asks_which_device_it_is_on():
    for name, tree in FILES.items():
        if name.startswith(("dlgpu/backend/", "dlgpu/cli/doctor.py")):
            continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.If, ast.IfExp, ast.While, ast.Compare)):
                asked = node if isinstance(node, ast.Compare) else node.test
                constants = {n.value for n in ast.walk(asked) if isinstance(n, ast.Constant)}
                assert not DEVICES & {c for c in constants if isinstance(c, str)}, f"{name}:{node.lineno}"
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
                assert not {n.split(".")[0] for n in names} & {"cupy", "numba", "nvmath"}, f"{name}:{node.lineno}"


def test_import_dlgpu_brings_no_library_that_only_some_programs_need():
    code = "import sys, dlgpu; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    optional = {"numba", "cupy", "nvmath", "matplotlib", "h5py", "IPython", "keras", "torch", "pandas", "scipy"}
    optional |= {"safetensors", "csv"}
    assert "numpy" in loaded.split()
    assert not optional & set(loaded.split())
