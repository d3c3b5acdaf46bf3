"""Elementwise arithmetic with NumPy's names, broadcasting and NaN rules; for dtypes see operands.py."""

import operator
from functools import partial
from typing import Any

import numpy as np

from dlgpu.backend.dispatch import array_namespace
from dlgpu.ops.operands import combined, fit, floating, like, operands, raw, together
from dlgpu.tensor import Tensor, as_tensor, record, wrap


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
