"""A matrix product for compiled loops: few rows times weights that are used again and again.

The weights lie in panels, each the columns of one tile after another, so that they are read in the order of memory.
On few rows it is 1.5 to 3 times as fast as OpenBLAS, which lays its panels anew in every call; for the gradients of
large weights, too, whose sums run over many rows.
"""

from llvmlite import binding, ir

from dlgpu.backend.cpu.jit import jit
from dlgpu.backend.cpu.native import instructions
from dlgpu.backend.cpu.vectors import LANES, load, store

# A tile's sums are to stay in registers: 16 of 512 bits with AVX-512, else 8 of 256 or 16 of 128.
ROWS, VECTORS = 4, 4 if binding.get_host_cpu_features().get("avx512f") else 1
PANEL = LANES * VECTORS
IN_CACHE = 128  # rows to take together through several tiles


@jit
def multiply(a, w, out, add, low, high):
    """out[r, :columns] = a[r, :inner] @ w for the rows r from low to high; added to what is there, if `add`.

    Args:
        a: (rows, at least inner).
        w: (inner, columns) in panels, columns a multiple of LANES.
        out: (rows, at least columns); all three contiguous and of one floating dtype.
    """
    inner, columns = w.shape
    wide = columns // PANEL * PANEL
    for first in range(low, high, IN_CACHE):
        last = min(first + IN_CACHE, high)
        together = first + (last - first) // ROWS * ROWS
        for column in range(0, wide, PANEL):
            for r in range(first, together, ROWS):
                block(a, r * a.shape[1], a.shape[1], 1, w, column * inner, PANEL, out, r, column, inner, add)
            for r in range(together, last):
                line(a, r * a.shape[1], a.shape[1], 1, w, column * inner, PANEL, out, r, column, inner, add)
        for column in range(wide, columns, LANES):
            for r in range(first, together, ROWS):
                narrow_block(a, r * a.shape[1], a.shape[1], 1, w, column * inner, LANES, out, r, column, inner, add)
            for r in range(together, last):
                narrow_line(a, r * a.shape[1], a.shape[1], 1, w, column * inner, LANES, out, r, column, inner, add)


@jit
def multiply_transposed(a, b, out, left, right, low, high):
    """out[k] = a[:, k] @ b for the rows k of the groups of ROWS from low to high: the gradient of weights.

    Args:
        a: (inner, at least rows).
        b: (inner, at least columns).
        out: (rows, columns), multiples of ROWS and of LANES; all three contiguous and of one floating dtype.
        left, right: working memory, (groups, IN_CACHE * ROWS) and (groups, IN_CACHE * PANEL), to lay what is multiplied
            in order first, which pays for large products; or empty.
    """
    if low >= high:
        return
    width, b_width, columns = a.shape[1], b.shape[1], out.shape[1]
    wide = columns // PANEL * PANEL
    for k in range(low * ROWS, high * ROWS):
        out[k] = 0
    for first in range(0, len(b), IN_CACHE):
        inner = min(IN_CACHE, len(b) - first)
        if left.size:
            lay_groups(a, first, inner, left, low, high)
        for column in range(0, wide, PANEL):
            if left.size:
                lay_columns(b, first, inner, column, PANEL, right[low])
            for g in range(low, high):
                k, place = g * ROWS, g * left.shape[1]
                if left.size:
                    start = low * right.shape[1]
                    block(left, place, 1, ROWS, right, start, PANEL, out, k, column, inner, True)
                else:
                    start = first * b_width + column
                    block(a, first * width + k, 1, width, b, start, b_width, out, k, column, inner, True)
        for column in range(wide, columns, LANES):
            start = first * b_width + column
            for k in range(low * ROWS, high * ROWS, ROWS):
                narrow_block(a, first * width + k, 1, width, b, start, b_width, out, k, column, inner, True)


@jit
def weight_gradients(inputs, states, grad_z, out, left, right, low, high):
    """multiply_transposed of inputs, then of states, into one `out`: inputs have all their groups there."""
    n = inputs.shape[1] // ROWS
    multiply_transposed(inputs, grad_z, out, left, right, low, min(high, n))
    multiply_transposed(states, grad_z, out[n * ROWS :], left[n:], right[n:], max(low - n, 0), high - n)


@jit
def lay_groups(a, first, inner, left, low, high):
    """ROWS columns of a side by side, and so on down the inner rows from `first` on, for each group."""
    for k in range(inner):
        for g in range(low, high):
            for i in range(ROWS):
                left[g, k * ROWS + i] = a[first + k, g * ROWS + i]


@jit
def lay_columns(b, first, inner, column, width, out):
    """The columns from `column` on, of the inner rows from `first` on."""
    for k in range(inner):
        for j in range(0, width, LANES):
            store(out, k * width + j, load(b[first + k], column + j))


@jit
def pack(weights, bias, scale, lanes, inner, panels):
    """The weights times `scale`, each column at its place among `lanes`, in the order that `multiply` reads.

    Args:
        weights: (rows, columns).
        bias: (columns,) for the row after the weights, if there is one; empty for zeros.
        scale, lanes: (columns,).
        inner: rows, or rows + 1.
        panels: (inner * places,), the result; what has no full panel is in narrow ones, other places are 0.
    """
    wide = panels.size // inner // PANEL * PANEL
    panels[:] = 0
    for first in range(0, inner, LANES):  # so many rows together, as the weights may be transposed
        for j in range(len(lanes)):
            width = PANEL if lanes[j] < wide else LANES
            offset = lanes[j] % width
            start = (lanes[j] - offset) * inner + offset
            for k in range(first, min(first + LANES, len(weights))):
                panels[start + k * width] = weights[k, j] * scale[j]
            if len(bias):
                panels[start + (inner - 1) * width] = bias[j] * scale[j]


def tile(rows, vectors):
    """A function for so many rows and vectors of a product, in vector instructions: Numba would keep sums in memory.

    out[row + r, column + j] = sum over k < inner of a[start + r * a_row + k * a_inner] * b[b_start + k * b_inner + j]
    with a and b as flat arrays; added to what is there, if `add`.
    """

    @instructions
    def product(typing, a, start, a_row, a_inner, b, b_start, b_inner, out, row, column, inner, add):
        from numba import types
        from numba.core import cgutils

        from dlgpu.backend.cpu.vector_type import everywhere, vector_of

        value, index = a.dtype, types.intp
        vector = vector_of(value)
        align = value.bitwidth // 8

        def generate(context, builder, signature, args):
            start, a_row, a_inner, b_start, b_inner, row, column, inner, add = (args[i] for i in INTEGERS)
            left, right, result = (
                context.make_array(signature.args[i])(context, builder, args[i]).data for i in (0, 4, 7)
            )
            shape = context.make_array(signature.args[7])(context, builder, args[7]).shape
            width = cgutils.unpack_tuple(builder, shape)[1]
            results = {
                (r, v): builder.bitcast(
                    builder.gep(
                        result, [sum_of(builder, builder.mul(plus(builder, row, r), width), column, v * LANES)]
                    ),
                    vector.as_pointer(),
                )
                for r in range(rows)
                for v in range(vectors)
            }
            sums = {place: cgutils.alloca_once(builder, vector) for place in results}
            for place, total in sums.items():
                before = builder.load(results[place], align=align)
                builder.store(builder.select(add, before, ir.Constant(vector, None)), total)
            with cgutils.for_range(builder, inner) as loop:
                first = builder.add(b_start, builder.mul(loop.index, b_inner))
                terms = [
                    builder.load(
                        builder.bitcast(builder.gep(right, [plus(builder, first, v * LANES)]), vector.as_pointer()),
                        align=align,
                    )
                    for v in range(vectors)
                ]
                column_of_a = builder.add(start, builder.mul(loop.index, a_inner))
                for r in range(rows):
                    place = builder.add(column_of_a, builder.mul(a_row, ir.Constant(a_row.type, r)))
                    factor = everywhere(builder, builder.load(builder.gep(left, [place])))
                    for v in range(vectors):
                        term = builder.fmul(factor, terms[v], flags=("contract",))
                        total = builder.fadd(builder.load(sums[r, v]), term, flags=("contract",))
                        builder.store(total, sums[r, v])
            for place, total in sums.items():
                builder.store(builder.load(total), results[place], align=align)
            return context.get_dummy_value()

        integers = [index] * 3
        return types.void(a, *integers, b, index, index, out, *integers, types.boolean), generate

    return product


INTEGERS = 1, 2, 3, 5, 6, 8, 9, 10, 11  # the places of a tile's arguments that are no arrays


def plus(builder, number, n):
    return builder.add(number, ir.Constant(number.type, n))


def sum_of(builder, a, b, n):
    return plus(builder, builder.add(a, b), n)


block, narrow_block, line, narrow_line = tile(ROWS, VECTORS), tile(ROWS, 1), tile(1, VECTORS), tile(1, 1)
