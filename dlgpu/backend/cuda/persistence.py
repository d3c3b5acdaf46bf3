"""How a recurrent network is laid over the multiprocessors, so that its weights stay there for a whole sequence."""

import functools
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


def shapes(size: int) -> list[str]:
    """The macro's values that take the most registers, for stored values of so many bytes."""
    found = [(most, TEAM, rows, registers) for most, registers, at_once in BLOCKS[size] for rows in (1, at_once)]
    most, registers, at_once = BLOCKS[size][0]
    return [",".join(map(str, shape)) for shape in (*found, (most, WARP, at_once, registers))]
