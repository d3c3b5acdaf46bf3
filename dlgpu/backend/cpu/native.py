"""Compiled loops as native functions: loaded from object files, called one by one or as a list.

The C signature of all of them is `int loop(void *, void *, int64_t *block)`. A block holds the arguments in words of 64
bits: of an array the address of the Python object, whose data pointer, shape and strides the loop reads itself.
"""

import ctypes
import functools
import hashlib
import os
import re
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from types import CodeType, FunctionType
from typing import Any

import numpy as np

from dlgpu.backend.cpu.objects import address
from dlgpu.backend.recorder import Drawn, Wide

BEHAVED = 0x101  # the flags of arrays that tell loops apart: contiguous in C's order (1) and aligned (0x100)
FORMATS = {int: "q", bool: "q", float: "d", type(None): "q", Wide: "QQ"}  # of struct, for the kinds of numbers
FORMATS |= {np.float32: "d", np.float64: "d", np.uint32: "Q", np.uint64: "Q"}
LANES = 16  # numbers in a vector that is a value in compiled code
SCRATCH = (ctypes.c_int64 * 2)()  # what Numba's functions return, and raise, goes there: neither is used


class InCompiledCode:
    """A name that compiled code can use. What stands behind it is made when such code is first compiled.

    Args:
        make: returns an object that Numba knows.
    """

    def __init__(self, make: Callable):
        self.make = make

    def __call__(self, *args: Any) -> Any:
        raise TypeError("this name is for compiled code only")

    @functools.cached_property
    def _numba_type_(self) -> Any:  # what Numba asks of a global variable
        from numba.core.registry import cpu_target

        self._made = self.make()
        cpu_target.typing_context.refresh()
        return cpu_target.typing_context.resolve_value_type(self._made)


def instructions(function: Callable) -> InCompiledCode:
    """A function of Numba's types that generates LLVM instructions, as for `numba.extending.intrinsic`."""

    def make() -> Callable:
        from numba.extending import intrinsic

        return intrinsic(function)

    return InCompiledCode(make)


class Loop(InCompiledCode):
    """A function that is compiled for each kind of arguments that it is called with.

    Args:
        function: of arrays, numbers, None, and named tuples of these.
        fastmath, options: of `numba.njit`.
    """

    __name__: str
    join: Any  # what makes one function of several calls

    def __init__(self, function: Callable, fastmath: tuple = (), **options: Any):
        super().__init__(lambda: compiler().njit(function, fastmath, options))
        functools.update_wrapper(self, function)
        self._entries: dict[tuple, Entry] = {}

    def __call__(self, *args: Any) -> Any:
        kinds, words = kinds_and_words(args)
        entry = self._entries.get(kinds) or self.entry(kinds)
        if entry.function(SCRATCH, SCRATCH, entry.pack(*words)):
            raise RuntimeError(f"{self.__name__} raised an error: compiled loops cannot say which")

    def entry(self, kinds: tuple) -> "Entry":
        """The function for arguments of these kinds: compiled, loaded or known."""
        with _lock:
            if kinds in self._entries:
                return self._entries[kinds]
            try:
                packing = "".join(formats(kinds))
            except KeyError as kind:
                raise TypeError(f"{self.__name__}: loops take arrays, numbers and None, not {kind}") from None
            digest = hashlib.sha256(repr((identity(self), kinds)).encode()).hexdigest()[:24]
            symbol = f"{re.sub('[^0-9A-Za-z]', '_', self.__name__)}_{digest}"
            found = address(symbol, lambda: compiler().compiled(self, kinds, symbol))
            self._entries[kinds] = Entry(found, packing)
            return self._entries[kinds]


class Entry:
    """A loop's function for one kind of arguments."""

    def __init__(self, address: int, packing: str):
        self.address = address
        self.function = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 3)(address)
        self.pack = struct.Struct(packing).pack


def kinds_and_words(args: Iterable) -> tuple[tuple, list]:
    """What loops are told apart by, and what goes into the block."""
    kinds: list = []
    words: list = []
    for a in args:
        if isinstance(a, np.ndarray):
            if not a.dtype.isnative:
                raise TypeError(f"loops take arrays of this machine's byte order, not of {a.dtype.str}")
            kinds.append((a.dtype.char, a.ndim, a.flags.num & BEHAVED))
            words.append(id(a))
        elif a is None:
            kinds.append(type(None))
            words.append(0)
        elif isinstance(a, tuple):
            inner, more = kinds_and_words(a)
            kinds.append((type(a), inner))
            words += more
        elif isinstance(a, Wide):
            kinds.append(Wide)
            words += a & (2**64 - 1), a >> 64
        else:
            kinds.append(type(a))
            words.append(a)
    return tuple(kinds), words


def formats(kinds: tuple) -> list[str]:
    """The struct format of each kind."""
    found = []
    for kind in kinds:
        if not isinstance(kind, tuple):
            found.append(FORMATS[kind])
        else:
            found.append("".join(formats(kind[1])) if len(kind) == 2 else "q")
    return found


class Prepared:
    """A loop's call with arguments that stay; numbers that are drawn anew are put into its block."""

    def __init__(self, loop: Loop, args: Sequence):
        kinds, words = kinds_and_words(args)
        entry = loop.entry(kinds)
        self.loop, self.args = loop, args  # the block has the addresses of arrays
        self._block = np.frombuffer(bytearray(entry.pack(*words)), np.uint64)
        self._function = entry.function
        self.address, self.place = entry.address, self._block.ctypes.data
        for place, a in zip(np.cumsum([0, *map(len, formats(kinds))]), args):
            if isinstance(a, Drawn):
                a.uses.append((_Halves(self._block), place))

    def __call__(self) -> None:
        self._function(SCRATCH, SCRATCH, self.place)


class _Halves:
    """Of a block: its numbers of two words."""

    def __init__(self, block: np.ndarray):
        self._block = block

    def __setitem__(self, place: int, number: int) -> None:
        self._block[place : place + 2] = number & (2**64 - 1), number >> 64


@instructions
def invoke(typing, address, block):
    """Call the function at an address with the block at another."""
    from llvmlite import ir
    from numba import types
    from numba.core.cgutils import alloca_once

    def generate(context, builder, signature, args):
        pointer = ir.IntType(8).as_pointer()
        function = ir.FunctionType(ir.IntType(32), [pointer] * 3).as_pointer()
        unused = builder.bitcast(alloca_once(builder, ir.IntType(64)), pointer)
        builder.call(builder.inttoptr(args[0], function), [unused, unused, builder.inttoptr(args[1], pointer)])
        return context.get_dummy_value()

    return types.void(address, block), generate


@Loop
def run(table):
    """Call all functions of a table, (calls, 2) of their addresses and those of their blocks, in order."""
    for i in range(len(table)):
        invoke(table[i, 0], table[i, 1])


@instructions
def flat(typing, array):
    """All values of a contiguous array as (size,), in compiled code."""
    from numba import types
    from numba.np.arrayobj import populate_array

    def generate(context, builder, signature, args):
        whole = context.make_array(array)(context, builder, args[0])
        view = context.make_array(signature.return_type)(context, builder)
        populate_array(view, whole.data, [whole.nitems], [whole.itemsize], whole.itemsize, None)
        return view._getvalue()

    return types.Array(array.dtype, 1, "C")(array), generate


def identity(value: Any) -> Any:
    """What tells a function from all others of the same sources, or a constant from others."""
    if isinstance(value, InCompiledCode):
        return identity(value.make)
    if not isinstance(value, FunctionType):
        return repr(value)
    inside = [identity(cell.cell_contents) for cell in value.__closure__ or ()]
    code = value.__code__
    constants = [c for c in code.co_consts if not isinstance(c, CodeType)]
    place = value.__module__, value.__qualname__, code.co_firstlineno
    return *place, code.co_code, code.co_names, repr(constants), inside


def compiler() -> Any:
    """The module that needs Numba."""
    from dlgpu.backend.cpu import compiler

    return compiler


_lock = threading.RLock()


def _forked() -> None:
    global _lock  # which another thread may have held
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
