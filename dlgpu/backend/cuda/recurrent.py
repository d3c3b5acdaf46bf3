"""Recurrent networks on CUDA: one block a sample; the products with inputs before, for the weights after the launch."""

import functools
from collections.abc import Callable

from dlgpu.backend.cuda.geometry import contiguous, empty
from dlgpu.backend.cuda.linear import column_sums, matmul
from dlgpu.backend.cuda.source import MAX_THREADS, shared_limit, source
from dlgpu.backend.devices import device_of
from dlgpu.backend.dispatch import Kernel, array_namespace
from dlgpu.backend.reference import recurrent as reference

# The values that a block keeps in shared memory for each unit.
SHARED = {
    "simple_rnn_forward": 2,
    "simple_rnn_gradient": 1,
    "lstm_forward": 2,
    "lstm_gradient": 9,
    "gru_forward": 2,
    "gru_gradient": 7,
}


def _on_cuda(kernel: Kernel, weights: int) -> Callable:
    """Register a function for networks that a block has shared memory for, both ways; others run the reference.

    Args:
        kernel: what the function implements.
        weights: the place of the recurrent kernel among the arguments.
    """
    cell = kernel.__name__.removesuffix("_backward")
    most = max(SHARED[f"{cell}_forward"], SHARED[f"{cell}_gradient"])  # backward takes what forward saved

    def register(launches: Callable) -> Callable:
        @kernel.on("cuda")
        @functools.wraps(launches)
        def choose(*args, **options):
            recurrent = args[weights]
            fits = _bytes(most, len(recurrent), recurrent.dtype) <= shared_limit(device_of(recurrent))
            return (launches if fits else kernel.reference)(*args, **options)

        return choose

    return register


def _bytes(values, units, dtype):
    """The size of `values` for each unit, in what the kernels compute in."""
    return values * units * max(4, dtype.itemsize)


@_on_cuda(reference.simple_rnn, weights=2)
def simple_rnn(x, kernel, recurrent_kernel, bias, hidden, mask):
    inputs, mask, driven = _driven(x, kernel, bias, mask)
    states = _states(hidden, driven, len(recurrent_kernel))
    _launch("simple_rnn_forward", (contiguous(recurrent_kernel), driven, mask, states), driven, states, 1)
    return states[:, 1:], states[:, -1], (inputs, states, mask)


@_on_cuda(reference.simple_rnn_backward, weights=1)
def simple_rnn_backward(kernel, recurrent_kernel, saved, grads, wanted):
    inputs, states, mask = saved
    grad_z, grad_h = empty(states, states[:, 1:].shape), _final(grads[1], states)
    args = _transposed(recurrent_kernel), states, mask, _sequence(grads[0]), grad_h, grad_z
    _launch("simple_rnn_gradient", args, grad_z, states, 1)
    return *_by_inputs(inputs, grad_z, kernel, wanted, states[:, :-1]), grad_h


@_on_cuda(reference.lstm, weights=2)
def lstm(x, kernel, recurrent_kernel, bias, hidden, cell, mask):
    inputs, mask, gates = _driven(x, kernel, bias, mask)
    states, cells = (_states(first, gates, len(recurrent_kernel)) for first in (hidden, cell))
    _launch("lstm_forward", (contiguous(recurrent_kernel), gates, mask, states, cells), gates, states, 4)
    return states[:, 1:], states[:, -1], cells[:, -1], (inputs, gates, states, cells, mask)


@_on_cuda(reference.lstm_backward, weights=1)
def lstm_backward(kernel, recurrent_kernel, saved, grads, wanted):
    inputs, gates, states, cells, mask = saved
    grad_z = empty(gates, gates.shape)
    grad_h, grad_c = _final(grads[1], states), _final(grads[2], states)
    args = _transposed(recurrent_kernel), gates, cells, mask, _sequence(grads[0]), grad_h, grad_c, grad_z
    _launch("lstm_gradient", args, grad_z, states, 4)
    return *_by_inputs(inputs, grad_z, kernel, wanted, states[:, :-1]), grad_h, grad_c


@_on_cuda(reference.gru, weights=2)
def gru(x, kernel, recurrent_kernel, bias, hidden, mask, reset_after):
    bias, state_bias = bias if reset_after and bias is not None else (bias, None)
    inputs, mask, gates = _driven(x, kernel, bias, mask)
    states = _states(hidden, gates, len(recurrent_kernel))
    inner = empty(states, states[:, 1:].shape)
    state_bias = None if state_bias is None else contiguous(state_bias)
    args = contiguous(recurrent_kernel), state_bias, gates, inner, mask, states, reset_after
    _launch("gru_forward", args, gates, states, 3)
    return states[:, 1:], states[:, -1], (inputs, gates, states, inner, mask)


@_on_cuda(reference.gru_backward, weights=1)
def gru_backward(kernel, recurrent_kernel, saved, grads, wanted, reset_after):
    inputs, gates, states, inner, mask = saved
    units, before = states.shape[2], states[:, :-1]
    grad_z, grad_inner, grad_h = empty(gates, gates.shape), empty(inner, inner.shape), _final(grads[1], states)
    transposed, arrived = _transposed(recurrent_kernel), _sequence(grads[0])
    args = transposed, gates, inner, states, mask, arrived, grad_h, grad_z, grad_inner, reset_after
    _launch("gru_gradient", args, grad_z, states, 3)
    xp = array_namespace(gates)
    by_x, by_kernel, by_sigmoids, by_bias = _by_inputs(inputs, grad_z, kernel, wanted, before, 2 * units)
    if not wanted[1]:
        return by_x, None, None, None, grad_h
    by_candidate = _over_time(before if reset_after else inner, grad_inner)
    by_recurrent = xp.concatenate([by_sigmoids, by_candidate], 1)
    if reset_after:  # beside the state the bias of z and r is the same, that of g is inside
        by_bias = xp.stack([by_bias, xp.concatenate([by_bias[: 2 * units], _column_sums(grad_inner)])])
    return by_x, by_kernel, by_recurrent, by_bias, grad_h


def _driven(x, kernel, bias, mask):
    """x with zeros where it is masked, the mask, and x @ kernel + bias, all contiguous."""
    xp = array_namespace(x)
    if mask is not None:
        mask = contiguous(mask)
        x = xp.where(mask[:, :, None], x, xp.zeros((), x.dtype))
    driven = matmul(_rows(x), kernel)
    if bias is not None:
        driven += bias
    return x, mask, contiguous(driven).reshape(*x.shape[:2], kernel.shape[1])


def _states(first, like, units):
    """(batch, time + 1, units) of which only the first step is set."""
    batch, time = like.shape[:2]
    states = empty(like, (batch, time + 1, units))
    states[:, 0] = 0 if first is None else first
    return states


def _final(grad, states):
    """The gradient of a final state, zeros for None, in memory of its own."""
    xp = array_namespace(states)
    return xp.zeros(states[:, 0].shape, states.dtype) if grad is None else xp.array(grad, order="C")


def _sequence(grad):
    return None if grad is None else contiguous(grad)


def _transposed(weights):
    return contiguous(weights.T)


def _launch(kernel, args, gates, states, parts):
    """One block for each sample, with threads for `parts` columns for each unit."""
    batch, time, units = len(gates), gates.shape[1], states.shape[2]
    source("recurrent.cu").launch(
        kernel,
        grid=batch,
        block=min(MAX_THREADS, max(1, -(-parts * units // 32)) * 32),
        args=(*args, time, units),
        shared=_bytes(SHARED[kernel], units, gates.dtype),
        dtype=gates.dtype,
    )


def _by_inputs(inputs, grad_z, kernel, wanted, before, columns=None):
    """The gradients of x, kernel, recurrent_kernel (of its first `columns`) and bias, None where not wanted."""
    by_x = matmul(_rows(grad_z), kernel.T).reshape(inputs.shape) if wanted[0] else None
    if not wanted[1]:
        return by_x, None, None, None
    return by_x, _over_time(inputs, grad_z), _over_time(before, grad_z[..., :columns]), _column_sums(grad_z)


def _over_time(values, grad_z):
    """The sum of values.T @ grad_z over all samples and steps."""
    return matmul(_rows(values).T, _rows(grad_z))


def _column_sums(grad_z):
    return column_sums(_rows(grad_z))


def _rows(steps):
    """(batch, time, columns) as (batch * time, columns)."""
    return steps.reshape(steps.shape[0] * steps.shape[1], steps.shape[2])
