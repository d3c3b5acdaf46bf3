"""Elementwise arithmetic with NumPy's names, broadcasting and NaN rules.

Dtypes: Python numbers take the tensor's dtype; an integer tensor meeting a floating one takes its dtype, and becomes
float32 where the function or a Python float makes it floating.
"""

import operator
from functools import partial
from typing import Any

import numpy as np

from dlgpu.backend.dispatch import array_namespace, is_floating
from dlgpu.backend.narrow import is_narrow
from dlgpu.errors import DeviceError
from dlgpu.tensor import Tensor, as_tensor, record, wrap


def floating(x: Any) -> Tensor:
    """`x` as a floating Tensor; integers and booleans become float32."""
    x = as_tensor(x)
    return x if is_floating(x) else wrap(x.array.astype(np.float32))


def operands(a: Any, b: Any) -> tuple[Any, Any]:
    """Both as Tensors of dtypes that go together, on one device; a Python number stays a number beside a Tensor."""
    a_number, b_number = isinstance(a, (int, float)), isinstance(b, (int, float))
    if a_number and b_number:
        return Tensor(a), b
    if b_number:
        a = as_tensor(a)
        return (floating(a), float(b)) if isinstance(b, float) else (a, b)
    if a_number:
        b = as_tensor(b)
        return (float(a), floating(b)) if isinstance(a, float) else (a, b)
    a, b = together(a, b)
    if a.dtype != b.dtype and is_floating(a) != is_floating(b):
        return (a, astype(b, a.dtype)) if is_floating(a) else (astype(a, b.dtype), b)
    return a, b


def together(*values: Any) -> list[Tensor]:
    """All as Tensors on one device: single numbers, and what is no Tensor, go where the first Tensor is.

    Raises:
        DeviceError: there are Tensors of different devices.
    """
    tensors = [as_tensor(v) for v in values]
    if all(type(t.array) is type(tensors[0].array) for t in tensors):
        return tensors
    fixed = [v for v in values if isinstance(v, Tensor) and v.ndim]
    device = (fixed or tensors)[0].device
    for tensor in fixed:
        if tensor.device != device:
            raise DeviceError(f"one operand is on {device}, another on {tensor.device}: move one of them with .to()")
    return [t.to(device) for t in tensors]


def raw(x: Any) -> Any:
    """The array of a Tensor; anything else, such as a number or None, as it is."""
    return x.array if isinstance(x, Tensor) else x


def combined(function: Any, a: Any, b: Any) -> Any:
    """The array function(a, b) of two operands; beside a number a Tensor keeps its dtype, which NumPy may widen."""
    array = function(raw(a), raw(b))
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return array
    tensor = a if isinstance(a, Tensor) else b
    return array.astype(tensor.dtype) if array.dtype != tensor.dtype and is_narrow(tensor) else array


def total(array: Any, axes: Any, keepdims: bool = False) -> Any:
    """array.sum(axes); 16-bit numbers are summed up in float32."""
    if not is_narrow(array):
        return array.sum(axis=axes, keepdims=keepdims)
    return array.sum(axis=axes, dtype=np.float32, keepdims=keepdims).astype(array.dtype)


Like = tuple[tuple, Any]


def like(operand: Any) -> Like | None:
    """Shape and dtype of a Tensor, for `fit`, which then needs none of its values to be kept; None for a number."""
    return (operand.array.shape, operand.array.dtype) if isinstance(operand, Tensor) else None


def fit(gradient: Tensor, like: Like | None) -> Tensor | None:
    """Sum a gradient over the axes along which an operand was broadcast, and give it the operand's dtype."""
    if like is None:
        return None
    shape, dtype = like
    if gradient.shape != shape:
        gradient = sum_to(gradient, shape)
    return gradient if gradient.dtype == dtype else astype(gradient, dtype)


def sum_to(x: Tensor, shape: tuple) -> Tensor:
    """Sum `x` down to `shape`, which broadcasts to x.shape."""
    origin = x.shape
    lead = x.ndim - len(shape)
    axes = tuple(range(lead)) + tuple(lead + i for i, n in enumerate(shape) if n == 1 and origin[lead + i] != 1)
    array = total(x.array, axes, keepdims=True).reshape(shape)
    return record(array, (x,), lambda grad: (spread(grad, origin, lead),))


def spread(x: Tensor, shape: tuple, lead: int) -> Tensor:
    """Broadcast `x` to `shape` after `lead` new axes: the transpose of `sum_to`."""
    origin = x.shape
    array = array_namespace(x.array).broadcast_to(x.array.reshape((1,) * lead + origin), shape)
    return record(array, (x,), lambda grad: (sum_to(grad, origin),))


def astype(x: Tensor, dtype: Any) -> Tensor:
    """`x` converted to a dtype; the gradient is converted back. Conversions to integers are constants."""
    if x.dtype == np.dtype(dtype):
        return x
    array, origin = x.array.astype(dtype), x.dtype
    return record(array, (x,), lambda grad: (astype(grad, origin),)) if is_floating(array) else wrap(array)


def add(a: Any, b: Any) -> Tensor:
    """a + b."""
    a, b = operands(a, b)
    array, by_a, by_b = combined(operator.add, a, b), like(a), like(b)
    return record(array, (a, b), (lambda grad: fit(grad, by_a), lambda grad: fit(grad, by_b)))


def subtract(a: Any, b: Any) -> Tensor:
    """a - b."""
    a, b = operands(a, b)
    array, by_a, by_b = combined(operator.sub, a, b), like(a), like(b)
    return record(array, (a, b), (lambda grad: fit(grad, by_a), lambda grad: fit(-grad, by_b)))


def multiply(a: Any, b: Any) -> Tensor:
    """a * b."""
    a, b = operands(a, b)
    array, by_a, by_b = combined(operator.mul, a, b), like(a), like(b)
    return record(array, (a, b), (lambda grad: fit(grad * b, by_a), lambda grad: fit(grad * a, by_b)))


def divide(a: Any, b: Any) -> Tensor:
    """a / b; integers divide as float32."""
    a, b = operands(a, b)
    a, b = (floating(x) if isinstance(x, Tensor) else x for x in (a, b))
    array, by_a, by_b = combined(operator.truediv, a, b), like(a), like(b)
    if not _varies(b):
        return record(array, (a, b), (lambda grad: fit(grad / b, by_a), None))
    return record(
        array,
        (a, b),
        (lambda grad, out: fit(grad / b, by_a), lambda grad, out: fit(-(grad / b) * out, by_b)),
        with_output=True,
    )


def power(a: Any, b: Any) -> Tensor:
    """a ** b."""
    a, b = operands(a, b)
    array, by_a, by_b = combined(operator.pow, a, b), like(a), like(b)

    def by_base(grad: Tensor, *_: Tensor) -> Tensor | None:
        if isinstance(b, Tensor):
            # 0 * a ** -1 is nan at a = 0; the derivative of a constant 1 is 0
            flat = wrap((a.array == 0) & (b.array == 0))
            return fit(grad * b * power(a, where(flat, 1, b - 1)), by_a)
        return fit(grad * 0 if b == 0 else grad if b == 1 else grad * (a ** (b - 1) * b), by_a)

    def by_exponent(grad: Tensor, out: Tensor) -> Tensor | None:
        base = a if isinstance(a, Tensor) else wrap(array_namespace(b.array).full_like(b.array, a))
        zero = equal(base, 0)  # 0 ** b is flat for b > 0; log(0) would make it nan
        return fit(where(zero, 0, grad * out * log(where(zero, 1, base))), by_b)

    if not _varies(b):
        return record(array, (a, b), (by_base, None))
    return record(array, (a, b), (by_base, by_exponent), with_output=True)


def _varies(x: Any) -> bool:
    return isinstance(x, Tensor) and x.requires_grad


def maximum(a: Any, b: Any) -> Tensor:
    """The larger of both, NaN where either is; at a tie each gets half of the gradient."""
    a, b = operands(a, b)
    return _choose(array_namespace(_array(a, b)).maximum, greater, a, b)


def minimum(a: Any, b: Any) -> Tensor:
    """The smaller of both, NaN where either is; at a tie each gets half of the gradient."""
    a, b = operands(a, b)
    return _choose(array_namespace(_array(a, b)).minimum, less, a, b)


def _choose(ufunc: Any, wins: Any, a: Any, b: Any) -> Tensor:
    def share(grad: Tensor, mine: Any, other: Any) -> Tensor | None:
        # by who loses, not by who wins: NaN does neither, and passes its gradient on
        return fit(where(wins(other, mine), 0, where(equal(a, b), grad * 0.5, grad)), like(mine))

    return record(combined(ufunc, a, b), (a, b), (lambda grad: share(grad, a, b), lambda grad: share(grad, b, a)))


def _array(a: Any, b: Any) -> Any:
    return a.array if isinstance(a, Tensor) else b.array


def negative(x: Any) -> Tensor:
    """-x."""
    x = as_tensor(x)
    return record(-x.array, (x,), lambda grad: (-grad,))


def absolute(x: Any) -> Tensor:
    """|x|; the derivative at 0 is 0."""
    x = as_tensor(x)
    return record(abs(x.array), (x,), lambda grad: (grad * sign(x),))


def sign(x: Any) -> Tensor:
    """-1, 0 or 1; a constant."""
    x = as_tensor(x)
    return wrap(array_namespace(x.array).sign(x.array))


def square(x: Any) -> Tensor:
    """x * x."""
    x = as_tensor(x)
    return record(x.array * x.array, (x,), lambda grad: (grad * x * 2,))


def sqrt(x: Any) -> Tensor:
    """Square root; its derivative at 0 is infinite."""
    x = floating(x)
    array = array_namespace(x.array).sqrt(x.array)
    return record(array, (x,), lambda grad, out: (grad * 0.5 / out,), with_output=True)


def exp(x: Any) -> Tensor:
    """e ** x."""
    x = floating(x)
    return record(array_namespace(x.array).exp(x.array), (x,), lambda grad, out: (grad * out,), with_output=True)


def expm1(x: Any) -> Tensor:
    """e ** x - 1, exact near 0."""
    x = floating(x)
    array = array_namespace(x.array).expm1(x.array)
    return record(array, (x,), lambda grad, out: (grad * (out + 1),), with_output=True)


def log(x: Any) -> Tensor:
    """Natural logarithm."""
    x = floating(x)
    return record(array_namespace(x.array).log(x.array), (x,), lambda grad: (grad / x,))


def log1p(x: Any) -> Tensor:
    """log(1 + x), exact near 0."""
    x = floating(x)
    return record(array_namespace(x.array).log1p(x.array), (x,), lambda grad: (grad / (x + 1),))


def sin(x: Any) -> Tensor:
    """Sine of x in radians."""
    x = floating(x)
    return record(array_namespace(x.array).sin(x.array), (x,), lambda grad: (grad * cos(x),))


def cos(x: Any) -> Tensor:
    """Cosine of x in radians."""
    x = floating(x)
    return record(array_namespace(x.array).cos(x.array), (x,), lambda grad: (-grad * sin(x),))


def tanh(x: Any) -> Tensor:
    """Hyperbolic tangent."""
    x = floating(x)
    array = array_namespace(x.array).tanh(x.array)
    return record(array, (x,), lambda grad, out: (grad * (1 - out * out),), with_output=True)


def arctan(x: Any) -> Tensor:
    """Inverse tangent, in radians."""
    x = floating(x)
    return record(array_namespace(x.array).arctan(x.array), (x,), lambda grad: (grad / (x * x + 1),))


def clip(x: Any, low: float | None = None, high: float | None = None) -> Tensor:
    """x limited to the numbers [low, high]; the gradient passes inside the limits and at them."""
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        raise TypeError("clip: the limits must be numbers; for Tensors, use minimum and maximum")
    # a NumPy scalar would make float32 float64
    low, high = (v if v is None else int(v) if isinstance(v, (int, np.integer)) else float(v) for v in (low, high))
    if isinstance(low, float) or isinstance(high, float):
        x = floating(x)
    x = as_tensor(x)

    def clipped() -> Any:
        return combined(lambda x, _: array_namespace(x).clip(x, low, high), x, None)

    def vjp(grad: Tensor) -> tuple:
        array = clipped()  # once more, and not kept
        return (where(wrap((array < x.array) | (array > x.array)), 0, grad),)

    return record(clipped(), (x,), vjp)


def where(condition: Any, a: Any, b: Any) -> Tensor:
    """`a` where condition holds, else `b`; nothing flows to the one that was not chosen."""
    a, b = operands(a, b)
    condition = together(condition, *[x for x in (a, b) if isinstance(x, Tensor)])[0]
    chosen = wrap(condition.array.astype(bool, copy=False))
    array, by_a, by_b = combined(partial(array_namespace(chosen.array).where, chosen.array), a, b), like(a), like(b)
    return record(
        array, (a, b), (lambda grad: fit(where(chosen, grad, 0), by_a), lambda grad: fit(where(chosen, 0, grad), by_b))
    )


def _compare(relation: Any, a: Any, b: Any) -> Tensor:
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        a = Tensor(a)
    return wrap(relation(raw(a), raw(b)))


def equal(a: Any, b: Any) -> Tensor:
    """a == b, boolean."""
    return _compare(operator.eq, a, b)


def not_equal(a: Any, b: Any) -> Tensor:
    """a != b, boolean."""
    return _compare(operator.ne, a, b)


def greater(a: Any, b: Any) -> Tensor:
    """a > b, boolean."""
    return _compare(operator.gt, a, b)


def greater_equal(a: Any, b: Any) -> Tensor:
    """a >= b, boolean."""
    return _compare(operator.ge, a, b)


def less(a: Any, b: Any) -> Tensor:
    """a < b, boolean."""
    return _compare(operator.lt, a, b)


def less_equal(a: Any, b: Any) -> Tensor:
    """a <= b, boolean."""
    return _compare(operator.le, a, b)


def isnan(x: Any) -> Tensor:
    """Whether each value is NaN, boolean."""
    x = as_tensor(x)
    return wrap(array_namespace(x.array).isnan(x.array))


def stop_gradient(x: Any) -> Tensor:
    """x as a constant."""
    return as_tensor(x).detach()
