"""A small matrix product whose result stays in registers: what convolutions and products of matrices are made of.

Numba keeps no array in registers, so these two functions are written as LLVM instructions on vectors.
"""

import functools

import llvmlite.binding
from llvmlite import ir

from dlgpu.backend.cpu.native import instructions
from dlgpu.backend.cpu.objects import address, optimized

_features = llvmlite.binding.get_host_cpu_features()
_many = bool(_features.get("avx512f")) or llvmlite.binding.get_process_triple().startswith(("aarch64", "arm64"))
VECTOR_BYTES = 64 if _features.get("avx512f") else 32 if _features.get("avx") else 16
ROWS = 14 if _many else 6  # of a tile, at most: with its two columns of vectors they fill the vector registers


INDEX = ir.IntType(64)


def columns(dtype):
    """The number of columns of a tile: two vectors of the dtype."""
    return 2 * VECTOR_BYTES // dtype.itemsize


@instructions
def tile(
    typingctx, code, rows, out, at, out_row, start, from_, start_row, a, a_at, a_row, a_step, runs, count, length, b,
    b_at, b_step, least,
):  # fmt: skip
    """out[at + r * out_row + f] = max(least, start[from_ + r * start_row + f] + the sum over run and step of
    a[a_at + runs[run] + r * a_row + step * a_step] * b[b_at + (run * length + step) * b_step + f])

    for r < rows <= ROWS and f < columns(dtype), where run < count and step < length. All arrays are contiguous and
    taken as flat; NaN is not hidden by `least`. No `runs` (None) stands for a single 0. `code` is what `code_of` found.
    """
    from numba import types
    from numba.core.cgutils import alloca_once_value

    def generate(context, builder, signature, values):
        def pointer(i, at=None):
            array = context.make_array(signature.args[i])(context, builder, values[i]).data
            return array if at is None else builder.gep(array, [values[at]])

        first = alloca_once_value(builder, INDEX(0)) if signature.args[12] is types.none else pointer(12)
        kind = _type_of(context.get_value_type(out.dtype))
        builder.call(
            builder.inttoptr(values[0], kind.as_pointer()),
            [
                values[1], pointer(2, 3), values[4], pointer(5, 6), values[7], pointer(8, 9), values[10], values[11],
                first, *values[13:15], pointer(15, 16), *values[17:],
            ],
        )  # fmt: skip
        return context.get_dummy_value()

    given = code, rows, out, at, out_row, start, from_, start_row, a, a_at, a_row, a_step, runs, count, length, b
    kinds = [types.int64 if isinstance(kind, types.Integer) else kind for kind in (*given, b_at, b_step)]
    return types.void(*kinds, out.dtype), generate


def _type_of(real):
    """Of the function behind a tile, for this type of numbers."""
    numbers = real.as_pointer()
    given = INDEX, numbers, INDEX, numbers, INDEX, numbers, INDEX, INDEX, INDEX.as_pointer(), INDEX, INDEX, numbers
    return ir.FunctionType(ir.VoidType(), [*given, INDEX, real])


@functools.cache
def code_of(dtype):
    """Where the code of tiles of this dtype is: an object file of its own, which many loops use."""
    symbol = f"tile_{dtype.char}"
    return address(symbol, lambda: _module(symbol, dtype.itemsize))


def _module(symbol, size):
    """LLVM's module of the function behind a tile: for each height a loop whose sums are in registers."""
    real = ir.FloatType() if size == 4 else ir.DoubleType()
    lanes = VECTOR_BYTES // size
    vector, splat = ir.VectorType(real, lanes), ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    undefined, zero, one = ir.Constant(vector, ir.Undefined), INDEX(0), INDEX(1)
    module = ir.Module(symbol)
    function = ir.Function(module, _type_of(real), symbol)
    height, out, out_row, start, start_row, a, a_row, a_step, runs, count, length, b, b_step, least = function.args
    builder = ir.IRBuilder(function.append_basic_block())

    def broadcast(value):
        return builder.shuffle_vector(builder.insert_element(undefined, value, ir.IntType(32)(0)), undefined, splat)

    def place(base, i, half):
        return builder.bitcast(builder.gep(base, [builder.add(i, INDEX(half * lanes))]), vector.as_pointer())

    floor = broadcast(least)
    total = builder.select(builder.icmp_signed("<=", length, zero), zero, count)
    end = builder.append_basic_block("end")
    switch = builder.switch(height, end)
    for n in range(1, ROWS + 1):
        begin, run_head, run_body, step_body, run_end, store = (
            builder.append_basic_block(f"{name}{n}")
            for name in ("begin", "run_head", "run_body", "step", "run_end", "store")
        )
        switch.add_case(INDEX(n), begin)
        cells = [(r, half) for r in range(n) for half in (0, 1)]
        builder.position_at_end(begin)
        builder.branch(run_head)

        builder.position_at_end(run_head)
        run, seen = builder.phi(INDEX), builder.phi(INDEX)
        sums = [builder.phi(vector) for _ in cells]
        for phi, value in zip((run, seen, *sums), (zero, zero, *[ir.Constant(vector, None)] * len(cells))):
            phi.add_incoming(value, begin)
        builder.cbranch(builder.icmp_signed("<", run, total), run_body, store)

        builder.position_at_end(run_body)
        offset = builder.load(builder.gep(runs, [run]))
        builder.branch(step_body)

        builder.position_at_end(step_body)
        step, source, weights = builder.phi(INDEX), builder.phi(INDEX), builder.phi(INDEX)
        inner = [builder.phi(vector) for _ in cells]
        for phi, value in zip((step, source, weights, *inner), (zero, offset, seen, *sums)):
            phi.add_incoming(value, run_body)
        row_of_b = [builder.load(place(b, weights, half), align=size) for half in (0, 1)]
        added = []
        for r in range(n):
            value = broadcast(builder.load(builder.gep(a, [builder.add(source, builder.mul(INDEX(r), a_row))])))
            for half in (0, 1):
                product = builder.fmul(value, row_of_b[half], flags=["contract"])
                added.append(builder.fadd(product, inner[2 * r + half], flags=["contract"]))
        after = builder.add(step, one), builder.add(source, a_step), builder.add(weights, b_step)
        for phi, value in zip((step, source, weights, *inner), (*after, *added)):
            phi.add_incoming(value, step_body)
        builder.cbranch(builder.icmp_signed("<", after[0], length), step_body, run_end)

        builder.position_at_end(run_end)
        for phi, value in zip((run, seen, *sums), (builder.add(run, one), after[2], *added)):
            phi.add_incoming(value, run_end)
        builder.branch(run_head)

        builder.position_at_end(store)
        for (r, half), value in zip(cells, sums):
            before = builder.load(place(start, builder.mul(INDEX(r), start_row), half), align=size)
            value = builder.fadd(value, before)
            value = builder.select(builder.fcmp_ordered("<", value, floor), floor, value)
            builder.store(value, place(out, builder.mul(INDEX(r), out_row), half), align=size)
        builder.branch(end)
    builder.position_at_end(end)
    builder.ret_void()
    return optimized(llvmlite.binding.parse_assembly(str(module)))


@instructions
def transpose(typingctx, a, at, a_row, out, out_at, out_row):
    """out[out_at + i * out_row + j] = a[at + j * a_row + i] for i and j < columns(dtype) / 2, taken as flat."""
    from numba import types

    def generate(context, builder, signature, values):
        real = context.get_value_type(out.dtype)
        size = 4 if out.dtype is types.float32 else 8
        lanes = VECTOR_BYTES // size
        vector, index = ir.VectorType(real, lanes), ir.IntType(64)

        def places(array, at, row):
            base = context.make_array(signature.args[array])(context, builder, values[array]).data
            for i in range(lanes):
                place = builder.gep(base, [builder.add(values[at], builder.mul(index(i), values[row]))])
                yield builder.bitcast(place, vector.as_pointer())

        rows = [builder.load(place, align=size) for place in places(0, 1, 2)]
        half = lanes // 2
        low = [lane for i in range(half) for lane in (i, lanes + i)]
        high = [lane + half for lane in low]
        for _ in range(lanes.bit_length() - 1):  # each round interleaves row i with the one half of them further on
            rows = [
                builder.shuffle_vector(rows[i], rows[i + half], ir.Constant(ir.VectorType(ir.IntType(32), lanes), mask))
                for i in range(half)
                for mask in (low, high)
            ]
        for place, row in zip(places(3, 4, 5), rows):
            builder.store(row, place, align=size)
        return context.get_dummy_value()

    index = types.int64
    return types.void(a, index, index, out, index, index), generate
