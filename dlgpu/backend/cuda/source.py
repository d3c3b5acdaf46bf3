"""CUDA C++ sources, and how their kernels are launched: by CuPy on a GPU, by the emulator on NumPy arrays."""

import functools
import hashlib
import math
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from dlgpu.backend.cuda.signature import Parameter, converted, kernels_in
from dlgpu.backend.devices import Device, current_device, device_of
from dlgpu.backend.emulator import compiler, launcher
from dlgpu.backend.emulator.compiler import KernelError
from dlgpu.errors import unknown_name

# An installed package has the sources inside it; a checkout has them in kernels/ beside dlgpu/.
_PACKAGE = Path(__file__).parents[2]
FOLDER = _PACKAGE / "kernels" if (_PACKAGE / "kernels").is_dir() else _PACKAGE.parent / "kernels"

# What `T` stands for, by dtype; only the 16-bit types need a header of CUDA's, which a driver alone does not bring.
STORAGE = {
    "float32": ("STORAGE=float",),
    "float64": ("STORAGE=double",),
    "float16": ("STORAGE=__half", "STORAGE_HEADER=<cuda_fp16.h>"),
    "bfloat16": ("STORAGE=__nv_bfloat16", "STORAGE_HEADER=<cuda_bf16.h>"),
}
DEFAULT_SHARED = 48 * 1024  # bytes that a block gets without asking
MAX_THREADS = 1024
Sizes = tuple[int, int, int]
MAX_GRID, MAX_BLOCK = (2**31 - 1, 65535, 65535), (MAX_THREADS, MAX_THREADS, 64)


class Source:
    """CUDA C++ text with kernels declared as `extern "C" __global__ void name(...)`.

    Args:
        text: the source.
        filename: what errors call it.
    """

    def __init__(self, text: str, filename: str):
        self.text = text
        self.filename = filename
        self.kernels = kernels_in(text)

    def launch(
        self,
        name: str,
        grid: "int | Sequence[int]",
        block: "int | Sequence[int]",
        args: Sequence[Any],
        shared: int = 0,
        dtype: Any = None,
        defines: Sequence[str] = (),
        cooperative: bool = False,
    ) -> None:
        """Launch a kernel on the device of its arrays; on a GPU this does not wait for it.

        Args:
            name: the kernel.
            grid: blocks, up to three lengths; with a length of 0 nothing is launched.
            block: threads in a block, up to three lengths.
            args: arrays (contiguous, of the parameters' types), None for a null pointer, and numbers.
            shared: bytes of dynamic shared memory; above 48 KB the limit is raised, up to `shared_limit`.
            dtype: what `T` stands for in a source that includes common.cuh.
            defines: further macros, such as "TILE=16".
            cooperative: all blocks run at once, so that they can wait for each other at the barrier of grid.cuh. If the
                device cannot run so many then the grid's first length is cut; the kernel covers its work by gridDim.
        Raises:
            ValueError, TypeError: there is no such kernel, or an argument does not suit it.
            KernelError: the source does not compile.
        """
        if name not in self.kernels:
            raise ValueError(unknown_name("kernel", name, self.kernels))
        sizes = _three(name, "grid", grid, MAX_GRID), _three(name, "block", block, MAX_BLOCK)
        threads = math.prod(sizes[1])
        if not 0 < threads <= MAX_THREADS:
            raise ValueError(f"{name}: expected 1 to {MAX_THREADS} threads in a block, got {sizes[1]}")
        values = converted(name, self.kernels[name], args, dtype)
        device = _device(name, self.kernels[name], values)
        limit = shared_limit(device)
        if not 0 <= shared <= limit:
            raise ValueError(
                f"{name}: shared: expected at most {limit} bytes, which a block has on {device}, got {shared}"
            )
        if 0 in sizes[0]:
            return
        macros = tuple(defines) if dtype is None else (*STORAGE[np.dtype(dtype).name], *defines)
        if device.on_host:
            sizes = _resident(name, sizes, launcher.RESIDENT) if cooperative else sizes
            launcher.launch(_on_host(self, macros), name, *sizes, shared, values, cooperative)
            return
        kernel = _on_gpu(self, macros, name, shared)
        if cooperative:
            sizes = _resident(name, sizes, _blocks_at_once(kernel, threads, shared, device))
            # RawModule's own switch for such launches makes some versions of CuPy look for CUDA's toolkit
            kernel.kernel(*sizes, tuple(values), shared_mem=shared, enable_cooperative_groups=True)
        else:
            kernel(*sizes, tuple(values), shared_mem=shared)


def shared_limit(device: Device) -> int:
    """The bytes of shared memory that a block can have on a device."""
    if device.on_host:
        return launcher.SHARED
    return int(_attributes(device.index)["MaxSharedMemoryPerBlockOptin"])


def multiprocessors(device: Device) -> int:
    """How many blocks run at once on a device whatever they take of a multiprocessor."""
    return launcher.RESIDENT if device.on_host else int(_attributes(device.index)["MultiProcessorCount"])


@functools.cache
def has_tensor_cores(device: Device) -> bool:
    """Whether a device runs the kernels on tiles.cuh: from compute capability 8.0 on, and the emulator."""
    return device.on_host or int(import_module("cupy").cuda.Device(device.index).compute_capability) >= 80


@functools.cache
def _attributes(index: int) -> Any:
    return import_module("cupy").cuda.Device(index).attributes


@functools.cache
def _blocks_at_once(kernel: Any, threads: int, shared: int, device: Device) -> int:
    driver = import_module("cupy").cuda.driver
    blocks = driver.occupancyMaxActiveBlocksPerMultiprocessor(kernel.kernel.ptr, threads, shared)
    return int(blocks * _attributes(device.index)["MultiProcessorCount"])


def _resident(kernel: str, sizes: tuple[Sizes, Sizes], blocks: int) -> tuple[Sizes, Sizes]:
    """The grid and block with a grid of no more blocks than that."""
    (x, y, z), block = sizes
    if blocks < y * z:
        raise ValueError(f"{kernel}: grid: {(x, y, z)} blocks cannot run at once; the device holds {blocks}")
    return (min(x, blocks // (y * z)), y, z), block


def _device(kernel: str, parameters: Sequence[Parameter], values: Sequence[Any]) -> Device:
    """The device that all arrays are on; the current one if there are none."""
    arrays = [(p.name, v) for p, v in zip(parameters, values) if p.pointer and v is not None]
    places = [-1 if isinstance(array, np.ndarray) else array.device.id for _, array in arrays]  # -1: on the host
    current = current_device()
    device = Device("cuda", max(places)) if max(places, default=-1) >= 0 else current
    expected = -1 if device.on_host else device.index
    for (name, array), place in zip(arrays, places):
        if place != expected:
            raise ValueError(
                f"{kernel}: argument {name!r}: expected an array on {device}, "
                f"{'the current device' if device is current else 'as others are'}, got one on {device_of(array)}"
            )
    return device


@functools.cache
def _on_host(code: Source, defines: tuple[str, ...]) -> Any:
    return compiler.library(code.text, code.filename, tuple(code.kernels), defines, FOLDER)


@functools.cache
def _on_gpu(code: Source, defines: tuple[str, ...], name: str, shared: int) -> Any:
    kernel = _gpu_module(code, defines).get_function(name)
    # all launches of a kernel have one limit: a smaller one must not take from a larger one what it was given
    if shared > max(DEFAULT_SHARED, kernel.max_dynamic_shared_size_bytes):
        kernel.max_dynamic_shared_size_bytes = shared
    return kernel


@functools.cache
def _gpu_module(code: Source, defines: tuple[str, ...]) -> Any:
    """The module that NVRTC makes, from CuPy's cache on disk if it is there."""
    cupy = import_module("cupy")
    text, options = for_nvrtc(code, defines)
    module = cupy.RawModule(code=text, options=options)
    try:
        module.compile()
    except cupy.cuda.compiler.CompileException as error:
        raise KernelError(f"the kernel does not compile:\n{error}") from None
    return module


def for_nvrtc(code: Source, defines: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The text and the options that NVRTC gets.

    CuPy's cache on disk knows a module by these alone, so the headers' hash is among the options: without it a changed
    header would not be compiled.
    """
    text = f'#line 1 "{code.filename}"\n{code.text}'
    return text, ("-std=c++17", f"-I{FOLDER}", f"-DHEADERS=0x{headers_hash(FOLDER)}", *(f"-D{d}" for d in defines))


@functools.cache
def headers_hash(folder: Path) -> str:
    """A hash of the headers in a folder."""
    texts = "\0".join(path.read_text() for path in sorted(folder.glob("*.cuh")))
    return hashlib.sha256(texts.encode()).hexdigest()[:8]


@functools.cache
def source(filename: str) -> Source:
    """The file of that name in kernels/, read once."""
    return Source((FOLDER / filename).read_text(), filename)


def _three(kernel: str, what: str, sizes: "int | Sequence[int]", limits: Sizes) -> Sizes:
    lengths: tuple[Any, ...] = tuple(sizes) if isinstance(sizes, (tuple, list)) else (sizes,)
    if not 1 <= len(lengths) <= 3 or not all(
        isinstance(n, (int, float, np.number)) and n >= 0 and float(n).is_integer() for n in lengths
    ):
        raise ValueError(f"{kernel}: {what}: expected one to three lengths, got {sizes!r}")
    x, y, z = (*map(int, lengths), 1, 1)[:3]
    if x > limits[0] or y > limits[1] or z > limits[2]:
        raise ValueError(f"{kernel}: {what}: expected lengths of at most {limits}, got {sizes!r}")
    return x, y, z
