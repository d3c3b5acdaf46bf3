"""Activation functions, alone and fused with a dense layer's product and bias."""

import math
from collections.abc import Callable
from types import FunctionType
from typing import Any

from dlgpu.autograd import Deferred, recording
from dlgpu.backend.narrow import in_float32, is_narrow
from dlgpu.backend.reference import activation as kernels
from dlgpu.backend.reference import linear, special
from dlgpu.errors import unknown_name
from dlgpu.ops.differentiation import pull_back, with_composite
from dlgpu.ops.elementwise import absolute, clip, exp, expm1, greater, less, maximum, sign, tanh, where
from dlgpu.ops.linear import matmul
from dlgpu.ops.operands import astype, floating, raw, sum_to
from dlgpu.tensor import Tensor, record, wrap

Activation = str | Callable[[Tensor], Tensor]  # the name of a fused activation, or any function


def activation(x: Any, name: str, bias: Tensor | None = None) -> Tensor:
    """The fused activation `name` of x + bias, elementwise.

    Args:
        x: (..., units), floating; integers become float32.
        name: one of COMPOSITES.
        bias: (units,), which goes along the last axis, or None.
    Returns:
        (..., units).
    """
    x, bias = floating(x), checked_bias(x, bias, name)
    array, saved = kernels.bias_activation(x.array, raw(bias), name)
    if name == "linear":
        saved = None
    width, dtype = x.shape[-1:], x.dtype
    wants_bias = bias is not None and bias.requires_grad
    sources = [t if t is None else wrap(None, t.edge) for t in (x, bias)]  # not their values: `saved` is kept

    def vjp(grad: Tensor, *output: Tensor) -> tuple:
        if recording():
            grad_z = differentiable(grad, *output)
            return grad_z, sum_to(grad_z, width) if wants_bias else None
        kept = grad.array if saved is None else saved
        if not wants_bias:
            return wrap(kernels.activation_backward(grad.array, kept, name)), None
        grad_z, grad_bias = kernels.bias_activation_backward(grad.array, kept, name)
        return wrap(grad_z), wrap(grad_bias)

    def differentiable(grad: Tensor, *output: Tensor) -> Tensor:
        if name in SLOPES:
            return grad * SLOPES[name](*output)
        if saved is None:
            return grad
        z = record(saved.astype(dtype, copy=False), sources, (lambda g: g, lambda g: sum_to(g, width)))
        return pull_back([COMPOSITES[name](z)], [grad], [z], create_graph=True)[0]

    return record(array, (x, bias), vjp, with_output=name in SLOPES)


def dense(x: Any, kernel: Tensor, bias: Tensor | None = None, activation: Activation = "linear") -> Tensor:
    """activation(x @ kernel + bias), computed in the kernel's dtype.

    Args:
        x: (..., features).
        kernel: (features, units), floating.
        bias: (units,), or None.
        activation: the name of a fused activation, or a function, which runs in the same pass if it is a fused one.
    Returns:
        (..., units).
    """
    name = fused_name(activation)
    if name is None:
        return activation(dense(x, kernel, bias))  # type: ignore[operator]
    x = astype(floating(x if isinstance(x, Tensor) else Tensor(x, device=kernel.device)), kernel.dtype)
    if kernel.ndim != 2 or x.ndim == 0 or x.shape[-1] != kernel.shape[0]:
        raise ValueError(
            f"dense: expected x (..., features) and a kernel (features, units), got {x.shape} and {kernel.shape}"
        )
    bias = checked_bias(kernel, bias, name)
    lead, features = x.shape[:-1], x.shape[-1]
    rows = x.array.reshape(math.prod(lead), features)
    output, saved = kernels.dense(rows, kernel.array, raw(bias), name)
    flat = output.shape
    if name == "linear":
        saved = None  # any array will do for its derivative

    def vjp(grad: Tensor) -> tuple:
        deferred = x.edge is not None and getattr(x.edge[0].vjp, "takes_factors", False)
        by_x = "factors" if deferred else x.requires_grad
        needed = (by_x, kernel.requires_grad, bias is not None and bias.requires_grad)
        if isinstance(grad, Product) and grad.factors is not None:
            grad_rows, through = kernels.dense_activation_backward(*grad.factors, saved, name), "linear"
        else:
            grad_rows, through = grad.array.reshape(flat), name
        kept = grad_rows if through == "linear" else saved
        grads = kernels.dense_backward(grad_rows, rows, kernel.array, kept, through, needed)
        if type(grads[0]) is tuple:
            grad_x: Any = Product(grads[0], x.shape)
        else:
            grad_x = wrap(grads[0].reshape(x.shape)) if by_x else None
        return (grad_x, *(None if g is None else wrap(g) for g in grads[1:]))

    def composite(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        product = matmul(x, kernel)
        return COMPOSITES[name](product if bias is None else product + bias)

    inputs = (x, kernel, bias)
    pull: Any = with_composite(vjp, composite, inputs)
    pull.takes_factors = True
    return record(output.reshape(*lead, kernel.shape[1]), inputs, pull)


class Product(Tensor, Deferred):
    """The gradient grad @ kernel.T by a dense layer's input, which is computed when it is read.

    It goes to another dense layer alone, whose output that input is. Unless others add to it or it is asked for itself,
    that layer takes the factors: a kernel multiplies them, and by its activation's derivative, in one pass.
    """

    __slots__ = ("factors", "outline")

    def __init__(self, factors: tuple, shape: tuple[int, ...]):
        self.factors: tuple | None = factors
        self.outline = shape
        self.edge = self.grad = self.mask = None

    def compute(self) -> None:
        if self.factors is not None:
            grad, kernel = self.factors
            self.array = linear.matmul(grad, kernel.T).reshape(self.outline)
            self.factors = None

    def __getattr__(self, name: str) -> Any:
        if name != "array":  # which is looked for here as long as it is not set
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self.compute()
        return self.array


def checked_bias(x: Any, bias: Tensor | None, name: str) -> Tensor | None:
    """The bias in x's dtype, after both it and the name have been found fit."""
    if name not in COMPOSITES:
        raise ValueError(unknown_name("fused activation", name, COMPOSITES))
    if bias is None:
        return None
    if bias.shape != x.shape[-1:]:
        raise ValueError(f"expected a bias of shape {x.shape[-1:]} for values of shape {x.shape}, got {bias.shape}")
    return astype(bias, x.dtype)


_names: dict[Callable, str] = {}


def fuses(name: str) -> Callable[[Callable], Callable]:
    """Mark the decorated function as the fused activation `name` when it is called with x alone."""

    def mark(function: Callable) -> Callable:
        _names[function] = name
        return function

    return mark


def fused_name(function: Any) -> str | None:
    """The name of the fused activation that a function is, or None; it goes by identity, not by `__name__`.

    A string is taken for such a name.
    """
    if type(function) is str:
        return function
    return _names.get(function) if type(function) is FunctionType else None


# Smooth functions whose derivatives are made of each other, so that they can be differentiated without end.


def _computed(function: Callable, x: Tensor) -> Any:
    """function(x), in float32 for 16-bit numbers."""
    return (in_float32(function, x.dtype) if is_narrow(x) else function)(x.array)


def sigmoid(x: Any) -> Tensor:
    """1 / (1 + exp(-x))."""
    x = floating(x)
    return record(_computed(special.sigmoid, x), (x,), lambda grad, out: (grad * (out * (1 - out)),), with_output=True)


def softplus(x: Any) -> Tensor:
    """log(1 + exp(x))."""
    x = floating(x)
    return record(_computed(special.softplus, x), (x,), lambda grad: (grad * sigmoid(x),))


def normal_cdf(x: Any) -> Tensor:
    """P(X <= x) of a standard normal X."""
    x = floating(x)
    density = 1 / math.sqrt(2 * math.pi)
    return record(_computed(special.normal_cdf, x), (x,), lambda grad: (grad * exp(x * x * -0.5) * density,))


def erf(x: Any) -> Tensor:
    """2 / sqrt(pi) times the integral of exp(-t * t) from 0 to x."""
    x = floating(x)
    return record(_computed(special.erf, x), (x,), lambda grad: (grad * exp(-x * x) * (2 / math.sqrt(math.pi)),))


def erfc(x: Any) -> Tensor:
    """1 - erf(x), with small results exact."""
    x = floating(x)
    return record(_computed(special.erfc, x), (x,), lambda grad: (grad * exp(-x * x) * (-2 / math.sqrt(math.pi)),))


def relu(x: Any) -> Tensor:
    """max(x, 0); the derivative at 0 is 0."""
    return activation(x, "relu")


def negative_part(z: Tensor) -> Tensor:
    """min(z, 0); the derivative at 0 is 1. Keeps exponentials of positive values out of the branch not taken."""
    return where(greater(z, 0), 0, z)


def within(z: Tensor, limit: float, inside: Tensor, outside: Any) -> Tensor:
    """`inside` where |z| < limit, else `outside`."""
    return where(less(absolute(z), limit), inside, outside)


def inside(y: Tensor, low: float, high: float) -> Tensor:
    """1 where low < y < high, else 0."""
    return astype(greater(y, low), y.dtype) * astype(less(y, high), y.dtype)


def _hard_sigmoid(z: Tensor) -> Tensor:
    return within(z, 3, z * (1 / 6) + 0.5, astype(greater(z, 0), z.dtype))


def _gelu_tanh(z: Tensor) -> Tensor:
    inner = clip(z, -30, 30)  # as in the kernel
    return z * sigmoid((inner + inner * inner * inner * kernels.GELU_CUBE) * (2 * kernels.GELU_FACTOR))


def _softsign(z: Tensor) -> Tensor:
    # the derivative of z / (1 + |z|) as a quotient would cancel to nothing for large z
    positive = where(greater(z, 0), z, 0)
    return where(greater(z, 0), 1 - 1 / (positive + 1), 1 / (1 - negative_part(z)) - 1)


def _elu(z: Tensor, alpha: float = 1.0) -> Tensor:
    return where(greater(z, 0), z, alpha * expm1(negative_part(z)))


# What each fused activation is made of, for second derivatives. At a kink they choose the side that the kernel does.
COMPOSITES: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda z: z,
    "relu": lambda z: where(greater(z, 0), z, 0),
    "leaky_relu": lambda z: where(greater(z, 0), z, z * kernels.LEAKY_SLOPE),
    "relu6": lambda z: where(greater(z, 0), where(less(z, 6), z, 6), 0),
    "elu": _elu,
    "selu": lambda z: kernels.SELU_SCALE * _elu(z, kernels.SELU_ALPHA),
    "sigmoid": sigmoid,
    "tanh": tanh,
    "exponential": exp,
    "softplus": softplus,
    "hard_sigmoid": _hard_sigmoid,
    "hard_tanh": lambda z: within(z, 1, z, sign(z)),
    "softsign": _softsign,
    "silu": lambda z: z * sigmoid(z),
    "hard_silu": lambda z: z * _hard_sigmoid(z),
    "mish": lambda z: z * tanh(softplus(z)),
    "gelu": lambda z: z * normal_cdf(z),
    "gelu_tanh": _gelu_tanh,
}

# The derivatives of those that are kept by their outputs, as functions of these.
SLOPES: dict[str, Callable[[Tensor], Any]] = {
    "relu": lambda y: astype(greater(y, 0), y.dtype),
    "leaky_relu": lambda y: maximum(astype(greater(y, 0), y.dtype), kernels.LEAKY_SLOPE),
    "relu6": lambda y: inside(y, 0, 6),
    "elu": lambda y: where(greater(y, 0), 1, y + 1),
    "selu": lambda y: where(greater(y, 0), kernels.SELU_SCALE, y + kernels.SELU_SCALE * kernels.SELU_ALPHA),
    "sigmoid": lambda y: y * (1 - y),
    "tanh": lambda y: 1 - y * y,
    "exponential": lambda y: y,
    "softplus": lambda y: -expm1(-y),
    "hard_sigmoid": lambda y: inside(y, 0, 1) * (1 / 6),
    "hard_tanh": lambda y: inside(y, -1, 1),
}
