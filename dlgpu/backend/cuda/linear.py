"""Products of matrices on CUDA: by cuBLASLt where nvmath-python is installed, else by dlgpu's kernels.

A captured step can hold all of them, and cuBLAS through CuPy not. All steps use the same, captured or not, so that both
give the same bits. Without cuBLASLt single matrices that tensor cores may multiply go to them; stacks do not.
"""

import math

import numpy as np

from dlgpu.backend.cuda import cublaslt, tensor_product
from dlgpu.backend.cuda.geometry import BLOCK, blocks_for, contiguous, empty, empty_wide, lay_out
from dlgpu.backend.cuda.source import STORAGE, source
from dlgpu.backend.dispatch import array_namespace
from dlgpu.backend.reference import linear as reference
from dlgpu.backend.reference.activation import FROM_INPUT

SIDE = 16  # threads along each side of a block
ENOUGH = 128  # blocks that keep a GPU busy; with fewer, tiles are smaller, and the inner dimension is split
DEEP = 256  # terms of a sum that are worth a block
MAX_STACK = 65535  # the grid's second length


@reference.matmul.on("cuda")
def matmul(a, b):
    if a.dtype != b.dtype or a.dtype.name not in STORAGE:
        return reference.matmul.reference(a, b)
    return product(a, b)[0]


def product(a, b, bias=None, activation="linear", masked=False):
    """activation(a @ b + bias) over the last two axes, and what the activation's backward needs, as `dense` has it.

    With `masked` cuBLASLt keeps a mask of relu.
    """
    if cublaslt.serves(a) and (masked or cublaslt.fuses(a, b.shape[-1], activation)):
        found = cublaslt.product(a, b, bias, activation, masked=masked)
        if found is not None:
            return found
    return _product(a, b, bias, activation)


def product_with_slope(a, b, saved, activation):
    """a @ b of two matrices, times the activation's derivative by what its backward needs, without cuBLASLt.

    Returns:
        the product, and whether the derivative is in it: tensor cores leave it out.
    """
    made, whole = _product(a, b, slope=activation, saved=contiguous(saved))
    return made, whole is not None


def _product(a, b, bias=None, activation="linear", slope="linear", saved=None, sums=None):
    """As `product`, by dlgpu's kernels. The sums over b's rows are written to `sums`, of single matrices."""
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    stack = math.prod(lead)
    (a, a_apart, a_turned), (b, b_apart, b_turned) = (lay_out(x, lead) for x in (a, b))
    rows, inner = a.shape[-2:][:: -1 if a_turned else 1]
    columns = b.shape[-2 if b_turned else -1]
    if stack == 1:
        found = tensor_product.product(a, b, (a_turned, b_turned), (*lead, rows, columns), bias, activation, sums)
        if found is not None:
            return found if slope == "linear" else (found[0], None)
    out = empty(a, (*lead, rows, columns))
    z = empty(a, out.shape) if activation in FROM_INPUT else None
    each, tiles, splits = plan(rows, columns, inner, stack)
    size = splits * columns * (stack * rows + (sums is not None))
    partial = empty_wide(a, (size,)) if splits > 1 else None
    bias = contiguous(bias)
    code, macros = source("linear.cu"), (f"EACH={each}", f"ACTIVATION={activation}", f"SLOPE={slope}")
    sizes = rows, columns, inner, a_turned, b_turned, a_apart, b_apart, stack, splits
    grid = tiles, min(stack * splits, MAX_STACK)
    args = a, b, bias, saved, partial, z, out, sums, *sizes
    code.launch("product", grid, (SIDE, SIDE), args, dtype=a.dtype, defines=macros)
    if partial is not None:
        args = partial, bias, saved, z, out, sums, rows * columns, columns, splits, out.size
        code.launch("join_splits", blocks_for(out.size + columns), BLOCK, args, dtype=a.dtype, defines=macros)
    return out, out if z is None else z


def product_and_sums(a, b):
    """a @ b of two matrices, and the sums over b's rows."""
    found = cublaslt.product(a, b, sums=True)
    if found is not None:
        return found
    if cublaslt.serves(a) or not len(a):  # where no block could add them up
        return product(a, b)[0], column_sums(b)
    sums = empty(b, b.shape[1:])
    return _product(a, b, sums=sums)[0], sums


def column_sums(x):
    """The sums over the rows of x (rows, columns), in the precision that products have."""
    return product(array_namespace(x).ones((1, len(x)), x.dtype), x)[0][0]


def plan(rows, columns, inner, stack):
    """How many sums a thread has along each side, how many tiles that makes, and in how many parts sums are taken.

    It goes by the sizes alone, so that sums are taken in the same order everywhere.
    """
    for each in (4, 2, 1):
        tiles = -(-rows // (SIDE * each)) * -(-columns // (SIDE * each))
        if tiles * stack >= ENOUGH:
            break
    splits = min(ENOUGH // max(1, tiles * stack), inner // DEEP)
    return each, tiles, max(1, splits)
