"""Loops to LLVM's modules, by Numba."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.codegen import CPUCodegen, CPUCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.errors import NumbaError
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from dlgpu.backend.cpu.objects import optimized
from dlgpu.backend.recorder import Wide

numba.config.DISABLE_JIT = 0  # what runs Python in place of compiled code has no code for us
WORD = ir.IntType(64)
FIELDS = object.__basicsize__  # bytes before an array object's data pointer, number of axes, shape and strides
NUMBERS = {int: types.int64, bool: types.boolean, float: types.float64, type(None): types.none}
NUMBERS |= {t: getattr(types, t.__name__) for t in (np.float32, np.float64, np.uint32, np.uint64)}
FORBIDDEN = ("numba_", "NRT_", "Py", "_Py")


def njit(function: Any, fastmath: tuple, options: dict) -> Any:
    """The function as other compiled code can call it."""
    ours = {"error_model": "numpy", "fastmath": set(fastmath) or False}
    bare = {"_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # no arrays made, no way from Python
    return numba.njit(**ours, **bare, **options)(function)


class _Library(CPUCodeLibrary):
    """What Numba makes of a function, as it is.

    Numba would optimize every function on its own, and again in each that calls it, and make machine code each time.
    """

    def _optimize_functions(self, module: Any) -> None:
        module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None: ...

    def _finalize_specific(self) -> None: ...

    def get_pointer_to_function(self, name: str) -> int:
        self._ensure_finalized()
        return 0


class _Codegen(CPUCodegen):
    _library_class = _Library

    def _customize_tm_options(self, options: dict) -> None: ...

    def _customize_tm_features(self) -> str:
        return ""

    def _add_module(self, module: Any) -> None: ...

    def set_env(self, name: str, env: Any) -> None: ...


_codegen = _Codegen("dlgpu")


@contextlib.contextmanager
def _unoptimized() -> Iterator[None]:
    """Numba compiles to libraries of ours in here. Other threads cannot compile meanwhile."""
    context = cpu_target.target_context
    with global_compiler_lock:
        usual, context._internal_codegen = context._internal_codegen, _codegen
        try:
            yield
        finally:
            context._internal_codegen = usual


def compiled(loop: Any, kinds: tuple, symbol: str) -> Any:
    """LLVM's module with a function of that name, which calls the loop with the arguments in a block.

    Raises:
        TypeError: the loop makes arrays or other objects, or Numba does not understand it.
    """
    space: dict[str, Any] = {"loop": loop}
    text = f"def entry(block):\n    loop({', '.join(_arguments(kinds, space))})\n"
    exec(text, space)
    entry, signature = njit(space["entry"], (), {}), (types.CPointer(types.int64),)
    try:
        with _unoptimized():
            entry.compile(signature)
    except NumbaError as error:
        raise TypeError(f"{loop.__name__} cannot be compiled: {error}") from None
    made = entry.overloads[signature]
    module = made.library._final_module
    module.get_function(made.fndesc.llvm_func_name).name = symbol
    for value in (*module.functions, *module.global_variables):
        if not value.is_declaration and value.name != symbol:
            value.linkage = "internal"  # other object files have the same
    for function in optimized(module).functions:
        if function.is_declaration and function.name.startswith(FORBIDDEN):
            raise TypeError(f"{loop.__name__}: compiled loops do without Python, but here is {function.name}")
    return module


def _arguments(kinds: tuple, space: dict) -> list[str]:
    """The Python expressions of the arguments; `space` gets what they name, and counts the words in "place"."""
    found = []
    for kind in kinds:
        if isinstance(kind, tuple) and len(kind) == 2:
            space[kind[0].__name__] = kind[0]
            found.append(f"{kind[0].__name__}({', '.join(_arguments(kind[1], space))})")
            continue
        taken = []
        for part in [types.uint64] * 2 if kind is Wide else [_type(kind)]:
            place = space["place"] = space.get("place", -1) + 1
            space[f"take_{place}"] = _taker(part, place)
            taken.append(f"take_{place}(block)")
        found.append(f"({', '.join(taken)})")
    return found


def _type(kind: Any) -> Any:
    if not isinstance(kind, tuple):
        return NUMBERS[kind]
    char, axes, flags = kind
    return types.Array(numba.from_dtype(np.dtype(char)), axes, "C" if flags & 1 else "A", aligned=bool(flags & 0x100))


def _taker(kind: Any, place: int) -> Any:
    """A function of a block in compiled code: its argument in the word at `place`."""

    @intrinsic
    def take(typing, block):
        def generate(context, builder, signature, args):
            word = builder.load(builder.gep(args[0], [WORD(place)]))
            if isinstance(kind, types.Array):
                return _array(context, builder, kind, word)
            if isinstance(kind, types.Float):
                number = builder.bitcast(word, ir.DoubleType())
                return number if kind.bitwidth == 64 else builder.fptrunc(number, ir.FloatType())
            if kind is types.none:
                return context.get_dummy_value()
            bits = 1 if kind is types.boolean else kind.bitwidth
            return word if bits == 64 else builder.trunc(word, ir.IntType(bits))

        return kind(block), generate

    return take


def _array(context: Any, builder: Any, kind: Any, word: Any) -> Any:
    """Numba's view of the array object at this address."""
    pointers = WORD.as_pointer()
    fields = builder.inttoptr(builder.add(word, WORD(FIELDS)), pointers)
    data, _, shape, strides = (builder.load(builder.gep(fields, [WORD(i)])) for i in range(4))

    def lengths(address):
        start = builder.inttoptr(address, pointers)
        return [builder.load(builder.gep(start, [WORD(i)])) for i in range(kind.ndim)]

    array = context.make_array(kind)(context, builder)
    data = builder.inttoptr(data, context.get_data_type(kind.dtype).as_pointer())
    populate_array(array, data, lengths(shape), lengths(strides), WORD(np.dtype(str(kind.dtype)).itemsize), None)
    return array._getvalue()
