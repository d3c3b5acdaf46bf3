"""Compiles CUDA C++ for the host into shared libraries, cached on disk by the hash of all that went into them."""

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dlgpu.backend.cuda.signature import without_comments
from dlgpu.errors import DeviceError

RUNTIME = Path(__file__).with_name("runtime.hpp")
SANITIZERS = "DLGPU_EMULATOR_SANITIZE"  # such as "address,undefined"; the process needs libasan preloaded


class KernelError(RuntimeError):
    """A kernel that does not compile, or that did something wrong while it ran; names its file and line."""


def cache_folder() -> Path:
    """Where compiled kernels are kept: DLGPU_CACHE_DIR, or dlgpu/ in the user's cache."""
    if given := os.environ.get("DLGPU_CACHE_DIR"):
        return Path(given)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dlgpu"
    except RuntimeError:  # a user without a home
        return _of_this_process()


@functools.cache
def _of_this_process() -> Path:
    return Path(tempfile.mkdtemp(prefix="dlgpu-"))


@functools.cache
def compiler() -> str | None:
    """The C++ compiler: what CXX names, or g++, clang++ or c++ on the PATH; None if there is none."""
    names = (os.environ.get("CXX"), "g++", "clang++", "c++")
    return next((name for name in names if name and shutil.which(name)), None)


def problem() -> str | None:
    """Why the emulator cannot be used here, or None if it can."""
    if compiler() is None:
        return "it needs a C++17 compiler and found none; install g++ or clang++, or name one in the variable CXX."
    return None


@functools.cache
def compiler_version() -> str:
    """What the compiler says of itself; part of the cache's key."""
    return subprocess.run([str(compiler()), "--version"], capture_output=True, text=True, check=False).stdout


def host_source(source: str, filename: str, kernels: Sequence[str]) -> str:
    """The source with its own line numbers, dynamic shared memory by pointer, and an entry that launches by name."""
    pointer = r"\1* \2 = emulator::dynamic_shared<\1>();"
    align = r"(?:__align__\(\d+\)\s+)?"
    shared = re.compile(rf"extern\s+{align}__shared__\s+{align}([\w ]+?)\s+(\w+)\s*\[\s*\]\s*;")
    code = without_comments(source)
    for match in shared.finditer(code):
        before = code[: match.start()]
        if before.count("{") == before.count("}"):
            line = before.count("\n") + 1
            raise KernelError(f"{filename}:{line}: the emulator needs {match[2]!r} declared inside the kernel")
    cases = "\n".join(
        f'    if (!std::strcmp(name, "{k}"))\n'
        f"        error = emulator::launch_kernel({k}, grid, block, shared, cooperative, arguments);"
        for k in kernels
    )
    return f"""#line 1 "{filename}"
{shared.sub(pointer, source)}
#line 1 "entry"
extern "C" __attribute__((visibility("default"))) int emulator_launch(
    const char* name, const unsigned* sizes, unsigned long long shared, int cooperative, void** arguments,
    char* message, int length) {{
    dim3 grid{{sizes[0], sizes[1], sizes[2]}}, block{{sizes[3], sizes[4], sizes[5]}};
    std::string error;
{cases}
    std::snprintf(message, length, "%s", error.c_str());
    return !error.empty();
}}
"""


def library(source: str, filename: str, kernels: Sequence[str], defines: Sequence[str], include: Path) -> ctypes.CDLL:
    """The compiled source, from the cache if it is there.

    Args:
        source: CUDA C++.
        filename: what its errors call it.
        kernels: the kernels that can be launched.
        defines: such as "STORAGE=float".
        include: the folder of the headers that it includes.
    Raises:
        KernelError: it does not compile; the message is the compiler's, with the kernel's file and line.
    """
    sanitizers = os.environ.get(SANITIZERS, "")
    missing = problem()
    if missing:
        raise DeviceError(f"Device 'emulator' is not available: {missing}")
    # -O2 and -g take twice as long to compile, for code that is an eighth faster
    flags = ["-std=c++17", "-O1", "-g1", "-fPIC", "-shared", "-pthread", "-fno-strict-aliasing"]
    flags += ["-ffp-contract=off"]  # else a processor with fused multiply-add would give other bits
    flags += ["-fvisibility=hidden"]  # else libraries would share variables of one name: of float and double kernels
    flags += ["-Wno-unknown-pragmas", "-Wno-attributes", *(f"-D{d}" for d in defines)]
    if sanitizers:
        flags += [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
    else:
        flags += ["-Werror=frame-larger-than=49152"]  # a thread's stack has 64 KB, and nothing guards its end
    text = host_source(source, filename, kernels)
    headers = "".join(p.read_text() for p in sorted(include.glob("*.cuh"))) if include.is_dir() else ""
    runtime = "".join(p.read_text() for p in sorted(RUNTIME.parent.glob("*.hpp")))
    parts = (text, headers, runtime, *flags, compiler_version())
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    path = cache_folder() / "emulator" / f"{key}.so"
    if not path.exists():
        _compile(text, flags, include, path)
    return ctypes.CDLL(str(path))


def _compile(text: str, flags: Sequence[str], include: Path, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise DeviceError(
            f"compiled kernels cannot be kept in {path.parent} ({error.strerror}); name a folder in DLGPU_CACHE_DIR"
        ) from None
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder, "made.so")
        command = [str(compiler()), "-x", "c++", *flags, f"-I{include}", "-include", str(RUNTIME), "-", "-o", str(made)]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise KernelError(f"the kernel does not compile:\n{done.stderr.strip()}")
        os.replace(made, path)
