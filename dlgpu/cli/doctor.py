"""`dlgpu doctor`: which devices work here, and what to install for the others."""

import os
import platform
from importlib import metadata

import numpy as np

import dlgpu
from dlgpu.backend.devices import cuda_devices
from dlgpu.backend.emulator import compiler
from dlgpu.errors import DeviceError

EXTRAS = {
    "cpu": (("numba",), "loops compiled for a CPU"),
    "bfloat16": (("ml_dtypes",), "mixed_bfloat16"),
    "cuda12": (("cupy-cuda12x", "nvmath-python"), "NVIDIA GPUs, CUDA 12"),
    "cuda13": (("cupy-cuda13x", "nvmath-python"), "NVIDIA GPUs, CUDA 13"),
    "cudnn": (("nvidia-cudnn-frontend",), "cuDNN where it is faster"),
    "plot": (("matplotlib",), "dlgpu train --plot"),
    "keras": (("h5py",), "reading Keras's weight files"),
    "notebook": (("matplotlib", "ipykernel", "ipywidgets", "nbclient", "nbformat"), "the notebooks"),
}


def report() -> str:
    """What works here, as text."""
    lines = [
        f"dlgpu {dlgpu.__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        "",
        "Devices",
        *_cpu(),
        *_cuda(),
        _emulator(),
        f"  default  {_default()}",
        "",
        "Extras",
    ]
    for name, (distributions, purpose) in EXTRAS.items():
        versions = {d: _version(d) for d in distributions}
        missing = [d for d, version in versions.items() if version is None]
        found = ", ".join(f"{d} {v}" for d, v in versions.items() if v)
        state = f"pip install 'dlgpu[{name}]'  ({', '.join(missing)} missing)" if missing else found
        lines.append(f"  {name:<10}{purpose:<31}{state}")
    return "\n".join(lines)


def _cpu() -> list[str]:
    blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limits = [
        f"{name}={os.environ[name]}" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS") if name in os.environ
    ]
    library = f"{blas.get('name', 'an unknown BLAS')} {blas.get('version', '')}".strip()
    return [
        f"  cpu      works: NumPy {np.__version__} with {library}, {cores} cores" + "".join(f", {x}" for x in limits)
    ]


def _cuda() -> list[str]:
    count, problem = cuda_devices()
    if problem:
        return [f"  cuda     not available: {problem}"]
    lines = []
    for index in range(count):
        name = f"cuda:{index}" if index else "cuda"
        try:
            lines.append(f"  {name:<9}works: {_gpu(index)}")
        except Exception as error:  # a broken driver or toolkit raises errors of many types
            lines.append(f"  {name:<9}does not work: {type(error).__name__}: {error}")
    return lines


def _emulator() -> str:
    missing = compiler.problem()
    if missing:
        return f"  emulator not available: {missing}"
    return f"  emulator works: {compiler.compiler_version().splitlines()[0]} compiles the CUDA kernels for the CPU"


def _gpu(index: int) -> str:
    """The name of a GPU that has just computed something, and the versions of what it needs."""
    device = dlgpu.device(f"cuda:{index}")
    cupy = device.array_namespace
    with cupy.cuda.Device(index):
        if int(cupy.arange(4).sum()) != 6:
            raise RuntimeError("a sum came out wrong")
    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(index)
    driver, toolkit = (
        f"{v // 1000}.{v % 1000 // 10}" for v in (runtime.driverGetVersion(), runtime.runtimeGetVersion())
    )
    memory = properties["totalGlobalMem"] / 2**30
    name = properties["name"].decode()
    return f"{name}, {memory:.0f} GiB, CuPy {cupy.__version__}, CUDA {toolkit}, driver for CUDA {driver}"


def _default() -> str:
    try:
        return str(dlgpu.current_device())
    except DeviceError as error:
        return f"none (DLGPU_DEVICE={os.environ.get('DLGPU_DEVICE')}): {error}"


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
