"""Recurrent networks: a whole sequence as one operation.

With tanh and sigmoid it runs kernels, one forward and one backward. With other activations or recurrent dropout, and
for second derivatives, it is a loop over the steps, made of elementary operations.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from dlgpu.backend.dispatch import array_namespace
from dlgpu.backend.reference import recurrent as kernels
from dlgpu.ops.activation import Activation, fused_name
from dlgpu.ops.activation import activation as fused_activation
from dlgpu.ops.differentiation import with_composite
from dlgpu.ops.elementwise import where
from dlgpu.ops.linear import matmul
from dlgpu.ops.operands import astype, floating, raw, together
from dlgpu.ops.shape import split
from dlgpu.tensor import Tensor, beside, record, wrap


def simple_rnn(
    x: Any,
    kernel: Tensor,
    recurrent_kernel: Tensor,
    bias: Tensor | None = None,
    hidden: Any = None,
    mask: Any = None,
    activation: Activation = "tanh",
    factors: Any = None,
) -> tuple[Tensor, Tensor]:
    """h[t] = activation(x[t] @ kernel + h[t-1] @ recurrent_kernel + bias)

    Args:
        x: (batch, time, features), computed with in the kernel's dtype.
        kernel, recurrent_kernel, bias: (features, units), (units, units), and (units,) or None.
        hidden: (batch, units), h before the first step; zeros if left out.
        mask: (batch, time) booleans; where False, the input is not looked at and the state stays as it was.
        activation: the name of a fused activation, or a function of a Tensor.
        factors: (1, batch, units), which h[t-1] is multiplied by before the product: recurrent dropout.
    Returns:
        h of all steps (batch, time, units), and of the last (batch, units).
    Raises:
        ValueError: shapes do not go together.
    """
    inputs, mask = _checked("simple_rnn", 1, (x, kernel, recurrent_kernel, bias, hidden), mask, factors)
    act = _function(activation)

    def step(drive: Tensor, recurrent_kernel: Tensor, bias: None, h: Tensor) -> tuple:
        return (act(drive + _products(h, recurrent_kernel, 1, factors)[0]),)

    if factors is None and fused_name(activation) == "tanh":
        return _fused(kernels.simple_rnn, kernels.simple_rnn_backward, step, inputs, mask)
    return _loop(step, mask, *inputs)


def lstm(
    x: Any,
    kernel: Tensor,
    recurrent_kernel: Tensor,
    bias: Tensor | None = None,
    hidden: Any = None,
    cell: Any = None,
    mask: Any = None,
    activation: Activation = "tanh",
    recurrent_activation: Activation = "sigmoid",
    factors: Any = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Long short-term memory (Hochreiter and Schmidhuber 1997): of z = x[t] @ kernel + h[t-1] @ recurrent_kernel + bias

    i, f, g, o = sigmoid(z_i), sigmoid(z_f), tanh(z_g), sigmoid(z_o)
    c[t] = f * c[t-1] + i * g
    h[t] = o * tanh(c[t])

    Args:
        x: (batch, time, features), computed with in the kernel's dtype.
        kernel, recurrent_kernel, bias: (features, 4 units), (units, 4 units), and (4 units,) or None; parts i, f, g, o.
        hidden, cell: (batch, units), h and c before the first step; zeros if left out.
        mask: (batch, time) booleans; where False, the input is not looked at and the states stay as they were.
        activation, recurrent_activation: in place of tanh and sigmoid; names of fused activations, or functions.
        factors: (4, batch, units), which h[t-1] is multiplied by before each part's product: recurrent dropout.
    Returns:
        h of all steps (batch, time, units), h and c of the last (batch, units).
    Raises:
        ValueError: shapes do not go together.
    """
    inputs, mask = _checked("lstm", 4, (x, kernel, recurrent_kernel, bias, hidden, cell), mask, factors)
    act, gate = _function(activation), _function(recurrent_activation)

    def step(drive: Tensor, recurrent_kernel: Tensor, bias: None, h: Tensor, c: Tensor) -> tuple:
        products = _products(h, recurrent_kernel, 4, factors)
        i, f, g, o = (a + b for a, b in zip(split(drive, 4, axis=-1), products))
        c = gate(f) * c + gate(i) * act(g)
        return gate(o) * act(c), c

    if factors is None and (fused_name(activation), fused_name(recurrent_activation)) == ("tanh", "sigmoid"):
        return _fused(kernels.lstm, kernels.lstm_backward, step, inputs, mask)
    return _loop(step, mask, *inputs)


def gru(
    x: Any,
    kernel: Tensor,
    recurrent_kernel: Tensor,
    bias: Tensor | None = None,
    hidden: Any = None,
    mask: Any = None,
    activation: Activation = "tanh",
    recurrent_activation: Activation = "sigmoid",
    reset_after: bool = True,
    factors: Any = None,
) -> tuple[Tensor, Tensor]:
    """Gated recurrent units (Cho et al. 2014).

    z = sigmoid(x[t] @ kernel_z + h[t-1] @ recurrent_z + bias_z), and r likewise
    g = tanh(x[t] @ kernel_g + bias_g + r * (h[t-1] @ recurrent_g + recurrent_bias_g)) if reset_after, else
    g = tanh(x[t] @ kernel_g + bias_g + (r * h[t-1]) @ recurrent_g)
    h[t] = z * h[t-1] + (1 - z) * g

    Args:
        x: (batch, time, features), computed with in the kernel's dtype.
        kernel, recurrent_kernel: (features, 3 units) and (units, 3 units), in parts z, r, g.
        bias: (2, 3 units), beside the inputs and beside the state, if reset_after; else (3 units,); or None.
        hidden: (batch, units), h before the first step; zeros if left out.
        mask: (batch, time) booleans; where False, the input is not looked at and the state stays as it was.
        activation, recurrent_activation: in place of tanh and sigmoid; names of fused activations, or functions.
        reset_after: whether the reset gate comes after the product with the state, as in cuDNN, or before it.
        factors: (3, batch, units), which h[t-1] is multiplied by before each part's product: recurrent dropout.
    Returns:
        h of all steps (batch, time, units), and of the last (batch, units).
    Raises:
        ValueError: shapes do not go together.
    """
    inputs, mask = _checked("gru", 3, (x, kernel, recurrent_kernel, bias, hidden), mask, factors, reset_after)
    act, gate = _function(activation), _function(recurrent_activation)

    def step(drive: Tensor, recurrent_kernel: Tensor, bias: Tensor | None, h: Tensor) -> tuple:
        drive_z, drive_r, drive_g = split(drive, 3, axis=-1)
        if reset_after:
            products = _products(h, recurrent_kernel, 3, factors)
            if bias is not None:
                products = [a + b for a, b in zip(products, split(bias, 3))]
        else:
            sigmoids, candidate = split(recurrent_kernel, [2 * h.shape[-1]], axis=-1)
            products = _products(h, sigmoids, 2, factors)
        z, r = gate(drive_z + products[0]), gate(drive_r + products[1])
        if reset_after:
            inner = r * products[2]
        else:
            inner = matmul(r * (h if factors is None else h * factors[2]), candidate)
        g = act(drive_g + inner)
        return (g + z * (h - g),)

    if factors is None and (fused_name(activation), fused_name(recurrent_activation)) == ("tanh", "sigmoid"):
        return _fused(kernels.gru, kernels.gru_backward, step, inputs, mask, reset_after)
    return _loop(step, mask, *inputs)


def _fused(forward: Callable, backward: Callable, step: Callable, inputs: Sequence, mask: Any, *variant: Any) -> Any:
    """The sequence by kernels, and by `_loop` when the derivative is to be differentiated."""
    x, kernel, recurrent_kernel, bias = inputs[:4]
    *outputs, saved = forward(*map(raw, inputs), mask, *variant)
    source, dtype = wrap(None, x.edge), x.dtype  # not x, which `saved` has

    def vjp(*grads: Any) -> list:
        wanted = source.requires_grad, any(w is not None and w.requires_grad for w in (kernel, recurrent_kernel, bias))
        arrays = list(map(raw, grads))
        found = backward(kernel.array, recurrent_kernel.array, saved, arrays, wanted, *variant)
        return [None if g is None else wrap(g) for g in found]

    def composite(source: Tensor, *others: Any) -> tuple:
        x = record(saved[0].astype(dtype, copy=False), (source,), lambda grad: (grad,))
        return _loop(step, mask, x, *others)

    return record(tuple(outputs), inputs, with_composite(vjp, composite, (source, *inputs[1:])))


def _loop(
    step: Callable, mask: Any, x: Tensor, kernel: Tensor, recurrent_kernel: Tensor, bias: Any, *states: Any
) -> Any:
    """The sequence of elementary operations; step(drive, recurrent_kernel, recurrent bias, *states) -> states."""
    if mask is not None:
        x = where(mask[:, :, None], x, 0)
    bias, state_bias = (bias[0], bias[1]) if bias is not None and bias.ndim == 2 else (bias, None)
    driven = matmul(x, kernel) if bias is None else matmul(x, kernel) + bias
    zeros = wrap(array_namespace(x.array).zeros((x.shape[0], recurrent_kernel.shape[0]), x.dtype))
    states = tuple(zeros if s is None else s for s in states)
    outputs = []
    for t, drive in enumerate(unstack_time(driven)):
        after = step(drive, recurrent_kernel, state_bias, *states)
        states = after if mask is None else tuple(where(mask[:, t, None], a, b) for a, b in zip(after, states))
        outputs.append(states[0])
    return stack_time(outputs), *states


def _products(h: Tensor, recurrent_kernel: Tensor, parts: int, factors: Any) -> list[Tensor]:
    """h @ recurrent_kernel in parts; for each of them h is multiplied by factors of its own."""
    if factors is None:
        return split(matmul(h, recurrent_kernel), parts, axis=-1)
    return [matmul(h * factors[k], weights) for k, weights in enumerate(split(recurrent_kernel, parts, axis=-1))]


def unstack_time(x: Tensor) -> tuple[Tensor, ...]:
    """(batch, time, ...) as (batch, ...) for each step; the transpose of `stack_time`."""

    def vjp(*grads: Any) -> tuple:
        like = next(g for g in grads if g is not None)
        return (stack_time([wrap(like.array * 0) if g is None else g for g in grads]),)

    return record(tuple(x.array.swapaxes(0, 1)), (x,), vjp)


def stack_time(steps: Sequence[Tensor]) -> Tensor:
    """(batch, ...) for each step as (batch, time, ...)."""
    array = array_namespace(steps[0].array).stack([s.array for s in steps], axis=1)
    return record(array, steps, unstack_time)


def _function(activation: Activation) -> Callable[[Tensor], Tensor]:
    return partial(fused_activation, name=activation) if isinstance(activation, str) else activation


def _checked(
    name: str, parts: int, inputs: Sequence, mask: Any, factors: Any, two_biases: bool = False
) -> tuple[tuple, Any]:
    """The inputs as Tensors of the kernel's dtype and the mask as an array, after their shapes have been checked."""
    x, kernel, recurrent_kernel, bias, *states = inputs
    x = astype(floating(x), kernel.dtype)
    if x.ndim != 3 or x.shape[1] == 0:
        raise ValueError(f"{name}: expected x of shape (batch, time, features) with time at least 1, got {x.shape}")
    batch, time, features = x.shape
    units = recurrent_kernel.shape[0]
    width = parts * units
    states = [None if s is None else astype(floating(together(x, s)[1]), kernel.dtype) for s in states]
    mask = mask.array if isinstance(mask, Tensor) else mask
    expected = [
        ("kernel", kernel, (features, width)),
        ("recurrent_kernel", recurrent_kernel, (units, width)),
        ("bias", bias, (2, width) if two_biases else (width,)),
        ("mask", mask, (batch, time)),
        ("factors", factors, (parts, batch, units)),
        *(("initial state", s, (batch, units)) for s in states),
    ]
    for what, value, shape in expected:
        if value is not None and value.shape != shape:
            raise ValueError(f"{name}: expected {what} of shape {shape} for x of shape {x.shape}, got {value.shape}")
    mask = None if mask is None else beside(mask, x.array).astype(bool, copy=False)
    return (x, kernel, recurrent_kernel, bias, *states), mask
