"""Loops to LLVM's modules, by Numba."""

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.codegen import CPUCodegen, CPUCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.errors import NumbaError
from numba.core.registry import cpu_target
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
    made = numba.njit(**ours, **bare, **options)(function)
    template = made.get_call_template
    made.get_call_template = lambda args, kws: template(_general(args), dict(zip(kws, _general(kws.values()))))
    return made


def _general(kinds: Iterable) -> list:
    """For literals their types: Numba would compile a function for True and for False, each anew."""
    return [types.unliteral(kind) for kind in kinds]


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
    dispatcher, signature = loop._numba_type_.dispatcher, tuple(map(_type, kinds))
    try:
        with _unoptimized():
            dispatcher.compile(signature)
            module = _with_entry(dispatcher.overloads[signature], signature, symbol)
    except NumbaError as error:
        raise TypeError(f"{loop.__name__} cannot be compiled: {error}") from None
    for value in (*module.functions, *module.global_variables):
        if not value.is_declaration and value.name != symbol:
            value.linkage = "internal"  # other object files have the same
    for function in optimized(module).functions:
        if function.is_declaration and function.name.startswith(FORBIDDEN):
            raise TypeError(f"{loop.__name__}: compiled loops do without Python, but here is {function.name}")
    return module


def _with_entry(made: Any, signature: tuple, symbol: str) -> Any:
    """The module of what Numba made, with a function that takes a block."""
    library, context, unused = _codegen.create_library(symbol), made.target_context, ir.IntType(8).as_pointer()
    module = library.create_ir_module(symbol)
    entry = ir.Function(module, ir.FunctionType(ir.IntType(32), [unused, unused, WORD.as_pointer()]), symbol)
    builder = ir.IRBuilder(entry.append_basic_block())
    words = (builder.load(builder.gep(entry.args[2], [WORD(place)])) for place in itertools.count())
    args = [_argument(context, builder, kind, words) for kind in signature]
    function = context.declare_function(module, made.fndesc)
    status, _ = context.call_conv.call_function(builder, function, made.signature.return_type, signature, args)
    builder.ret(builder.zext(status.is_error, ir.IntType(32)))
    library.add_ir_module(module)
    library.add_linking_library(made.library)
    library.finalize()
    return library._final_module


def _type(kind: Any) -> Any:
    if kind is Wide:
        return types.UniTuple(types.uint64, 2)
    if not isinstance(kind, tuple):
        return NUMBERS[kind]
    if len(kind) == 2:
        return types.BaseTuple.from_types([_type(inner) for inner in kind[1]], kind[0])
    char, axes, flags = kind
    return types.Array(numba.from_dtype(np.dtype(char)), axes, "C" if flags & 1 else "A", aligned=bool(flags & 0x100))


def _argument(context: Any, builder: Any, kind: Any, words: Iterator) -> Any:
    """An argument of this type, from as many words as it has."""
    if isinstance(kind, types.BaseTuple):
        return context.make_tuple(builder, kind, [_argument(context, builder, inner, words) for inner in kind])
    word = next(words)
    if isinstance(kind, types.Array):
        return _array(context, builder, kind, word)
    if isinstance(kind, types.Float):
        number = builder.bitcast(word, ir.DoubleType())
        return number if kind.bitwidth == 64 else builder.fptrunc(number, ir.FloatType())
    if kind is types.none:
        return context.get_dummy_value()
    bits = 1 if kind is types.boolean else kind.bitwidth
    return word if bits == 64 else builder.trunc(word, ir.IntType(bits))


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
