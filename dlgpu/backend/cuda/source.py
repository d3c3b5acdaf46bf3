"""CUDA C++ sources, and how their kernels are launched: by CuPy on a GPU, by the emulator on NumPy arrays."""

import functools
import hashlib
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from dlgpu.backend.cuda.signature import converted, kernels_in
from dlgpu.backend.emulator import compiler, launcher
from dlgpu.backend.emulator.compiler import KernelError
from dlgpu.errors import unknown_name

# An installed package has the sources beside it as dlgpu.kernels; a plain checkout in kernels/ beside dlgpu/.
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
    ) -> None:
        """Launch a kernel on the device of its first array; on a GPU this does not wait for it.

        Args:
            name: the kernel.
            grid: blocks, up to three lengths; with a length of 0 nothing is launched.
            block: threads in a block, up to three lengths.
            args: arrays (contiguous, of the parameters' types), None for a null pointer, and numbers.
            shared: bytes of dynamic shared memory; above 48 KB the limit is raised.
            dtype: what `T` stands for in a source that includes common.cuh.
            defines: further macros, such as "TILE=16".
        Raises:
            ValueError, TypeError: there is no such kernel, or an argument does not suit it.
            KernelError: the source does not compile.
        """
        if name not in self.kernels:
            raise ValueError(unknown_name("kernel", name, self.kernels))
        sizes = _three(name, "grid", grid), _three(name, "block", block)
        threads = sizes[1][0] * sizes[1][1] * sizes[1][2]
        if not 0 < threads <= MAX_THREADS:
            raise ValueError(f"{name}: expected 1 to {MAX_THREADS} threads in a block, got {sizes[1]}")
        values = converted(name, self.kernels[name], args, dtype)
        if 0 in sizes[0]:
            return
        macros = tuple(defines) if dtype is None else (*STORAGE[np.dtype(dtype).name], *defines)
        arrays = [v for v in values if v is not None and not isinstance(v, np.generic)]
        if all(isinstance(v, np.ndarray) for v in arrays):
            launcher.launch(_on_host(self, macros), name, *sizes, shared, values)
        else:
            _on_gpu(self, macros, name, shared)(*sizes, tuple(values), shared_mem=shared)


@functools.cache
def _on_host(code: Source, defines: tuple[str, ...]) -> Any:
    return compiler.library(code.text, code.filename, tuple(code.kernels), defines, FOLDER)


@functools.cache
def _on_gpu(code: Source, defines: tuple[str, ...], name: str, shared: int) -> Any:
    kernel = _gpu_module(code, defines).get_function(name)
    if shared > DEFAULT_SHARED:
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


def _three(kernel: str, what: str, sizes: "int | Sequence[int]") -> tuple[int, int, int]:
    lengths = (sizes,) if isinstance(sizes, (int, np.integer)) else tuple(sizes)
    if not 1 <= len(lengths) <= 3 or any(int(n) != n or n < 0 for n in lengths):
        raise ValueError(f"{kernel}: {what}: expected one to three lengths, got {sizes!r}")
    x, y, z = (*map(int, lengths), 1, 1)[:3]
    return x, y, z
