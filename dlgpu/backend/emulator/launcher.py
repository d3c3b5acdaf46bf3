"""Launches a compiled kernel on NumPy arrays."""

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from dlgpu.backend.emulator.compiler import KernelError

MESSAGE_LENGTH = 2000
RESIDENT = 4  # blocks of a cooperative launch, each on a host thread
SHARED = 64 * 1024  # bytes that a block can have; no GPU that is supported has less


@functools.cache
def _array(kind: Any, length: int) -> Any:
    """The type of C arrays, made once: a type is a reference cycle."""
    return kind * length


def launch(
    library: ctypes.CDLL,
    kernel: str,
    grid: Sequence[int],
    block: Sequence[int],
    shared: int,
    args: Sequence[Any],
    cooperative: bool = False,
) -> None:
    """Run all blocks of a kernel, and wait.

    Args:
        library: from `compiler.library`.
        kernel: its name.
        grid, block: three lengths each.
        shared: bytes of dynamic shared memory.
        args: arrays, None for null pointers, and NumPy scalars of the parameters' types.
        cooperative: whether all blocks run at once, RESIDENT at most.
    Raises:
        KernelError: threads waited for others that did not come, or an assertion failed; names the kernel's line.
    """
    values: list[Any] = []
    for a in args:
        if isinstance(a, np.ndarray):
            values.append(ctypes.c_void_p(a.ctypes.data))
        elif a is None:
            values.append(ctypes.c_void_p(None))
        else:
            values.append(_array(ctypes.c_char, a.nbytes).from_buffer_copy(a.tobytes()))
    pointers = _array(ctypes.c_void_p, max(1, len(values)))(*(ctypes.addressof(v) for v in values))
    sizes = _array(ctypes.c_uint, 6)(*grid, *block)
    message = _array(ctypes.c_char, MESSAGE_LENGTH)()
    if library.emulator_launch(
        kernel.encode(),
        sizes,
        ctypes.c_ulonglong(shared),
        ctypes.c_int(cooperative),
        pointers,
        message,
        ctypes.c_int(MESSAGE_LENGTH),
    ):
        raise KernelError(f"{kernel}: {message.value.decode(errors='replace')}")
