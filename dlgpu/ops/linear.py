"""Matrix products."""

import math
from typing import Any

from dlgpu.backend.reference import linear as kernels
from dlgpu.ops.operands import fit, like, operands
from dlgpu.ops.shape import reshape, swapaxes
from dlgpu.tensor import Tensor, record


def matmul(a: Any, b: Any) -> Tensor:
    """The matrix product over the last two axes, which broadcasts over the others, as `numpy.matmul`."""
    a, b = operands(a, b)
    for name, x in (("first", a), ("second", b)):
        if not isinstance(x, Tensor) or x.ndim == 0:
            raise ValueError(f"matmul: the {name} operand needs at least one dimension")
    if a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise ValueError(f"matmul: inner dimensions differ: {a.shape} and {b.shape}")
    if b.ndim == 1:
        out = matmul(a, reshape(b, (b.size, 1)))
        return reshape(out, out.shape[:-1])
    if a.ndim == 1:
        out = matmul(reshape(a, (1, a.size)), b)
        return reshape(out, out.shape[:-2] + out.shape[-1:])
    if b.ndim == 2 and a.ndim > 2:  # one product over all rows, not one for each batch
        rows = math.prod(a.shape[:-1])
        return reshape(matmul(reshape(a, (rows, a.shape[-1])), b), (*a.shape[:-1], b.shape[-1]))
    by_a, by_b = like(a), like(b)
    return record(
        kernels.matmul(a.array, b.array),
        (a, b),
        (
            lambda grad: fit(matmul(grad, swapaxes(b, -1, -2)), by_a),
            lambda grad: fit(matmul(swapaxes(a, -1, -2), grad), by_b),
        ),
    )
