"""The loops of convolutions on a CPU: bands of images through tiles."""

from typing import NamedTuple

import numpy as np

from dlgpu.backend.cpu.jit import jit
from dlgpu.backend.cpu.tile import ROWS, tile


class Walk(NamedTuple):
    """How the tiles go over images: integers that compiled loops read.

    Output (row, column) sees, at (i, j), the source's (row * row_stride + row_offset + i, column * column_stride +
    column_offset + j), where i < span. What it sees is cut into runs of `length` values that lie side by side.
    """

    height: int
    width: int
    channels: int
    groups: int
    depth: int  # channels of a group
    rows: int  # of the output
    columns: int
    row_stride: int
    column_stride: int
    row_offset: int
    column_offset: int
    span: int
    pitch: int  # values from a row of the source, or of its padded copy, to the next
    padded: int  # columns of the copy; 0 if the source is read as it is
    runs: int
    length: int
    filters: int  # of a group
    bands: int
    band: int  # rows of the output in one
    out_start: int
    out_image: int  # values from an image of the output to the next, ...
    out_row: int
    out_column: int


@jit
def pack(kernel, rows, columns, swapped, groups, bias, panels, start):
    """panels[block, (i, j, c), f] = kernel[rows[i], columns[j], c, f] for each group's blocks of filters; start: bias.

    With zeros beyond the last filter of a group.
    """
    blocks, wide = start.shape
    inner = kernel.shape[3] // groups if swapped else kernel.shape[2]
    filters = kernel.shape[2] if swapped else kernel.shape[3] // groups
    for block in range(blocks):
        group, begin = divmod(block, blocks // groups)
        begin *= wide
        count = min(wide, filters - begin)
        start[block] = 0
        for f in range(count if len(bias) else 0):
            start[block, f] = bias[group * filters + begin + f]
        k = 0
        for i in rows:
            for j in columns:
                for c in range(inner):
                    if swapped:
                        for f in range(count):
                            panels[block, k, f] = kernel[i, j, begin + f, group * inner + c]
                    else:
                        for f in range(count):
                            panels[block, k, f] = kernel[i, j, c, group * filters + begin + f]
                    panels[block, k, count:] = 0
                    k += 1


@jit
def _copy_band(x, mask, masked, scratch, walk, image, first, rows):
    """Rows of an image to scratch, with zeros around it, as a band that begins at output row `first` sees them."""
    zero = x.dtype.type(0)
    top = first * walk.row_stride + walk.row_offset
    left = -walk.column_offset
    begin, end = min(walk.padded, max(0, left)), max(0, min(walk.padded, walk.width + left))
    end = max(begin, end)
    for r in range((rows - 1) * walk.row_stride + walk.span):
        to = scratch[r * walk.pitch : (r + 1) * walk.pitch]
        row = top + r
        if row < 0 or row >= walk.height:
            to[:] = zero
            continue
        to[: begin * walk.channels] = zero
        to[end * walk.channels :] = zero
        at = ((image * walk.height + row) * walk.width + begin - left) * walk.channels
        count = (end - begin) * walk.channels
        _copy_masked(to[begin * walk.channels :], x[at:], mask[at:], masked, count)


@jit
def _copy_masked(out, values, signs, masked, count):
    """The values, 0 where their sign is not positive."""
    zero, one = values.dtype.type(0), values.dtype.type(1)
    if masked:
        for k in range(count):
            out[k] = values[k] * (one if signs[k] > zero else zero)
    else:
        for k in range(count):
            out[k] = values[k]


@jit
def _band_of(unit, x, mask, masked, scratch, walk):
    """A unit's image, its first row of the output, how many, and where what they see begins: in scratch if padded."""
    image, band = divmod(unit, walk.bands)
    first = band * walk.band
    rows = min(walk.band, walk.rows - first)
    origin = (image * walk.height + first * walk.row_stride + walk.row_offset) * walk.pitch
    origin += walk.column_offset * walk.channels
    if walk.padded:
        _copy_band(x, mask, masked, scratch, walk, image, first, rows)
        origin = 0
    return image, first, rows, origin


@jit
def gather_bands(x, mask, masked, out, panels, start, runs, scratch, walk, units, least, code, lane, end):
    """A lane is what one thread does: some of the units. Each of these is one band of one image."""
    lanes, wide, step = len(scratch), panels.shape[2], walk.column_stride * walk.channels
    until, scratch = end * units // lanes, scratch[lane]
    spare = scratch.size - ROWS * wide
    source = scratch if walk.padded else x
    tiles = (walk.columns + ROWS - 1) // ROWS
    for unit in range(lane * units // lanes, until):
        image, first, rows, origin = _band_of(unit, x, mask, masked, scratch, walk)
        for block in range(len(panels)):
            group, low = divmod(block, len(panels) // walk.groups)
            low *= wide
            count = min(wide, walk.filters - low)
            at_block = walk.out_start + image * walk.out_image + group * walk.filters + low
            for r in range(rows):
                at_row = at_block + (first + r) * walk.out_row
                from_row = origin + r * walk.row_stride * walk.pitch + group * walk.depth
                for t in range(tiles):
                    p = t * walk.columns // tiles
                    high = (t + 1) * walk.columns // tiles - p
                    at = at_row + p * walk.out_column
                    whole = count == wide
                    tile(
                        code, high,
                        out if whole else scratch, at if whole else spare, walk.out_column if whole else wide,
                        start, block * wide, 0,
                        source, from_row + p * step, step, 1,
                        runs, walk.runs, walk.length, panels, block * panels.shape[1] * wide, wide, least,
                    )  # fmt: skip
                    if not whole:
                        for q in range(high):
                            for f in range(count):
                                out[at + q * walk.out_column + f] = scratch[spare + q * wide + f]


@jit
def sum_parts(x, grad, mask, masked, sums, ones, runs, rows, images, grads, walk, units, code, lane, end):
    """sums[part]: of each block of filters the gradient by the kernel and, in its last row, by the bias."""
    parts, blocks, deep, wide = sums.shape
    first_part, end_part = lane * parts // len(images), end * parts // len(images)
    images, grads = images[lane], grads[lane]
    source = images if walk.padded else x
    heights = (walk.length + ROWS - 1) // ROWS
    least = x.dtype.type(-np.inf)
    filters = walk.filters * walk.groups
    copied = masked or walk.filters % wide != 0  # what a tile reads beyond the last filter must be in memory
    for part in range(first_part, end_part):
        sums[part] = x.dtype.type(0)
        for unit in range(part * units // parts, (part + 1) * units // parts):
            image, first, high, origin = _band_of(unit, x, x, False, images, walk)
            values, at_values = grad, (image * walk.rows + first) * walk.columns * filters
            if copied:
                values = grads
                _copy_masked(grads, grad[at_values:], mask[at_values:], masked, high * walk.columns * filters)
                at_values = 0
            for block in range(blocks):
                group, low = divmod(block, blocks // walk.groups)
                from_values = at_values + group * walk.filters + low * wide
                at = ((part * blocks + block) * deep + deep - 1) * wide
                tile(
                    code, 1, sums, at, wide, sums, at, wide, ones, 0, 0, 0, rows, 1, high * walk.columns,
                    values, from_values, filters, least,
                )  # fmt: skip
                for run in range(walk.runs):
                    for t in range(heights):
                        k = t * walk.length // heights
                        tall = (t + 1) * walk.length // heights - k
                        at = ((part * blocks + block) * deep + run * walk.length + k) * wide
                        tile(
                            code, tall, sums, at, wide, sums, at, wide,
                            source, origin + runs[run] + group * walk.depth + k, 1, walk.column_stride * walk.channels,
                            rows, high, walk.columns, values, from_values, filters, least,
                        )  # fmt: skip


@jit
def add_parts(sums, by_kernel, by_bias, filters, begin, end):
    """The sum of all parts, in order."""
    parts, blocks, deep, wide = sums.shape
    groups = len(by_bias) // filters
    for block in range(begin, end):
        group, first = divmod(block, blocks // groups)
        first *= wide
        count = min(wide, filters - first)
        at = group * filters + first
        for part in range(1, parts):
            for k in range(deep):
                for f in range(wide):
                    sums[0, block, k, f] += sums[part, block, k, f]
        for k in range(deep - 1):
            for f in range(count):
                by_kernel[k, at + f] = sums[0, block, k, f]
        for f in range(count):
            by_bias[at + f] = sums[0, block, deep - 1, f]
