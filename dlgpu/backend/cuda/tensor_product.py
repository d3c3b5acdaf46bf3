"""Products of matrices on tensor cores: a dense layer is a convolution whose images are one pixel, and so are its
gradients. `a @ b` is its forward pass, `a @ b.T` the gradient by its inputs, `a.T @ b` the one by its kernel."""

from typing import Any

from dlgpu.backend.cuda.geometry import BLOCK, blocks_for, contiguous, empty
from dlgpu.backend.cuda.source import source
from dlgpu.backend.cuda.tensor_cores import TILES, blocks_of, launch, suits
from dlgpu.backend.reference.activation import FROM_INPUT

FEWEST = 8  # rows and columns; fewer would leave most of a tile empty, and sums of columns are none to round
LEAST = 32  # blocks of the smallest tile; with fewer, the plain kernel wins as it splits a sum among blocks
SHORT = 1024  # terms of a sum that one block may well walk over
SLICE = 512  # terms that a block sums where the terms are what there is most of
AT_MOST = 65535  # slices, the grid's second length


def product(
    a: Any, b: Any, turned: tuple[bool, bool], shape: tuple[int, ...], bias: Any, activation: str, sums: Any
) -> tuple[Any, Any] | None:
    """activation(a @ b + bias) and what its backward needs, or None if tensor cores are not to be used for it.

    Args:
        a: (rows, inner), or its transpose if turned[0].
        b: (inner, columns), or its transpose if turned[1].
        shape: of the result; (..., rows, columns), which has one matrix.
        sums: where the sums over b's rows are to be written, or None.
    """
    (rows, columns), inner = shape[-2:], a.shape[0 if turned[0] else 1]
    plain = bias is None and activation == "linear"
    if not suits(a) or all(turned) or (any(turned) and not plain) or not inner or min(rows, columns) < FEWEST:
        return None
    if sums is not None and not turned[0]:
        return None
    if not turned[0] and inner > SHORT and blocks_of(TILES[-1], rows, columns) < LEAST:
        return None
    out = empty(a, shape)
    pixel = 1, 1
    rest = (1, *pixel, *pixel, 0, 0, *pixel)  # groups, window, strides, padding, dilation
    if turned[0]:
        slices = min(-(-inner // SLICE), AT_MOST)
        length = -(-inner // slices)
        partial = empty(a, (slices, rows + 1, columns), "float32")
        args: tuple = a, b, partial, rows, sums is not None, length, inner, *pixel, rows, *pixel, columns, *rest
        launch("tensor_convolution_weights", (rows, columns, 1), args, (rows, columns), "linear", slices)
        joined = partial, out, sums, slices, rows, columns
        grid = blocks_for(partial[0].size)
        source("convolution.cu").launch("convolution_weights_sum", grid, BLOCK, joined, dtype=a.dtype)
        return out, out
    if turned[1]:
        args = a, b, out, rows, *pixel, columns, *pixel, inner, *rest
        launch("tensor_convolution_data", (rows, columns, 1), args, (inner, inner), "linear")
        return out, out
    z = empty(a, out.shape) if activation in FROM_INPUT else None
    args = a, b, contiguous(bias), out, z, rows, *pixel, inner, *pixel, columns, *rest
    launch("tensor_convolution_forward", (rows, columns, 1), args, (inner, columns), activation)
    return out, out if z is None else z
