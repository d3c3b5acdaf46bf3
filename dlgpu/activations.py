"""Activation functions by name: all of Keras's, with its names, arguments and defaults."""

from collections.abc import Callable
from typing import Any

from dlgpu import ops
from dlgpu.backend.dispatch import array_namespace
from dlgpu.ops import activation as fused
from dlgpu.ops.activation import fuses
from dlgpu.ops.elementwise import absolute, clip, expm1, greater, less, less_equal, sqrt, stop_gradient, where
from dlgpu.ops.operands import astype, floating
from dlgpu.ops.shape import moveaxis, split
from dlgpu.saving.configurable import function_named, functions
from dlgpu.tensor import Tensor, wrap


@fuses("linear")
def linear(x: Any) -> Tensor:
    """x itself."""
    return x


@fuses("relu")
def relu(x: Any, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0) -> Tensor:
    """x above the threshold, limited to max_value; negative_slope * (x - threshold) below it."""
    if not negative_slope and max_value is None and not threshold:
        return fused.activation(x, "relu")
    x = floating(x)
    below = less_equal(x, threshold)  # false for NaN, which then stays
    top = x if max_value is None else clip(x, None, float(max_value))
    return where(below, (x - threshold) * negative_slope if negative_slope else 0.0, top)


@fuses("leaky_relu")
def leaky_relu(x: Any, negative_slope: float = 0.2) -> Tensor:
    """x where it is positive, negative_slope * x elsewhere."""
    if negative_slope == 0.2:
        return fused.activation(x, "leaky_relu")
    x = floating(x)
    return where(greater(x, 0), x, x * negative_slope)


@fuses("relu6")
def relu6(x: Any) -> Tensor:
    """x limited to [0, 6]."""
    return fused.activation(x, "relu6")


@fuses("elu")
def elu(x: Any, alpha: float = 1.0) -> Tensor:
    """x where it is positive, alpha * (exp(x) - 1) elsewhere."""
    return fused.activation(x, "elu") if alpha == 1 else _elu(x, alpha, 1.0)


@fuses("elu")
def celu(x: Any, alpha: float = 1.0) -> Tensor:
    """x where it is positive, alpha * (exp(x / alpha) - 1) elsewhere; differentiable at 0 for every alpha."""
    return fused.activation(x, "elu") if alpha == 1 else _elu(x, alpha, alpha)


def _elu(x: Any, alpha: float, width: float) -> Tensor:
    x = floating(x)
    above = greater(x, 0)  # once: the derivatives keep it
    return where(above, x, alpha * expm1(where(above, 0, x) * (1 / width)))


@fuses("selu")
def selu(x: Any) -> Tensor:
    """1.0507 * elu(x, alpha=1.67326), which keeps the mean at 0 and the variance at 1 (Klambauer et al. 2017)."""
    return fused.activation(x, "selu")


@fuses("sigmoid")
def sigmoid(x: Any) -> Tensor:
    """1 / (1 + exp(-x))."""
    return fused.activation(x, "sigmoid")


def log_sigmoid(x: Any) -> Tensor:
    """log(sigmoid(x)), exact where the sigmoid itself would be 0."""
    return -fused.activation(-floating(x), "softplus")


@fuses("hard_sigmoid")
def hard_sigmoid(x: Any) -> Tensor:
    """x / 6 + 1 / 2, limited to [0, 1]."""
    return fused.activation(x, "hard_sigmoid")


def sparse_sigmoid(x: Any) -> Tensor:
    """(x + 1) / 2, limited to [0, 1]."""
    return fused.activation(x, "hard_tanh") * 0.5 + 0.5


@fuses("silu")
def silu(x: Any) -> Tensor:
    """x * sigmoid(x), also known as swish."""
    return fused.activation(x, "silu")


@fuses("hard_silu")
def hard_silu(x: Any) -> Tensor:
    """x * hard_sigmoid(x), also known as hard swish."""
    return fused.activation(x, "hard_silu")


@fuses("gelu")
def gelu(x: Any, approximate: bool = False) -> Tensor:
    """x * P(X <= x) for a standard normal X; with `approximate`, x * (1 + tanh(.7979 (x + .044715 x**3))) / 2."""
    return fused.activation(x, "gelu_tanh" if approximate else "gelu")


@fuses("tanh")
def tanh(x: Any) -> Tensor:
    """Hyperbolic tangent."""
    return fused.activation(x, "tanh")


def tanh_shrink(x: Any) -> Tensor:
    """x - tanh(x)."""
    x = floating(x)
    return x - tanh(x)


@fuses("hard_tanh")
def hard_tanh(x: Any) -> Tensor:
    """x limited to [-1, 1]."""
    return fused.activation(x, "hard_tanh")


def hard_shrink(x: Any, threshold: float = 0.5) -> Tensor:
    """x where |x| is above the threshold, 0 elsewhere."""
    x = floating(x)
    return where(less_equal(absolute(x), threshold), 0.0, x)


def soft_shrink(x: Any, threshold: float = 0.5) -> Tensor:
    """x moved towards 0 by the threshold, and no further than 0."""
    x = floating(x)
    return x - clip(x, -threshold, threshold)


def threshold(x: Any, threshold: float, default_value: float) -> Tensor:
    """x where it is above the threshold, default_value elsewhere."""
    x = floating(x)
    return where(less_equal(x, threshold), float(default_value), x)


@fuses("exponential")
def exponential(x: Any) -> Tensor:
    """exp(x)."""
    return fused.activation(x, "exponential")


@fuses("softplus")
def softplus(x: Any) -> Tensor:
    """log(1 + exp(x))."""
    return fused.activation(x, "softplus")


def sparse_plus(x: Any) -> Tensor:
    """(x + 1)**2 / 4 between -1 and 1; 0 below, x above."""
    x = floating(x)
    middle = clip(x, -1, 1) + 1
    return where(less(absolute(x), 1), middle * middle * 0.25, where(less_equal(x, -1), 0.0, x))


def squareplus(x: Any, b: float = 4) -> Tensor:
    """(x + sqrt(x * x + b)) / 2."""
    x = floating(x)
    return (x + sqrt(x * x + float(b))) * 0.5


@fuses("softsign")
def softsign(x: Any) -> Tensor:
    """x / (1 + |x|)."""
    return fused.activation(x, "softsign")


@fuses("mish")
def mish(x: Any) -> Tensor:
    """x * tanh(softplus(x))."""
    return fused.activation(x, "mish")


def glu(x: Any, axis: int = -1) -> Tensor:
    """The first half of x along an axis, times the sigmoid of the second half."""
    x = floating(x)
    if x.shape[axis] % 2:
        raise ValueError(f"glu: expected an even length along axis {axis}, got shape {x.shape}")
    values, gates = split(x, 2, axis)
    return values * fused.activation(gates, "sigmoid")


def softmax(x: Any, axis: Any = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along an axis."""
    return ops.softmax(x, axis)


def log_softmax(x: Any, axis: Any = -1) -> Tensor:
    """log(softmax(x)) along an axis, exact where the softmax itself would be 0."""
    return ops.log_softmax(x, axis)


def sparsemax(x: Any, axis: int = -1) -> Tensor:
    """max(x - tau, 0) with the tau that makes it sum to 1 along an axis: the nearest point of the simplex to x.

    Martins and Astudillo, "From Softmax to Sparsemax" (2016).
    """
    x = moveaxis(floating(x), axis, -1)
    x = x - stop_gradient(x.max(-1, keepdims=True))  # changes nothing, and keeps the sums small
    excluded = less_equal(x, wrap(_sparsemax_bound(x.array)))  # false for NaN, which then stays
    included = 1 - astype(excluded, x.dtype)
    tau = (where(excluded, 0.0, x).sum(-1, keepdims=True) - 1) / included.sum(-1, keepdims=True)
    return moveaxis(where(excluded, 0.0, x - tau), -1, axis)


def _sparsemax_bound(x: Any) -> Any:
    """tau of each row (..., 1): (the sum of the k largest - 1) / k, for the most k whose smallest lies above it."""
    xp = array_namespace(x)
    descending = xp.sort(x, axis=-1)[..., ::-1]
    counts = xp.arange(1, x.shape[-1] + 1, dtype=x.dtype)
    bounds = (xp.cumsum(descending, axis=-1) - 1) / counts
    last = (descending > bounds).sum(axis=-1, keepdims=True) - 1
    return xp.take_along_axis(bounds, last, axis=-1)


functions.update(
    {
        function.__name__: function
        for function in (
            *(celu, elu, exponential, gelu, glu, hard_shrink, hard_sigmoid, hard_silu, hard_tanh, leaky_relu, linear),
            *(log_sigmoid, log_softmax, mish, relu, relu6, selu, sigmoid, silu, soft_shrink, softmax, softplus),
            *(softsign, sparse_plus, sparse_sigmoid, sparsemax, squareplus, tanh, tanh_shrink, threshold),
        )
    }
)
swish, hard_swish = silu, hard_silu
functions.update(swish=swish, hard_swish=hard_swish)


def get(identifier: Any) -> Callable:
    """The activation function that `identifier` means: a function, a name, or None for linear.

    Raises:
        ValueError: an unknown name; the message names the nearest known one.
        TypeError: neither a function nor a name.
    """
    if identifier is None:
        return linear
    if isinstance(identifier, str):
        return function_named(identifier, "activation")
    if not callable(identifier):
        raise TypeError(f"expected the name of an activation or a function, got {identifier!r}")
    return identifier
