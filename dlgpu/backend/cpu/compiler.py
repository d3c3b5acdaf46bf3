"""Loops to LLVM's code, by Numba."""

from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.errors import NumbaError
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

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


def compiled(loop: Any, kinds: tuple, symbol: str) -> str:
    """LLVM code with a function of that name, which calls the loop with the arguments in a block.

    Raises:
        TypeError: the loop makes arrays or other objects, or Numba does not understand it.
    """
    space: dict[str, Any] = {"loop": loop}
    text = f"def entry(block):\n    loop({', '.join(_arguments(kinds, space))})\n"
    exec(text, space)
    entry, signature = njit(space["entry"], (), {}), (types.CPointer(types.int64),)
    try:
        entry.compile(signature)
    except NumbaError as error:
        raise TypeError(f"{loop.__name__} cannot be compiled: {error}") from None
    name = entry.overloads[signature].fndesc.llvm_func_name
    module = llvm.parse_assembly(entry.inspect_llvm(signature).replace(name, symbol))
    for function in module.functions:
        if function.is_declaration and function.name.startswith(FORBIDDEN):
            raise TypeError(f"{loop.__name__}: compiled loops do without Python, but here is {function.name}")
        if not function.is_declaration and function.name != symbol:
            function.linkage = "internal"
    for variable in module.global_variables:  # other object files have the same
        if not variable.is_declaration:
            variable.linkage = "internal"
    return str(module)


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
