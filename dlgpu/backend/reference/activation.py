"""Activations: bias and activation in one pass forward, the whole derivative in one pass backward."""

import math
from collections.abc import Callable

from dlgpu.backend.dispatch import array_namespace, kernel
from dlgpu.backend.narrow import at_least_float32
from dlgpu.backend.reference.linear import product
from dlgpu.backend.reference.special import normal_cdf, normal_pdf, sigmoid, softplus

LEAKY_SLOPE = 0.2  # Keras's
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # Klambauer et al. 2017
GELU_FACTOR, GELU_CUBE = math.sqrt(2 / math.pi), 0.044715  # Hendrycks and Gimpel 2016


@kernel
def bias_activation(x, bias, name, overwrite=False):
    """activation(x + bias), elementwise; the bias goes along the last axis.

    Args:
        x: (..., units), floating.
        bias: (units,) of the same dtype, or None.
        name: one of NAMES; FORWARD states the equation of each. NaN comes out where it goes in.
        overwrite: the caller needs x no more, so the result may be written over it.
    Returns:
        output (..., units), and what the backward needs: the output itself, or x + bias for names in FROM_INPUT.
    """
    xp = array_namespace(x)
    z = x if bias is None else xp.add(x, bias, out=x if overwrite else None)
    if name in FROM_INPUT:
        return FORWARD[name](xp, z, None), z
    output = FORWARD[name](xp, z, z if overwrite or bias is not None else None)
    return output, output


@kernel
def activation_backward(grad, saved, name):
    """grad * activation'(z): the gradient by x + bias.

    Args:
        grad: (..., units), floating.
        saved: (..., units), as returned by `bias_activation`.
        name: one of NAMES.
    Returns:
        (..., units).
    """
    return BACKWARD[name](array_namespace(grad), grad, saved)


@kernel
def bias_activation_backward(grad, saved, name):
    """The gradient of `bias_activation` by x, that of `activation_backward`, and by the bias, its sum: (units,)."""
    grad_z = activation_backward(grad, saved, name)
    return grad_z, grad_z.sum(axis=tuple(range(grad_z.ndim - 1)))


@kernel(narrow="kept on a GPU")
def dense(x, kernel, bias, name):
    """activation(x @ kernel + bias).

    Args:
        x: (rows, features), floating.
        kernel: (features, units) of the same dtype.
        bias: (units,), or None.
        name: one of NAMES.
    Returns:
        output (rows, units), and what the backward needs, as in `bias_activation`.
    """
    return bias_activation(product(x, kernel), bias, name, overwrite=True)


@kernel(narrow="kept on a GPU")
def dense_backward(grad, x, kernel, saved, name, needed):
    """The gradients of `dense` by x, kernel and bias: dz @ kernel.T, x.T @ dz and the sum of dz over the rows.

    Args:
        grad: (rows, units).
        x, kernel, saved, name: as given to and returned by `dense`.
        needed: three booleans; a gradient that is not needed is None. The first may be "factors": the gradient by x may
            then be the tuple (dz, kernel) in place of their product, for `dense_activation_backward`.
    """
    grad_z = activation_backward(grad, saved, name)
    return (
        product(grad_z, kernel.T) if needed[0] else None,
        product(x.T, grad_z) if needed[1] else None,
        column_sums(grad_z) if needed[2] else None,
    )


@kernel(narrow="kept on a GPU")
def dense_activation_backward(grad, kernel, saved, name):
    """(grad @ kernel.T) * activation'(z): the gradient by z of a dense layer whose output is another one's input.

    Args:
        grad: (rows, next units), the other layer's dz.
        kernel: (units, next units), the other layer's.
        saved, name: as given to and returned by `dense`; None will do for "linear".
    Returns:
        (rows, units).
    """
    return activation_backward(product(grad, kernel.T), saved, name)


def column_sums(rows):
    """The sum over the rows, in float32 at least."""
    return rows.sum(axis=0, dtype=at_least_float32(rows.dtype)).astype(rows.dtype, copy=False)


def gelu_gate(xp, z):
    """sigmoid(2 u) = (1 + tanh(u)) / 2 and 2 du/dz, for u = sqrt(2 / pi) (z + 0.044715 z**3) of gelu_tanh.

    The sigmoid keeps the digits that 1 + tanh loses for negative z.
    """
    z = xp.clip(z, -30, 30)  # beyond, the gate is 0 or 1 in every dtype, and the cube could overflow
    square = z * z
    return sigmoid(2 * GELU_FACTOR * z * (1 + GELU_CUBE * square)), 2 * GELU_FACTOR * (1 + 3 * GELU_CUBE * square)


def selu_rise(xp, y):
    """What selu's derivative adds to min(y, 0): the scale where y > 0, scale * alpha elsewhere."""
    return SELU_SCALE * xp.maximum((y <= 0).astype(y.dtype) * SELU_ALPHA, 1)


def mish_slope(xp, z):
    """The derivative of z tanh(softplus(z))."""
    t = xp.tanh(softplus(z))
    return t + z * sigmoid(z) * (1 - t * t)


def gelu_tanh_slope(xp, z):
    """The derivative of z sigmoid(2 u)."""
    gate, inner = gelu_gate(xp, z)
    return gate * (1 + z * (1 - gate) * inner)


# `out` is None, or z itself where that may be overwritten. Sums and products in place of `where`, which is slow on
# random signs.
FORWARD: dict[str, Callable] = {
    "linear": lambda xp, z, out: z,
    "relu": lambda xp, z, out: xp.maximum(z, 0, out=out),
    "leaky_relu": lambda xp, z, out: xp.maximum(z, LEAKY_SLOPE * z, out=out),
    "relu6": lambda xp, z, out: xp.clip(z, 0, 6, out=out),
    "elu": lambda xp, z, out: xp.maximum(z, 0) + xp.expm1(xp.minimum(z, 0)),
    "selu": lambda xp, z, out: SELU_SCALE * (xp.maximum(z, 0) + SELU_ALPHA * xp.expm1(xp.minimum(z, 0))),
    "sigmoid": lambda xp, z, out: sigmoid(z, out),
    "tanh": lambda xp, z, out: xp.tanh(z, out=out),
    "exponential": lambda xp, z, out: xp.exp(z, out=out),
    "softplus": lambda xp, z, out: softplus(z),
    "hard_sigmoid": lambda xp, z, out: xp.clip(z * (1 / 6) + 0.5, 0, 1, out=out),
    "hard_tanh": lambda xp, z, out: xp.clip(z, -1, 1, out=out),
    "softsign": lambda xp, z, out: z / (1 + abs(z)),
    "silu": lambda xp, z, out: z * sigmoid(z),
    "hard_silu": lambda xp, z, out: z * xp.clip(z * (1 / 6) + 0.5, 0, 1),
    "mish": lambda xp, z, out: z * xp.tanh(softplus(z)),
    "gelu": lambda xp, z, out: z * normal_cdf(z),
    "gelu_tanh": lambda xp, z, out: z * gelu_gate(xp, z)[0],
}
NAMES = tuple(FORWARD)
# The derivative of these needs z = x + bias; that of the others is a function of the output y, and z is not kept.
FROM_INPUT = ("softsign", "silu", "hard_silu", "mish", "gelu", "gelu_tanh")
BACKWARD: dict[str, Callable] = {
    "linear": lambda xp, grad, y: grad,
    "relu": lambda xp, grad, y: grad * (y > 0),
    "leaky_relu": lambda xp, grad, y: grad * xp.maximum((y > 0).astype(y.dtype), LEAKY_SLOPE),
    "relu6": lambda xp, grad, y: grad * ((y > 0) & (y < 6)),
    "elu": lambda xp, grad, y: grad * (xp.minimum(y, 0) + 1),
    "selu": lambda xp, grad, y: grad * (xp.minimum(y, 0) + selu_rise(xp, y)),
    "sigmoid": lambda xp, grad, y: grad * (y * (1 - y)),
    "tanh": lambda xp, grad, y: grad * (1 - y * y),
    "exponential": lambda xp, grad, y: grad * y,
    "softplus": lambda xp, grad, y: grad * -xp.expm1(-y),
    "hard_sigmoid": lambda xp, grad, y: grad * ((y > 0) & (y < 1)) * (1 / 6),
    "hard_tanh": lambda xp, grad, y: grad * (abs(y) < 1),
    "softsign": lambda xp, grad, z: grad / (1 + abs(z)) / (1 + abs(z)),
    "silu": lambda xp, grad, z: grad * (sigmoid(z) * (1 + z * sigmoid(-z))),
    "hard_silu": lambda xp, grad, z: grad * ((xp.clip(z, -3, 3) * (1 / 3) + 0.5) * (abs(z) < 3) + (z >= 3)),
    "mish": lambda xp, grad, z: grad * mish_slope(xp, z),
    "gelu": lambda xp, grad, z: grad * (normal_cdf(z) + z * normal_pdf(z)),
    "gelu_tanh": lambda xp, grad, z: grad * gelu_tanh_slope(xp, z),
}
