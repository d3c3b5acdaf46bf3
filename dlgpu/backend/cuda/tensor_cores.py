"""Tensor cores: for which arrays, with which tiles, and the launch of kernels on tiles.cuh.

A tile's sums are taken in the same order whatever its size, so that the choice, by rule or by measuring, is one of
speed alone: it changes no bit of a result.
"""

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from dlgpu.backend.cuda.source import has_tensor_cores, source
from dlgpu.backend.devices import device_of
from dlgpu.backend.precision import tf32_allowed

STAGE = 64  # bytes of depth
WORD = 16  # bytes, the longest that are copied at once
ENOUGH = 128  # blocks that keep a GPU busy; with fewer, tiles are smaller


class Tile(NamedTuple):
    """Sizes of a block's tile of sums, the rows of it that a warp has, and the stages that are in shared memory."""

    rows: int
    columns: int
    warp_rows: int
    stages: int

    @property
    def threads(self) -> int:
        return self.rows // self.warp_rows * self.columns  # a warp has 32 columns

    def shared(self, itemsize: int, left_deep: bool, right_deep: bool) -> int:
        """Bytes of the stages, as tiles.cuh lays them out."""
        sizes = (self.rows, left_deep), (self.columns, right_deep)
        return self.stages * sum(n * (STAGE + 16) if deep else STAGE * (n + 8) for n, deep in sizes)

    def __str__(self) -> str:
        return ",".join(map(str, self))


# From the largest, which reads each value least often, to the smallest, of which there are most.
TILES = Tile(128, 128, 64, 3), Tile(128, 64, 64, 3), Tile(64, 64, 32, 4), Tile(128, 32, 32, 4), Tile(64, 32, 32, 4)


def suits(x: Any) -> bool:
    """Whether products of x are taken on tensor cores: 16-bit numbers, and float32 where TF32 is allowed."""
    narrow = x.dtype.itemsize == 2
    return (narrow or (x.dtype == np.float32 and tf32_allowed())) and has_tensor_cores(device_of(x))


def tile_for(rows: int, columns: int, others: int = 1) -> Tile:
    """The tile for that many sums, by rule: the largest that wastes little and leaves enough blocks.

    Args:
        rows, columns: of the sums.
        others: how many such products there are in a launch.
    """
    fitting = [t for t in TILES if t.columns <= 32 * -(-columns // 32)] or TILES[-1:]
    enough = (t for t in fitting if blocks_of(t, rows, columns) * others >= ENOUGH)
    return next(enough, fitting[-1])


def blocks_of(tile: Tile, rows: int, columns: int) -> int:
    """How many tiles cover the sums."""
    return -(-rows // tile.rows) * -(-columns // tile.columns)


def word(array: Any, *runs: int) -> int:
    """Bytes of the words in which an array can be copied, whose values lie together in runs of these lengths."""
    return WORD if math.gcd(_address(array), *(n * array.itemsize for n in runs)) % WORD == 0 else array.itemsize


def _address(array: Any) -> int:
    return array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr


@functools.cache
def _defines(tile: Tile, name: str, words: tuple[int, int]) -> tuple[str, ...]:
    return f"ACTIVATION={name}", f"TILE={tile}", f"LEFT_WORD={words[0]}", f"RIGHT_WORD={words[1]}"


def launch(kernel: str, tile: Tile, grid: Any, args: tuple, name: str, words: tuple[int, int], deep: tuple) -> None:
    """Launch a kernel of tensor_convolution.cu; `deep` says which factors lie so in shared memory."""
    dtype = args[0].dtype
    source("tensor_convolution.cu").launch(
        kernel,
        grid=grid,
        block=tile.threads,
        args=args,
        shared=tile.shared(dtype.itemsize, *deep),
        dtype=dtype,
        defines=_defines(tile, name, words),
    )
