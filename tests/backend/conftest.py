"""What cannot run here is left out, and the header says so: a C++ compiler, Numba and NVRTC are each needed by some."""

import importlib.util

import pytest

from dlgpu.backend.emulator import compiler

pytest.register_assert_rewrite("tests.backend.rows")

HAS_NUMBA = importlib.util.find_spec("numba") is not None
HAS_NVRTC = importlib.util.find_spec("cuda") is not None and importlib.util.find_spec("cuda.bindings") is not None
collect_ignore = [] if compiler.problem() is None else ["cuda", "emulator"]
collect_ignore += [] if HAS_NUMBA else ["cpu"]
collect_ignore += [] if HAS_NVRTC else ["cuda/test_nvrtc.py"]


def pytest_report_header() -> str:
    """What the tests of kernels run on."""
    emulator = compiler.problem() or compiler.compiler_version().splitlines()[0]
    numba, nvrtc = "found" if HAS_NUMBA else "not installed", "found" if HAS_NVRTC else "cuda-bindings is not installed"
    return f"emulator: {emulator}; Numba: {numba}; NVRTC: {nvrtc}"
