"""The emulator's tests need a C++ compiler; where there is none they are left out, and the header says so."""

from dlgpu.backend.emulator import compiler

collect_ignore = [] if compiler.problem() is None else ["cuda", "emulator"]


def pytest_report_header() -> str:
    """What the tests of CUDA kernels run on."""
    return f"emulator: {compiler.problem() or compiler.compiler_version().splitlines()[0]}"
