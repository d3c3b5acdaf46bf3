"""What cannot run here is left out, and the header says so: the emulator needs a C++ compiler, NVRTC its package."""

import importlib.util

from dlgpu.backend.emulator import compiler

HAS_NVRTC = importlib.util.find_spec("cuda") is not None and importlib.util.find_spec("cuda.bindings") is not None
collect_ignore = [] if compiler.problem() is None else ["cuda", "emulator"]
collect_ignore += [] if HAS_NVRTC else ["cuda/test_nvrtc.py"]


def pytest_report_header() -> str:
    """What the tests of CUDA kernels run on."""
    emulator = compiler.problem() or compiler.compiler_version().splitlines()[0]
    return f"emulator: {emulator}; NVRTC: {'found' if HAS_NVRTC else 'cuda-bindings is not installed'}"
