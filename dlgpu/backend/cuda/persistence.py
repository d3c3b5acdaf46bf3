"""How a recurrent network is laid over the multiprocessors, so that its weights stay there for a whole sequence."""

import functools
import math
from dataclasses import dataclass

# By the bytes of a stored value, what blocks can be: threads at most, registers of each for weights, and samples in one
# pass at most. With more, registers would spill to memory.
BLOCKS = {
    2: ((256, 96, 4), (512, 40, 4), (1024, 16, 1)),
    4: ((256, 128, 4), (512, 64, 4), (1024, 16, 2)),
    8: ((256, 128, 4), (512, 48, 2)),
}
WARP, TEAM = 32, 4  # lanes; those for a unit, at least
KEPT = 2  # values that a block keeps of each unit and sample

# The tiles of tensor_recurrent.cuh, and what a warp holds of the depth at most, in instructions of DEPTH bytes.
TILE_ROWS, TILE_COLUMNS, HELD, DEPTH, STAGES = 32, 128, 16, 32, 4
# Multiply-adds of a step from which on tensor cores should win, by reckoning: on an H200, FMA units take 1 us for 15
# million, as the kernels use them; tensor cores next to nothing, but another barrier and sums that go through the
# cache, some 3 us a step.
LARGE = 1 << 26
FEWEST = 16  # samples; with fewer, a tile would be more than half empty
CACHE = 1 << 25  # bytes of sums that stay in a GPU's cache; what is more is better done by one product for each step


@dataclass(frozen=True)
class Layout:
    """Blocks that run a sequence.

    Attributes:
        slices: blocks that share samples; each has some of the units.
        groups: of so many blocks, each with samples of its own.
        width: units of a block.
        rows: samples of a block.
        stride: values of a vector that goes from step to step.
        threads: of a block.
        shared: bytes of shared memory of a block.
        shape: what the kernels are compiled for: threads at most, lanes for a unit, samples in a pass, registers.
    """

    slices: int
    groups: int
    width: int
    rows: int
    stride: int
    threads: int
    shared: int
    shape: tuple[int, int, int, int]


@functools.lru_cache(256)
def layout(batch: int, units: int, columns: int, depth: int, size: int, blocks: int, limit: int) -> Layout | None:
    """One block for all units, if it holds their weights; else as many as do, at work together.

    Of several ways to spread units and samples over the multiprocessors it takes one that leaves each the least work.

    Args:
        batch, units: of the network.
        columns: sums for each unit.
        depth: terms of a sum.
        size: bytes of a stored value.
        blocks: that run at once.
        limit: bytes of shared memory that a block can have.
    Returns:
        None if all multiprocessors together do not hold the weights.
    """
    spread = functools.partial(divided, batch, units, columns, depth, size, limit)
    enough = next((rows for rows in (1, 2) if -(-batch // rows) <= blocks), 4)  # samples that read a weight together
    for rows in range(enough, 0, -1):
        if alone := spread(1, -(-batch // rows)):
            return alone
    found = [spread(slices, min(batch, blocks // slices)) for slices in range(2, min(units, blocks) + 1)]
    return min(filter(None, found), key=lambda block: block.width * block.rows, default=None)


def divided(
    batch: int, units: int, columns: int, depth: int, size: int, limit: int, slices: int, groups: int
) -> Layout | None:
    """The layout of so many slices and groups; None if a block does not hold its share of the weights."""
    computed = max(4, size)
    width, share = -(-units // slices), -(-batch // groups)
    for most, registers, at_once in BLOCKS[size]:
        at_once = next((n for n in (1, 2) if share <= n <= at_once), at_once)
        rows = -(-share // at_once) * at_once
        team = TEAM
        while slices > 1 and team < WARP and 2 * team * width <= most:
            team *= 2
        together = 1 if columns > 1 else min(4, WARP // team)  # units whose teams read an input together
        threads, each = -(-team * width // WARP) * WARP, -(-depth // (together * team))
        stride = each * together * team
        sums = columns * together * computed // 4  # registers for a weight of each
        while registers >= 32 and registers // 2 >= each * sums:
            registers //= 2
        vectors = stride * (2 * rows if slices == 1 else at_once)
        spare = max(0, each - registers // sums) * columns * together * threads
        shared = (vectors + KEPT * rows * width) * computed + spare * size
        if threads <= most and shared <= limit:
            return Layout(slices, groups, width, rows, stride, threads, shared, (most, team, at_once, registers))
    return None


@dataclass(frozen=True)
class Tiles:
    """Blocks that run a sequence on tensor cores; each holds a tile of the weights.

    Attributes:
        across: tiles beside each other, of TILE_COLUMNS sums.
        slices: tiles above each other, which divide the depth.
        groups: of so many blocks, each with samples of its own.
        rows: samples of a block.
        each: instructions' depth of a warp, of which two share a tile's depth.
        stride: values of a vector that goes from step to step.
    """

    across: int
    slices: int
    groups: int
    rows: int
    each: int
    stride: int
    threads = 2 * TILE_COLUMNS

    @property
    def shared(self) -> int:
        """Bytes of shared memory of a block: stages of vectors, and what the halves of a tile exchange."""
        return STAGES * TILE_ROWS * (2 * self.each * DEPTH + 16) + TILE_ROWS // 2 * self.threads * 4

    @property
    def sums(self) -> tuple[int, int, int]:
        """The shape of what the tiles give in a step."""
        return self.slices, self.groups * self.rows, self.across * TILE_COLUMNS


def is_large(batch: int, depth: int, columns: int) -> bool:
    """Whether a step's product is one for tensor cores, where they may be used."""
    return batch >= FEWEST and batch * depth * columns >= LARGE


@functools.lru_cache(256)
def tiles(batch: int, depth: int, columns: int, size: int, blocks: int, limit: int) -> Tiles | None:
    """The tiles with which a block moves the fewest bytes in a step: vectors to its own, sums from all and to all.

    Args:
        batch: of the network.
        depth: terms of a sum.
        columns: sums for each sample.
        size, blocks, limit: as for `layout`.
    Returns:
        None if the registers of all multiprocessors do not hold the weights, or the cache not the sums.
    """
    across, found = -(-columns // TILE_COLUMNS), []
    for most in range(1, HELD + 1):
        slices = -(-depth * size // (2 * DEPTH * most))
        groups = min(blocks // (across * slices), -(-batch // TILE_ROWS))
        if groups:
            rows, each = -(-batch // (groups * TILE_ROWS)) * TILE_ROWS, -(-depth * size // (2 * DEPTH * slices))
            found.append(Tiles(across, slices, -(-batch // rows), rows, each, 2 * each * DEPTH // size * slices))

    def moved(plan: Tiles) -> float:
        sums = 2 * 4 * math.prod(plan.sums) / (plan.across * plan.slices * plan.groups)
        return plan.rows * 2 * plan.each * DEPTH + sums

    fitting = (plan for plan in found if plan.shared <= limit and 4 * math.prod(plan.sums) <= CACHE)
    return min(fitting, key=moved, default=None)


def shapes(size: int) -> list[str]:
    """The macro's values that take the most registers, for stored values of so many bytes."""
    found = [(most, TEAM, rows, registers) for most, registers, at_once in BLOCKS[size] for rows in (1, at_once)]
    most, registers, at_once = BLOCKS[size][0]
    return [",".join(map(str, shape)) for shape in (*found, (most, WARP, at_once, registers))]
