"""Matrix products on the host: tiles whose sums stay in registers while they walk over what they multiply.

One operand is read value by value, the other in vectors along its columns. Both are read where they lie; only columns
that are steps apart in memory, or too few for a tile, are laid in panels before.
"""

import numpy as np

from dlgpu.backend.cpu.arrays import by_reference, compiled, contiguous
from dlgpu.backend.cpu.jit import jit, sum_jit
from dlgpu.backend.cpu.threads import THREADS, share
from dlgpu.backend.cpu.tile import ROWS, VECTOR_BYTES, code_of, columns, tile, transpose
from dlgpu.backend.recorder import empty
from dlgpu.backend.reference import linear as reference

GRAIN = 1 << 22  # multiplications that are worth a thread
DEPTH = 256  # terms of the sums that are taken together, and ...
PANELS = 8  # ... panels of columns: what a core's cache holds
PAGE = 4096  # bytes: rows so far apart take each other's place in the nearest cache
CHUNK = 4096  # sums that stay in a core's nearest cache


@reference.matmul.on("cpu")
def matmul(a, b):
    if a.ndim != 2 or b.ndim != 2 or not compiled(a, b):
        return by_reference(reference.matmul, a, b)
    return product(a, b)


def product(a, b, bias=None, least=-np.inf):
    """max(least, a @ b + bias), for two matrices of one dtype, float32 or float64, and a bias for each column."""
    (rows, inner), width, dtype = a.shape, b.shape[1], a.dtype
    out = empty((rows, width), dtype)
    if not out.size:
        return out
    wide = columns(dtype)
    swapped = width <= wide // 2 and rows > width  # vectors along so few columns would be empty for the most part
    one, many = (_flat(b.T), _flat(a.T)) if swapped else (_flat(a), _flat(b))
    if swapped:
        rows, width = width, rows
    panels, tiles = -(-width // wide), -(-rows // ROWS)
    lanes = min(THREADS, max(panels, tiles), 1 + rows * width * inner // GRAIN)
    strip, starts = ROWS * wide, wide * (1 if bias is None else rows if swapped else panels)
    apart = ROWS * (min(inner, DEPTH) + wide) if one[2] == 1 and one[1] * dtype.itemsize % PAGE == 0 else 0
    laid = min(inner, DEPTH) * (1 if many[2] == 1 else min(panels, PANELS)) + wide // 2  # rows, and a square's
    scratch = empty((lanes, strip + starts + apart + laid * wide), dtype)
    bias = out[0, :0] if bias is None else contiguous(bias)
    share(
        _products, lanes, 1, *one, *many, bias, out.reshape(-1), swapped, rows, width, inner,
        strip + starts, apart, dtype.type(least), scratch, code_of(dtype),
    )  # fmt: skip
    return out


def _flat(matrix):
    """Its values as a flat array, and how many of them lie between its rows and between its columns."""
    rows, width = matrix.shape
    if matrix.flags.c_contiguous:
        return matrix.reshape(-1), width, 1
    if matrix.flags.f_contiguous:
        return matrix.T.reshape(-1), 1, rows
    return contiguous(matrix).reshape(-1), width, 1


@jit
def _lay_many(v, at, step, column, out, to, depth, count):
    """Some columns of v in panels: out[to + (p * depth + k) * wide + f] = v[at + k * step + (p * wide + f) * column]

    for k < depth and p * wide + f < count; zeros beyond, in the last panel: denormal numbers there would be slow.
    """
    wide = 2 * VECTOR_BYTES // out.itemsize
    lanes, panels, rest = wide // 2, count // wide, count % wide
    transposed = column != 1
    for k in range(0 if transposed else depth):
        for p in range(panels):
            line, values = out[to + (p * depth + k) * wide :], v[at + k * step + p * wide :]
            for f in range(wide):
                line[f] = values[f]
    done = count - rest
    if transposed and depth < lanes:  # squares are longer than needed: what comes beyond goes where others follow
        done = count // lanes * lanes
        while done and at + (done - 1) * column + lanes > len(v):
            done -= lanes
    elif transposed and rest >= lanes:
        done = count
    for begin in range(0, done if transposed else 0, lanes):
        f = min(begin, done - lanes)  # the last squares overlap those before
        first = to + f // wide * depth * wide + f % wide
        for at_k in range(0, depth, lanes):
            k = max(0, min(at_k, depth - lanes))
            transpose(v, at + k * step + f * column, column, out, first + k * wide, wide)
    for f in range(done, count):
        line, values = out[to + f // wide * depth * wide + f % wide :], v[at + f * column :]
        for k in range(depth):
            line[k * wide] = values[k * step]
    for k in range(depth if rest else 0):
        line = out[to + (panels * depth + k) * wide :]
        for f in range(rest, wide):
            line[f] = 0


@jit
def _move(strip, out, at, out_row, out_column, high, count, wide, inward):
    """The first `count` columns of each row of the strip, from or to where they belong in out."""
    for r in range(high):
        line, values = strip[r * wide :], out[at + r * out_row :]
        if inward:
            for f in range(count):
                line[f] = values[f * out_column]
        elif out_column == 1:
            for f in range(count):
                values[f] = line[f]
        else:
            for f in range(count):
                values[f * out_column] = line[f]


@sum_jit
def _dot(a, b, length):
    total = a.dtype.type(0)
    for k in range(length):
        total += a[k] * b[k]
    return total


@jit
def _one_row(s, v, step, column, out, low, high, inner):
    """out[c] = the sum over k of s[k] * v[k * step + c * column] for c from low to high; v is read once, in order."""
    if column != 1:
        for c in range(low, high):
            out[c] = _dot(s, v[c * column :], inner)
        return
    for first in range(low, high, CHUNK):
        line = out[first : min(first + CHUNK, high)]
        for c in range(len(line)):
            line[c] = 0
        for k in range(0, inner // 4 * 4, 4):
            a, b, at = s[k : k + 4], v[k * step + first :], len(line)
            b0, b1, b2, b3 = b[:at], b[step : step + at], b[2 * step : 2 * step + at], b[3 * step : 3 * step + at]
            a0, a1, a2, a3 = a[0], a[1], a[2], a[3]
            for c in range(len(line)):
                line[c] += (a0 * b0[c] + a1 * b1[c]) + (a2 * b2[c] + a3 * b3[c])
        for k in range(inner // 4 * 4, inner):
            a0, b0 = s[k], v[k * step + first :]
            for c in range(len(line)):
                line[c] += a0 * b0[c]


@jit
def _products(
    s, s_row, s_step, v, v_step, v_column, bias, out, swapped, rows, width, inner, at_rows, apart, least, scratch, code,
    lane, end,
):  # fmt: skip
    """A lane is what one thread does: some of the rows, or of the columns.

    out[r, c] = max(least, bias + sum over k of s[r * s_row + k * s_step] * v[k * v_step + c * v_column]); out is its
    transpose if `swapped`. Each sum is taken in the order of k, from block to block in out, whoever takes it.
    """
    lanes, wide = len(scratch), 2 * VECTOR_BYTES // out.itemsize
    panels, tiles = -(-width // wide), -(-rows // ROWS)
    first_panel, last_panel, first_tile, last_tile = 0, panels, 0, tiles
    if tiles >= panels and rows > 1:
        first_tile, last_tile = lane * tiles // lanes, end * tiles // lanes
    else:
        first_panel, last_panel = lane * panels // lanes, end * panels // lanes
    if rows == 1:
        low, high = first_panel * wide, min(last_panel * wide, width)
        _one_row(s, v, v_step, v_column, out, low, high, inner)
        for c in range(low, high):
            value = out[c] + bias[0 if swapped else c] if len(bias) else out[c]
            out[c] = least if value < least else value
        return
    scratch = scratch[lane]
    at_start = ROWS * wide
    scratch[at_start:at_rows] = 0
    at_laid = at_rows + apart
    start_row, start_column = 0, 0
    if len(bias) and swapped:
        start_row = wide
        for r in range(rows):
            for f in range(wide):
                scratch[at_start + r * wide + f] = bias[r]
    elif len(bias):
        start_column = 1
        for c in range(width):
            scratch[at_start + c] = bias[c]
    out_row, out_column = (1, rows) if swapped else (width, 1)
    blocks = max(1, -(-inner // DEPTH))
    for panel in range(first_panel, last_panel, PANELS):
        beyond = min(panel + PANELS, last_panel)
        for block in range(blocks):
            k = block * inner // blocks
            depth = (block + 1) * inner // blocks - k
            laid_panel = panel if v_column != 1 else max(panel, width // wide)  # the first that lies in scratch
            v_at, count = k * v_step + laid_panel * wide * v_column, min(beyond * wide, width) - laid_panel * wide
            if count > 0:
                _lay_many(v, v_at, v_step, v_column, scratch, at_laid, depth, count)
            for t in range(first_tile, last_tile):
                r = t * rows // tiles
                tall = (t + 1) * rows // tiles - r
                at_s, row_s = r * s_row + k * s_step, s_row
                if apart:
                    _move(scratch[at_rows:], s, at_s, s_row, 1, tall, depth, depth + wide, True)
                    at_s, row_s = at_rows, depth + wide
                for p in range(panel, beyond):
                    count, at = min(wide, width - p * wide), r * out_row + p * wide * out_column
                    first, in_panel, whole = block == 0, p >= laid_panel, count == wide and out_column == 1
                    if not (whole or first):
                        _move(scratch, out, at, out_row, out_column, tall, count, wide, True)
                    tile(
                        code, tall, out if whole else scratch, at if whole else 0, out_row if whole else wide,
                        out if whole and not first else scratch,
                        at_start + r * start_row + p * wide * start_column if first else at if whole else 0,
                        start_row if first else out_row if whole else wide,
                        scratch if apart else s, at_s, row_s, s_step, None, 1, depth, scratch if in_panel else v,
                        at_laid + (p - laid_panel) * depth * wide if in_panel else k * v_step + p * wide,
                        wide if in_panel else v_step, least if block == blocks - 1 else -np.inf,
                    )  # fmt: skip
                    if not whole:
                        _move(scratch, out, at, out_row, out_column, tall, count, wide, False)
