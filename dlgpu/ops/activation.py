"""Activation functions, alone and fused with a dense layer's product and bias."""

from collections.abc import Callable
from typing import Any

from dlgpu.backend.reference import activation as kernels
from dlgpu.ops.differentiation import with_composite
from dlgpu.ops.elementwise import floating, maximum, tanh
from dlgpu.ops.linear import matmul
from dlgpu.tensor import Tensor, record, wrap

# What each fused activation is made of, for second derivatives.
COMPOSITES: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda z: z,
    "relu": lambda z: maximum(z, 0),
    "sigmoid": lambda z: 0.5 * tanh(0.5 * z) + 0.5,
    "tanh": tanh,
}


def activation(x: Any, name: str, bias: "Tensor | None" = None) -> Tensor:
    """The fused activation `name` of x + bias, elementwise; bias (units,) goes along the last axis of x (..., units)."""
    x = floating(x)
    array, saved = kernels.bias_activation(x.array, None if bias is None else bias.array, name)

    def vjp(grad: Tensor) -> tuple:
        grad_z = kernels.activation_backward(grad.array, saved, name)
        grad_bias = grad_z.reshape(-1, grad_z.shape[-1]).sum(axis=0) if bias is not None else None
        return wrap(grad_z), None if grad_bias is None else wrap(grad_bias)

    def composite(x: Tensor, bias: "Tensor | None") -> Tensor:
        return COMPOSITES[name](x if bias is None else x + bias)

    return record(array, (x, bias), with_composite(vjp, composite, (x, bias)))


def relu(x: Any) -> Tensor:
    """max(x, 0); the derivative at 0 is 0."""
    return activation(x, "relu")


def sigmoid(x: Any) -> Tensor:
    """1 / (1 + exp(-x))."""
    return activation(x, "sigmoid")


def dense(x: Any, kernel: Tensor, bias: "Tensor | None" = None, name: str = "linear") -> Tensor:
    """activation(x @ kernel + bias), with the bias and the activation in one pass.

    Args:
        x: (..., features), floating.
        kernel: (features, units).
        bias: (units,), or None.
        name: the fused activation.
    Returns:
        (..., units).
    """
    return activation(matmul(x, kernel), name, bias)
