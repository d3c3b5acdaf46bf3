"""The recurrent row: what it computes, its derivatives of every order, and its errors."""

import numpy as np
import pytest

from dlgpu import ops
from dlgpu.ops import recurrent
from dlgpu.tensor import Tensor
from dlgpu.testing import gradcheck

random = np.random.default_rng(0)


def simple_rnn(x, kernel, recurrent_kernel, bias, hidden, cell, mask, **how):
    return recurrent.simple_rnn(x, kernel, recurrent_kernel, bias, hidden, mask, **how)


def gru_before(x, kernel, recurrent_kernel, bias, hidden, cell, mask, **how):
    return recurrent.gru(x, kernel, recurrent_kernel, bias, hidden, mask, reset_after=False, **how)


def gru_after(x, kernel, recurrent_kernel, bias, hidden, cell, mask, **how):
    return recurrent.gru(x, kernel, recurrent_kernel, bias, hidden, mask, **how)


# the operation, the parts of its kernel, its bias for so many columns
CELLS = [
    pytest.param(simple_rnn, 1, lambda width: (width,), id="simple_rnn"),
    pytest.param(recurrent.lstm, 4, lambda width: (width,), id="lstm"),
    pytest.param(gru_after, 3, lambda width: (2, width), id="gru_after"),
    pytest.param(gru_before, 3, lambda width: (width,), id="gru_before"),
]


def arguments(operation, parts, bias_shape, batch, time, features, units):
    """x, kernel, recurrent_kernel, bias, hidden, cell."""
    width = parts * units
    shapes = [(batch, time, features), (features, width), (units, width), bias_shape(width), (batch, units)]
    made = [random.uniform(-1, 1, s) for s in shapes]
    made[0] = np.asfortranarray(made[0])
    return [*made, random.uniform(-1, 1, (batch, units)) if operation is recurrent.lstm else None]


MASK = np.array([[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 1]], bool)


def definition(operation, x, kernel, recurrent_kernel, bias, hidden, cell, mask):
    """One sample and one step at a time, as the docstrings say."""

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    u, h, c = len(recurrent_kernel), hidden.copy(), None if cell is None else cell.copy()
    outputs = np.empty((*x.shape[:2], u))
    for n, t in np.ndindex(x.shape[:2]):
        if mask is None or mask[n, t]:
            drive, inner = x[n, t] @ kernel, h[n] @ recurrent_kernel
            if operation is simple_rnn:
                h[n] = np.tanh(drive + inner + bias)
            elif operation is recurrent.lstm:
                i, f, g, o = np.split(drive + inner + bias, 4)
                c[n] = sigmoid(f) * c[n] + sigmoid(i) * np.tanh(g)
                h[n] = sigmoid(o) * np.tanh(c[n])
            else:
                after = operation is gru_after
                drive = drive + (bias[0] if after else bias)
                inner = inner + (bias[1] if after else 0)
                z, r = np.split(sigmoid(drive[: 2 * u] + inner[: 2 * u]), 2)
                inner = r * inner[2 * u :] if after else (r * h[n]) @ recurrent_kernel[:, 2 * u :]
                g = np.tanh(drive[2 * u :] + inner)
                h[n] = z * h[n] + (1 - z) * g
        outputs[n, t] = h[n]
    return (outputs, h, c) if operation is recurrent.lstm else (outputs, h)


@pytest.mark.parametrize(("operation", "parts", "bias_shape"), CELLS)
@pytest.mark.parametrize("mask", [None, MASK])
def test_sequences_are_their_equations_by_kernel_and_by_loop(operation, parts, bias_shape, mask):
    args = arguments(operation, parts, bias_shape, 3, 4, 2, 5)
    expected = definition(operation, *args, mask)
    tensors = [None if a is None else Tensor(a) for a in args]
    activations = {"activation": ops.tanh}  # not one of the fused ones by identity: it goes the other way
    for found in (operation(*tensors, mask), operation(*tensors, mask, **activations)):
        assert len(found) == len(expected)
        for f, e in zip(found, expected):
            np.testing.assert_allclose(f.numpy(), e, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("operation", "parts", "bias_shape"), CELLS)
@pytest.mark.parametrize("mask", [None, MASK[:, :3]])
def test_derivatives_of_first_and_second_order(operation, parts, bias_shape, mask):
    args = arguments(operation, parts, bias_shape, 3, 3, 1, 2)
    gradcheck(operation, *args, mask)


@pytest.mark.parametrize(("operation", "parts", "bias_shape"), CELLS)
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (1, 2, 3, 1), (0, 2, 1, 2)])
def test_derivatives_at_the_smallest_sizes(operation, parts, bias_shape, sizes):
    args = arguments(operation, parts, bias_shape, *sizes)
    gradcheck(operation, *args, None, second=sizes == (1, 1, 1, 1))


@pytest.mark.parametrize(("operation", "parts", "bias_shape"), CELLS)
@pytest.mark.parametrize("used", [0, 1, -1])
def test_gradients_of_one_output_alone_without_bias_and_states(operation, parts, bias_shape, used):
    x, kernel, recurrent_kernel, *_ = arguments(operation, parts, bias_shape, 3, 4, 2, 3)

    def one(*inputs):
        return operation(*inputs, None, None, None, MASK)[used]

    gradcheck(one, x, kernel, recurrent_kernel, second=False)


@pytest.mark.parametrize(("operation", "parts", "bias_shape"), CELLS)
def test_long_sequences_have_the_gradients_of_the_loop(operation, parts, bias_shape):
    # longer than one block of the product that makes the weights' gradients
    args = arguments(operation, parts, bias_shape, 300, 9, 2, 3)
    mask = random.uniform(size=(300, 9)) < 0.7

    def gradients(**how):
        def loss(*inputs):
            return sum((o * o).sum() for o in operation(*inputs, *([None] * (6 - len(inputs))), mask, **how))

        inputs = [a for a in args if a is not None]
        return ops.grad(loss, range(len(inputs)))(*inputs)

    for by_kernel, by_loop in zip(gradients(), gradients(activation=ops.tanh)):
        np.testing.assert_allclose(by_kernel.numpy(), by_loop.numpy(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("operation", "parts", "bias_shape"), CELLS)
def test_masked_steps_are_not_looked_at(operation, parts, bias_shape):
    args = arguments(operation, parts, bias_shape, 3, 4, 2, 3)
    spoiled = np.where(MASK[:, :, None], args[0], np.nan)

    def gradients(x):
        inputs = [a for a in args[1:] if a is not None]
        rest = [None] * (5 - len(inputs))
        return ops.grad(lambda *i: operation(*i, *rest, MASK)[0].sum(), range(len(inputs) + 1))(x, *inputs)

    for clean, dirty in zip(gradients(args[0]), gradients(spoiled)):
        np.testing.assert_array_equal(clean.numpy(), dirty.numpy())


@pytest.mark.parametrize(("operation", "parts", "bias_shape"), CELLS)
def test_float32_stays_float32_and_is_near_float64(operation, parts, bias_shape):
    args = arguments(operation, parts, bias_shape, 3, 20, 4, 6)
    exact = operation(*[None if a is None else Tensor(a) for a in args], None)
    single = [None if a is None else Tensor(a.astype(np.float32), requires_grad=True) for a in args]
    outputs = operation(*single, None)
    for o, e in zip(outputs, exact):
        assert o.dtype == np.float32
        np.testing.assert_allclose(o.numpy(), e.numpy(), rtol=0, atol=1e-6)
    outputs[0].sum().backward()
    assert all(t.grad.dtype == np.float32 for t in single if t is not None)


@pytest.mark.parametrize("name", ["relu", "softsign"])
def test_other_activations_run_and_differentiate(name):
    args = arguments(recurrent.lstm, 4, lambda width: (width,), 2, 2, 1, 2)
    gradcheck(lambda *a: recurrent.lstm(*a, None, name, "hard_sigmoid"), *args, second=name != "relu")


def test_backward_may_run_twice():
    args = arguments(recurrent.lstm, 4, lambda width: (width,), 2, 3, 2, 2)
    x = Tensor(args[0], requires_grad=True)
    loss = recurrent.lstm(x, *map(Tensor, args[1:]))[0].sum()
    loss.backward()
    once = x.grad.numpy().copy()
    loss.backward()
    np.testing.assert_array_equal(x.grad.numpy(), 2 * once)


@pytest.mark.parametrize(
    ("place", "shape", "message"),
    [
        (0, (3, 2), "expected x of shape \\(batch, time, features\\) with time at least 1, got \\(3, 2\\)"),
        (0, (3, 0, 2), "with time at least 1, got \\(3, 0, 2\\)"),
        (1, (3, 20), "expected kernel of shape \\(2, 20\\) for x of shape \\(3, 4, 2\\), got \\(3, 20\\)"),
        (2, (5, 15), "expected recurrent_kernel of shape \\(5, 20\\)"),
        (3, (2, 20), "expected bias of shape \\(20,\\)"),
        (5, (3, 4), "expected initial state of shape \\(3, 5\\)"),
        (6, (4, 4), "expected mask of shape \\(3, 4\\)"),
    ],
)
def test_shapes_that_do_not_fit_are_named(place, shape, message):
    args = [*map(Tensor, arguments(recurrent.lstm, 4, lambda width: (width,), 3, 4, 2, 5)), None]
    args[place] = Tensor(np.zeros(shape))
    with pytest.raises(ValueError, match=f"lstm: .*{message}"):
        recurrent.lstm(*args)
