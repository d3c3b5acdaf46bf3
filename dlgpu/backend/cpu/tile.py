"""A small matrix product whose result stays in registers: what convolutions and products of matrices are made of.

Numba keeps no array in registers, so these two functions are written as LLVM instructions on vectors.
"""

import llvmlite.binding
from llvmlite import ir

from dlgpu.backend.cpu.native import instructions

_features = llvmlite.binding.get_host_cpu_features()
_many = bool(_features.get("avx512f")) or llvmlite.binding.get_process_triple().startswith(("aarch64", "arm64"))
VECTOR_BYTES = 64 if _features.get("avx512f") else 32 if _features.get("avx") else 16
ROWS = 14 if _many else 6  # of a tile, at most: with its two columns of vectors they fill the vector registers


def columns(dtype):
    """The number of columns of a tile: two vectors of the dtype."""
    return 2 * VECTOR_BYTES // dtype.itemsize


@instructions
def tile(
    typingctx, rows, out, at, out_row, start, from_, start_row, a, a_at, a_row, a_step, runs, count, length, b, b_at,
    b_step, least,
):  # fmt: skip
    """out[at + r * out_row + f] = max(least, start[from_ + r * start_row + f] + the sum over run and step of
    a[a_at + runs[run] + r * a_row + step * a_step] * b[b_at + (run * length + step) * b_step + f])

    for r < rows <= ROWS and f < columns(dtype), where run < count and step < length. All arrays are contiguous and
    taken as flat; NaN is not hidden by `least`. No `runs` (None) stands for zeros.
    """
    arguments = (
        rows, out, at, out_row, start, from_, start_row, a, a_at, a_row, a_step, runs, count, length, b, b_at, b_step,
        least,
    )  # fmt: skip
    from numba import types

    dtype = out.dtype

    def generate(context, builder, signature, values):
        def pointer(i, dtype):
            array = context.make_array(signature.args[i])(context, builder, values[i]).data
            return builder.bitcast(array, dtype.as_pointer())

        real, index = context.get_value_type(dtype), ir.IntType(64)
        bytes_ = 4 if dtype is types.float32 else 8
        lanes = VECTOR_BYTES // bytes_
        vector, splat = ir.VectorType(real, lanes), ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
        undefined = ir.Constant(vector, ir.Undefined)
        zero, one = index(0), index(1)
        height, at, out_row, from_, start_row = values[0], values[2], values[3], values[5], values[6]
        a_at, a_row, a_step, count, length, b_at, b_step = *values[8:11], *values[12:14], *values[15:17]  # type: ignore[misc]
        out, start, a, b = (pointer(i, real) for i in (1, 4, 7, 14))
        runs = None if signature.args[11] is types.none else pointer(11, index)

        def broadcast(value):
            return builder.shuffle_vector(builder.insert_element(undefined, value, ir.IntType(32)(0)), undefined, splat)

        def load(base, i, half):
            place = builder.gep(base, [builder.add(i, index(half * lanes))])
            return builder.load(builder.bitcast(place, vector.as_pointer()), align=bytes_)

        end = builder.append_basic_block("end")
        switch = builder.switch(height, end)
        floor = None
        for n in range(1, ROWS + 1):
            begin, run_head, run_body, step_body, run_end, store = (
                builder.append_basic_block(f"{name}{n}")
                for name in ("begin", "run_head", "run_body", "step", "run_end", "store")
            )
            switch.add_case(index(n), begin)
            builder.position_at_end(begin)
            floor = broadcast(values[17])
            cells = [(r, half) for r in range(n) for half in (0, 1)]
            empty = builder.icmp_signed("<=", length, zero)
            total = builder.select(empty, zero, count)
            builder.branch(run_head)

            builder.position_at_end(run_head)
            run, seen = builder.phi(index), builder.phi(index)
            sums = [builder.phi(vector) for _ in cells]
            for phi, value in zip((run, seen, *sums), (zero, b_at, *[ir.Constant(vector, None)] * len(cells))):
                phi.add_incoming(value, begin)
            builder.cbranch(builder.icmp_signed("<", run, total), run_body, store)

            builder.position_at_end(run_body)
            offset = a_at if runs is None else builder.add(a_at, builder.load(builder.gep(runs, [run])))
            builder.branch(step_body)

            builder.position_at_end(step_body)
            step, source, weights = builder.phi(index), builder.phi(index), builder.phi(index)
            inner = [builder.phi(vector) for _ in cells]
            for phi, value in zip((step, source, weights, *inner), (zero, offset, seen, *sums)):
                phi.add_incoming(value, run_body)
            row_of_b = [load(b, weights, half) for half in (0, 1)]
            added = []
            for r in range(n):
                value = builder.load(builder.gep(a, [builder.add(source, builder.mul(index(r), a_row))]))
                value = broadcast(value)
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
                value = builder.fadd(value, load(start, builder.add(from_, builder.mul(index(r), start_row)), half))
                value = builder.select(builder.fcmp_ordered("<", value, floor), floor, value)
                place = builder.add(builder.add(at, builder.mul(index(r), out_row)), index(half * lanes))
                place = builder.bitcast(builder.gep(out, [place]), vector.as_pointer())
                builder.store(value, place, align=bytes_)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    given = [types.int64 if isinstance(v, types.Integer) else v for v in arguments]
    given[-1] = dtype
    return types.void(*given), generate


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
