"""Vectors of 16 numbers as values in compiled loops: what they do is done by vector instructions, for certain.

LLVM makes vectors of a loop over numbers only if it can prove that what the loop writes is not what it reads, and takes
the columns after the last full vector one by one. Here a row is taken vector by vector, and its memory is as long as
its last vector needs.
"""

from collections.abc import Callable
from typing import Any

from dlgpu.backend.cpu.native import LANES, InCompiledCode

__all__ = ["LANES", "clamp", "exact_tanh", "load", "store"]


def _named(name: str) -> InCompiledCode:
    def make() -> Callable:
        from dlgpu.backend.cpu import vector_type

        made: Any = getattr(vector_type, name)
        return made

    return InCompiledCode(make)


load, store, clamp, exact_tanh = map(_named, ("load", "store", "clamp", "exact_tanh"))
