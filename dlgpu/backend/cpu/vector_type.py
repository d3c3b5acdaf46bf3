"""The type of vectors in compiled loops, and what can be done with them: for Numba."""

import math
import operator

from llvmlite import ir
from numba import types
from numba.core.datamodel import models
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, register_model

from dlgpu.backend.cpu.native import LANES

FLAGS = "contract", "nsz"


class Vector(types.Type):
    """LANES numbers of one floating dtype."""

    def __init__(self, dtype):
        self.dtype = dtype
        super().__init__(f"Vector({dtype})")


@register_model(Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, vector_of(kind.dtype))


def vector_of(dtype):
    return ir.VectorType(ir.DoubleType() if dtype == types.float64 else ir.FloatType(), LANES)


def everywhere(builder, scalar):
    """A vector of one value."""
    vector = ir.VectorType(scalar.type, LANES)
    lane = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.IntType(32)(0))
    return builder.shuffle_vector(lane, lane, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


def pointer(context, builder, kind, row, place):
    """To the vector that begins at row[place]."""
    first = builder.gep(context.make_array(kind)(context, builder, row).data, [place])
    return builder.bitcast(first, vector_of(kind.dtype).as_pointer())


@intrinsic
def load(typing, row, place):
    """The numbers from row[place] on; the row is contiguous."""

    def generate(context, builder, signature, args):
        at = pointer(context, builder, signature.args[0], *args)
        return builder.load(at, align=row.dtype.bitwidth // 8)

    return Vector(row.dtype)(row, types.intp), generate


@intrinsic
def store(typing, row, place, vector):
    """Write a vector to row[place] and after it, or a number everywhere."""

    def generate(context, builder, signature, args):
        at = pointer(context, builder, signature.args[0], *args[:2])
        value = args[2] if isinstance(vector, Vector) else everywhere(builder, args[2])
        builder.store(value, at, align=row.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(row, types.intp, vector), generate


@intrinsic
def clamp(typing, vector, limit):
    """Each number, or what is nearest to it between -limit and limit; NaN stays NaN."""

    def generate(context, builder, signature, args):
        value, high = args[0], everywhere(builder, args[1])
        low = everywhere(builder, builder.fneg(args[1]))
        value = builder.select(builder.fcmp_ordered(">", value, high), high, value)
        return builder.select(builder.fcmp_ordered("<", value, low), low, value)

    return vector(vector, vector.dtype), generate


@intrinsic
def exact_tanh(typing, vector):
    """The C library's, number by number."""

    def generate(context, builder, signature, args):
        function = context.get_function(math.tanh, vector.dtype(vector.dtype))
        made = args[0]
        for i in map(ir.IntType(32), range(LANES)):
            made = builder.insert_element(made, function(builder, [builder.extract_element(args[0], i)]), i)
        return made

    return vector(vector), generate


def _operator(function, instruction):
    """Let it take two vectors, or a vector and a number."""

    @infer_global(function)
    class _Template(AbstractTemplate):
        def generic(self, args, _):
            kinds = [a for a in args if isinstance(a, Vector)]
            if kinds:
                return signature(kinds[0], *(a if isinstance(a, Vector) else kinds[0].dtype for a in args))

    def lower(context, builder, signature, args):
        pair = [a if isinstance(kind, Vector) else everywhere(builder, a) for a, kind in zip(args, signature.args)]
        return getattr(builder, instruction)(*pair, flags=FLAGS)

    for kinds in (Vector, Vector), (Vector, types.Float), (types.Float, Vector):
        lower_builtin(function, *kinds)(lower)


for _pair in (operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul"), (operator.truediv, "fdiv"):
    _operator(*_pair)
