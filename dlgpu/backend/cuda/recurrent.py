"""Recurrent networks on CUDA: a whole sequence in one launch each way, with the weights in the multiprocessors.

Where these do not hold the weights, each step is a product and a launch. Large steps are for tensor cores, where these
may be used: in that one launch if the registers hold the weights, else in each step's product. The products with inputs
come before the sequence, those for the weights' gradients after it.
"""

from dlgpu.backend.cuda.geometry import BLOCK, blocks_for, contiguous, empty
from dlgpu.backend.cuda.linear import matmul, product, product_and_sums
from dlgpu.backend.cuda.persistence import is_large, layout, tiles
from dlgpu.backend.cuda.source import multiprocessors, shared_limit, source
from dlgpu.backend.cuda.tensor_cores import suits
from dlgpu.backend.cuda.update import collect
from dlgpu.backend.devices import device_of
from dlgpu.backend.dispatch import array_namespace
from dlgpu.backend.narrow import at_least_float32
from dlgpu.backend.reference import recurrent as reference


@reference.simple_rnn.on("cuda")
def simple_rnn(x, kernel, recurrent_kernel, bias, hidden, mask):
    inputs, mask, driven = _driven(x, kernel, bias, mask)
    weights, states = contiguous(recurrent_kernel), _states(hidden, driven, len(recurrent_kernel))
    if not _persists("simple_rnn_forward", (weights, driven, mask, states), states, columns=1):
        state = states[:, 0].copy()
        for t in range(x.shape[1]):
            _step("simple_rnn_step", (matmul(state, weights), driven, mask, states, state, t), states)
    return states[:, 1:], states[:, -1], (inputs, states, mask)


@reference.simple_rnn_backward.on("cuda")
def simple_rnn_backward(kernel, recurrent_kernel, saved, grads, wanted):
    inputs, states, mask = saved
    weights, grad_z = contiguous(recurrent_kernel), empty(states, states[:, 1:].shape)
    (grad_h,) = _final(grads[1:], states)
    args = states, mask, contiguous(grads[0]), grad_h, grad_z
    if not _persists("simple_rnn_gradient", (weights, *args), states):
        arrived, by_z = None, empty(states, grad_h.shape)
        for t in reversed(range(-1, states.shape[1] - 1)):
            _step("simple_rnn_step_gradient", (arrived, *args, by_z, t), states)
            arrived = matmul(by_z, weights.T)
    return *_by_inputs(inputs, grad_z, kernel, wanted, states[:, :-1]), grad_h


@reference.lstm.on("cuda")
def lstm(x, kernel, recurrent_kernel, bias, hidden, cell, mask):
    inputs, mask, gates = _driven(x, kernel, bias, mask)
    weights = contiguous(recurrent_kernel)
    states, cells = (_states(first, gates, len(recurrent_kernel)) for first in (hidden, cell))
    if not _persists("lstm_forward", (weights, gates, mask, states, cells), states, columns=4):
        state = states[:, 0].copy()
        for t in range(x.shape[1]):
            _step("lstm_step", (matmul(state, weights), gates, mask, states, cells, state, t), states)
    return states[:, 1:], states[:, -1], cells[:, -1], (inputs, gates, states, cells, mask)


@reference.lstm_backward.on("cuda")
def lstm_backward(kernel, recurrent_kernel, saved, grads, wanted):
    inputs, gates, states, cells, mask = saved
    weights, grad_z = contiguous(recurrent_kernel), empty(gates, gates.shape)
    grad_h, grad_c = _final(grads[1:], states)
    args = gates, cells, mask, contiguous(grads[0]), grad_h, grad_c, grad_z
    if not _persists("lstm_gradient", (weights, *args), states, parts=4):
        arrived, by_z = None, empty(gates, (len(gates), gates.shape[2]))
        for t in reversed(range(-1, gates.shape[1])):
            _step("lstm_step_gradient", (arrived, *args, by_z, t), states)
            arrived = matmul(by_z, weights.T)
    return *_by_inputs(inputs, grad_z, kernel, wanted, states[:, :-1]), grad_h, grad_c


@reference.gru.on("cuda")
def gru(x, kernel, recurrent_kernel, bias, hidden, mask, reset_after):
    bias, state_bias = bias if reset_after and bias is not None else (bias, None)
    inputs, mask, gates = _driven(x, kernel, bias, mask)
    weights, states = contiguous(recurrent_kernel), _states(hidden, gates, len(recurrent_kernel))
    inner = empty(states, states[:, 1:].shape)
    args = contiguous(state_bias), gates, inner, mask, states
    if not _persists("gru_forward", (weights, *args, reset_after), states, columns=3):
        state, reset = states[:, 0].copy(), empty(states, states[:, 0].shape)
        weights, by_reset = _phases(weights, reset_after)
        for t in range(x.shape[1]):
            common = *args, state, reset, reset_after, t
            _step("gru_step", (matmul(state, weights), None, *common), states)
            if not reset_after:
                _step("gru_step", (None, matmul(reset, by_reset), *common), states)
    return states[:, 1:], states[:, -1], (inputs, gates, states, inner, mask)


@reference.gru_backward.on("cuda")
def gru_backward(kernel, recurrent_kernel, saved, grads, wanted, reset_after):
    inputs, gates, states, inner, mask = saved
    units, before, weights = states.shape[2], states[:, :-1], contiguous(recurrent_kernel)
    grad_z, grad_inner, (grad_h,) = empty(gates, gates.shape), empty(inner, inner.shape), _final(grads[1:], states)
    args = gates, inner, states, mask, contiguous(grads[0]), grad_h, grad_z, grad_inner
    if not _persists("gru_gradient", (weights, *args, reset_after), states, parts=3):
        weights, by_reset = _phases(weights, reset_after)
        arrived, by_z, by_inner = None, empty(gates, (len(gates), weights.shape[1])), empty(states, grad_h.shape)
        for t in reversed(range(-1, gates.shape[1])):
            common = *args, by_z, by_inner, reset_after, t
            _step("gru_step_gradient", (arrived, None, *common), states)
            if t >= 0 and not reset_after:
                _step("gru_step_gradient", (None, matmul(by_inner, by_reset.T), *common), states)
            arrived = matmul(by_z, weights.T)
    xp = array_namespace(gates)
    by_x, by_kernel, by_sigmoids, by_bias = _by_inputs(inputs, grad_z, kernel, wanted, before, 2 * units)
    if not wanted[1]:
        return by_x, None, None, None, grad_h
    by_candidate, by_state_bias = _sums_over_time(before if reset_after else inner, grad_inner)
    by_recurrent = xp.concatenate([by_sigmoids, by_candidate], 1)
    if reset_after:  # beside the state the bias of z and r is the same, that of g is inside
        by_bias = xp.stack([by_bias, xp.concatenate([by_bias[: 2 * units], by_state_bias])])
    return by_x, by_kernel, by_recurrent, by_bias, grad_h


def _driven(x, kernel, bias, mask):
    """x with zeros where it is masked, the mask, and x @ kernel + bias, all contiguous."""
    xp = array_namespace(x)
    if mask is not None:
        mask = contiguous(mask)
        x = xp.where(mask[:, :, None], x, xp.zeros((), x.dtype))
    driven = product(_rows(x), kernel, bias)[0]
    return x, mask, driven.reshape(*x.shape[:2], kernel.shape[1])


def _states(first, like, units):
    """(batch, time + 1, units) of which only the first step is set."""
    batch, time = like.shape[:2]
    states = empty(like, (batch, time + 1, units))
    states[:, 0] = 0 if first is None else first
    return states


def _final(grads, states):
    """The gradients of final states, zeros for None, in memory of their own."""
    made = [empty(states, states[:, 0].shape) for _ in grads]
    collect(states, made, grads)
    return made


def _phases(weights, reset_after):
    """The weights by the parts of a GRU's step that follow each other: all, None; or of z and r, of g."""
    columns = 2 * len(weights)
    return (weights, None) if reset_after else (weights[:, :columns].copy(), weights[:, columns:].copy())


def _persists(kernel, args, states, columns=1, parts=1):
    """Run a whole sequence, if the multiprocessors hold the weights; else return False.

    Args:
        kernel: its name, which begins with its file's.
        args: its first arguments, the weights first of all.
        states: (batch, time + 1, units).
        columns: of the weights for each unit, that are summed up apart; or
        parts: of a sum over such columns.
    """
    batch, time, units = len(states), states.shape[1] - 1, states.shape[2]
    if not batch:
        return True
    device = device_of(states)
    dtype, room = states.dtype, (multiprocessors(device), shared_limit(device))
    if suits(states) and is_large(batch, parts * units, columns * units):
        tiled = tiles(batch, parts * units, columns * units, dtype.itemsize, *room)
        if tiled is not None:
            _on_tensor_cores(kernel, args, states, tiled)
        return tiled is not None
    plan = layout(batch, units, columns, parts * units, dtype.itemsize, *room)
    if plan is None:
        return False
    xp, together = array_namespace(states), plan.slices > 1
    vectors, arrivals = None, None
    if together:
        vectors = xp.zeros((2, plan.groups * plan.rows, plan.stride), at_least_float32(dtype))
        arrivals = xp.zeros(1, "uint32")
    source(f"{kernel.rpartition('_')[0]}.cu").launch(
        kernel,
        grid=(1, plan.slices, plan.groups) if together else plan.groups,
        block=plan.threads,
        args=(*args, vectors, arrivals, batch, time, units, plan.width, plan.rows),
        shared=plan.shared,
        dtype=dtype,
        defines=("SHAPE=" + ",".join(map(str, plan.shape)),),
        cooperative=together,
    )
    return True


def _on_tensor_cores(kernel, args, states, plan):
    """Run a whole sequence by the kernel of that name on tensor cores, with the same first arguments."""
    xp, (batch, length, units) = array_namespace(states), states.shape
    vectors, arrivals = xp.zeros((plan.sums[1], plan.stride), states.dtype), xp.zeros(1, "uint32")
    partial, carried = empty(states, plan.sums, "float32"), empty(states, (2, batch, units), "float32")
    sizes = batch, length - 1, units, plan.rows, plan.slices, plan.each
    source(f"tensor_{kernel.rpartition('_')[0]}.cu").launch(
        f"tensor_{kernel}",
        grid=(1, plan.across, plan.slices * plan.groups),
        block=plan.threads,
        args=(*args, vectors, partial, carried, arrivals, *sizes),
        shared=plan.shared,
        dtype=states.dtype,
        cooperative=True,
    )


def _step(kernel, args, states):
    """Launch a kernel that does one step of all samples."""
    batch, time, units = len(states), states.shape[1] - 1, states.shape[2]
    args, blocks = (*args, batch, time, units), blocks_for(batch * units)
    source(f"{kernel.partition('_step')[0]}.cu").launch(kernel, blocks, BLOCK, args, dtype=states.dtype)


def _by_inputs(inputs, grad_z, kernel, wanted, before, columns=None):
    """The gradients of x, kernel, recurrent_kernel (of its first `columns`) and bias, None where not wanted."""
    by_x = matmul(_rows(grad_z), kernel.T).reshape(inputs.shape) if wanted[0] else None
    if not wanted[1]:
        return by_x, None, None, None
    by_kernel, by_bias = _sums_over_time(inputs, grad_z)
    return by_x, by_kernel, matmul(_rows(before).T, _rows(grad_z[..., :columns])), by_bias


def _sums_over_time(values, grad_z):
    """The sums over all samples and steps of values.T @ grad_z, and of grad_z alone."""
    return product_and_sums(_rows(values).T, _rows(grad_z))


def _rows(steps):
    """(batch, time, columns) as (batch * time, columns)."""
    return steps.reshape(steps.shape[0] * steps.shape[1], steps.shape[2])
