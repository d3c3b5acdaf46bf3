"""Tensor cores: for which arrays, with which tiles, and the launch of kernels on tiles.cuh.

A tile's sums are taken in the same order whatever its size, so that the choice, by rule or by measuring, is one of
speed alone: it changes no bit of a result.
"""

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from dlgpu.backend.cuda.source import has_tensor_cores, source
from dlgpu.backend.cuda.tuning import fastest
from dlgpu.backend.devices import device_of
from dlgpu.backend.precision import tf32_allowed

FILE = "tensor_convolution.cu"
DEEP = {  # which factors lie in shared memory with the values of a row or column of sums together
    "tensor_convolution_forward": (True, False),
    "tensor_convolution_pooled": (True, False),
    "tensor_convolution_data": (True, True),
    "tensor_convolution_weights": (False, False),
}
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

    def shared(self, left_deep: bool, right_deep: bool) -> int:
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


def tiles_for(rows: int, columns: int, others: int = 1) -> list[Tile]:
    """Tiles for that many sums; the first one is the rule's, the largest that leaves enough blocks.

    Args:
        rows, columns: of the sums.
        others: how many such products there are in a launch.
    """
    fitting = [t for t in TILES if t.columns <= 32 * max(1, -(-columns // 32))]
    enough = (t for t in fitting if blocks_of(t, rows, columns) * others >= ENOUGH)
    first = next(enough, fitting[-1])
    return [first, *(t for t in fitting if t != first)]


def blocks_of(tile: Tile, rows: int, columns: int) -> int:
    """How many tiles cover the sums."""
    return -(-rows // tile.rows) * -(-columns // tile.columns)


def launch(
    kernel: str, product: tuple[int, int, int], args: tuple, runs: tuple[int, int], name: str, slices: int = 1
) -> None:
    """Launch a kernel of tensor_convolution.cu with the fastest tile.

    Args:
        kernel: its name.
        product: rows and columns of the sums, and how many such products there are.
        args: the kernel's; the first two are the factors.
        runs: how many values of each factor lie together, at least.
        name: of the activation.
        slices: in which the terms are summed.
    """
    rows, columns, others = product
    dtype, code = args[0].dtype, source(FILE)
    words = word(args[0], runs[0]), word(args[1], runs[1])

    def run(tile: Tile) -> None:
        code.launch(
            kernel,
            grid=(blocks_of(tile, rows, columns) * others, slices),
            block=tile.threads,
            args=args,
            shared=tile.shared(*DEEP[kernel]),
            dtype=dtype,
            defines=defines(tile, name, words),
        )

    sizes = tuple(a for a in args if isinstance(a, int))
    key = kernel, dtype.name, sizes, name, words
    run(fastest(key, tiles_for(rows, columns, others * slices), run, device_of(args[0]), FILE))


def word(array: Any, run: int) -> int:
    """Bytes of the words in which an array can be copied whose values lie together in runs of that length."""
    address = array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr
    return WORD if math.gcd(address, run * array.itemsize) % WORD == 0 else array.itemsize


@functools.cache
def defines(tile: Tile, name: str, words: tuple[int, int]) -> tuple[str, ...]:
    """The macros of tensor_convolution.cu, for `Source.launch`."""
    return f"ACTIVATION={name}", f"TILE={tile}", f"LEFT_WORD={words[0]}", f"RIGHT_WORD={words[1]}"
