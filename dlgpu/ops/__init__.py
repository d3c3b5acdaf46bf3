"""Differentiable operations on Tensors, with NumPy's names and broadcasting; they give Tensor its operators."""

import functools
from typing import Any

from dlgpu.ops.activation import dense, erf, erfc, relu, sigmoid, softplus
from dlgpu.ops.convolution import conv1d, conv2d, conv2d_transpose
from dlgpu.ops.differentiation import custom_vjp, grad, value_and_grad
from dlgpu.ops.elementwise import (
    absolute,
    add,
    arctan,
    clip,
    cos,
    divide,
    equal,
    exp,
    expm1,
    greater,
    greater_equal,
    isnan,
    less,
    less_equal,
    log,
    log1p,
    maximum,
    minimum,
    multiply,
    negative,
    not_equal,
    power,
    sign,
    sin,
    sqrt,
    square,
    stop_gradient,
    subtract,
    tanh,
    where,
)
from dlgpu.ops.embedding import gather, scatter_add
from dlgpu.ops.linear import matmul
from dlgpu.ops.normalization import batch_normalization, layer_normalization, normalize
from dlgpu.ops.operands import astype
from dlgpu.ops.pooling import average_pool, max_pool
from dlgpu.ops.random import dropout
from dlgpu.ops.reduction import all, any, argmax, argmin, cumsum, logsumexp, max, mean, min, std, sum, var
from dlgpu.ops.shape import (
    broadcast_to,
    concatenate,
    expand_dims,
    flip,
    getitem,
    moveaxis,
    one_hot,
    pad,
    repeat,
    reshape,
    split,
    squeeze,
    stack,
    swapaxes,
    take_along_axis,
    tile,
    transpose,
)
from dlgpu.ops.softmax import (
    binary_cross_entropy,
    categorical_cross_entropy,
    log_softmax,
    sigmoid_cross_entropy,
    softmax,
    softmax_cross_entropy,
)
from dlgpu.tensor import Tensor


def _without_numpys_arguments(operation: Any) -> Any:
    """A method that says what to do when NumPy's function of its name calls it, with arguments of NumPy's own."""

    @functools.wraps(operation)
    def method(self, *args, **kwargs):
        if "out" in kwargs:
            name = operation.__name__
            raise TypeError(f"np.{name} does not take Tensors: use dlgpu.ops.{name}(x), or np.{name}(x.numpy())")
        return operation(self, *args, **kwargs)

    return method


def _attach_operators() -> None:
    operation: Any

    def swapped(operation):
        return lambda self, other: operation(other, self)

    both = {"add": add, "sub": subtract, "mul": multiply, "truediv": divide, "pow": power, "matmul": matmul}
    for name, operation in both.items():
        setattr(Tensor, f"__{name}__", operation)
        setattr(Tensor, f"__r{name}__", swapped(operation))
    one = {"neg": negative, "abs": absolute, "getitem": getitem}
    comparisons = {"eq": equal, "ne": not_equal, "lt": less, "le": less_equal, "gt": greater, "ge": greater_equal}
    for name, operation in (one | comparisons).items():
        setattr(Tensor, f"__{name}__", operation)
    Tensor.__hash__ = object.__hash__  # type: ignore[method-assign]  # == compares values, a dictionary goes by identity
    for operation in (sum, mean, var, std, max, min, argmax, argmin, all, any):
        setattr(Tensor, operation.__name__, _without_numpys_arguments(operation))
    for operation in (reshape, swapaxes, squeeze, astype, clip):
        setattr(Tensor, operation.__name__, operation)
    Tensor.transpose = lambda self, *axes: transpose(self, axes[0] if len(axes) == 1 else axes or None)  # type: ignore[attr-defined]
    Tensor.T = property(transpose)  # type: ignore[attr-defined]


_attach_operators()
