"""Object files of compiled loops: kept on the disk, so that a loop is compiled once on a machine."""

import contextlib
import functools
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numpy as np
from tqdm import tqdm

from dlgpu.backend.emulator.compiler import cache_folder


def address(symbol: str, compiled: Callable[[], Any]) -> int:
    """Of the function of that name, in memory.

    Args:
        symbol: which tells it from all others of these sources.
        compiled: makes it, in a module of LLVM's, if there is no object file.
    """
    path = folder() / f"{symbol}.o"
    code = kept_in(path)
    if code is None:
        with _patience:
            code = target_machine().emit_object(compiled())
            keep_in(path, code)
    engine().add_object_file(llvm.ObjectFileRef.from_data(code))
    engine().finalize_object()
    return engine().get_function_address(symbol)


class _Patience:
    """Says once, after two seconds of compilation, what takes so long."""

    spent = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: Any) -> None:
        before, self.spent = self.spent, self.spent + time.perf_counter() - self._began
        if before < 2 <= self.spent:
            kept = f"some ten seconds, once: they are kept in {folder()}"
            if not os.access(folder(), os.W_OK):
                kept = (
                    f"some ten seconds in every process: {folder()} cannot be written; DLGPU_CACHE_DIR may name another"
                )
            tqdm.write(f"dlgpu compiles its loops for this processor, {kept}", file=sys.stderr)


_patience = _Patience()


@functools.cache
def folder() -> Path:
    """Where object files are kept: for these sources, this processor, and these versions."""
    here = Path(__file__).parent  # and from the references come constants
    files = [*sorted(here.glob("*.py*")), *sorted(here.with_name("reference").glob("*.py*"))]
    sources = b"".join(path.read_bytes() for path in files)
    machine = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten(), llvmlite.__version__, np.__version__
    key = sources + repr((*machine, sys.implementation.cache_tag, object.__basicsize__)).encode()
    return cache_folder() / "cpu" / hashlib.sha256(key).hexdigest()[:16]


def kept_in(path: Path) -> bytes | None:
    """What `keep_in` wrote, if all of it is there: LLVM crashes on a part."""
    with contextlib.suppress(OSError):
        found = path.read_bytes()
        if hashlib.sha256(found[32:]).digest() == found[:32]:
            return found[32:]
    return None


def keep_in(path: Path, code: bytes) -> None:
    """Write the file at once, if that can be done: without it the loop is compiled in each process."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as part:
            part.write(hashlib.sha256(code).digest() + code)
        os.replace(part.name, path)


def optimized(module: Any) -> Any:
    """The module, after LLVM's passes."""
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization, options.slp_vectorization = True, False
    builder = llvm.create_pass_builder(target_machine(), options)
    builder.getModulePassManager().run(module, builder)
    return module


def target_machine() -> Any:
    """What makes machine code for this processor."""
    with contextlib.suppress(RuntimeError):  # newer versions do this by themselves
        llvm.initialize()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=3,
        reloc="static" if target.name.startswith("x86") else "default",
        codemodel="jitdefault",
        jit=True,
    )


@functools.cache
def engine() -> Any:
    """What loads object files."""
    machine = target_machine()
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
