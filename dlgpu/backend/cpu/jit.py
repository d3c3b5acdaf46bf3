"""How loops of the CPU column are compiled: once per dtype, kept on disk, without Python's lock."""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

from dlgpu.backend.emulator.compiler import cache_folder

# Numba's own cache looks at the file of a function alone, and not at those of the functions that are compiled into it.
_SOURCES = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
FOLDER = cache_folder() / "numba" / hashlib.sha256(_SOURCES).hexdigest()[:16]


def jit(function: Callable, fastmath: Any = ("contract", "nsz"), **options: Any) -> Any:
    """The function, compiled when it is first called.

    Fused multiply-add and signless zeros only: NaN and infinities keep their rules, sums their order.
    """
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(FOLDER)
    try:
        options = {"cache": True, "error_model": "numpy", "nogil": True, "fastmath": set(fastmath) or False, **options}
        return numba.njit(**options)(function)
    finally:
        numba.config.CACHE_DIR = before


# For functions of a few numbers: always compiled into the loop, without which that could not be made of vectors.
inline_jit = functools.partial(jit, forceinline=True)

# For sums over a row, which vectors add up in an order of their own. It is the same every time.
sum_jit = functools.partial(jit, fastmath=("contract", "nsz", "reassoc"))
