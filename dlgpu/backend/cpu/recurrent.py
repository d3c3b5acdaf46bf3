"""Recurrent networks on a CPU: each thread takes its rows of the batch through the whole sequence.

Arrays lie as (time, batch, columns), so that each step is one matrix. A column of ones after the inputs makes the bias
a row of the kernel, in the product and in its gradient.
"""

from functools import cache

import numpy as np

from dlgpu.backend.cpu import recurrent_cells as cells
from dlgpu.backend.cpu.arrays import by_reference, compiled
from dlgpu.backend.cpu.product import (
    IN_CACHE,
    LANES,
    PANEL,
    ROWS,
    multiply,
    multiply_transposed,
    pack,
    weight_gradients,
)
from dlgpu.backend.cpu.threads import share
from dlgpu.backend.recorder import call, empty
from dlgpu.backend.reference import recurrent as reference

SMALL = 1 << 15  # weights from which it pays to lay in order what their gradient is the product of
SHARED = 1 << 22  # multiplications from which it pays to wake another thread


@reference.simple_rnn.on("cpu")
def simple_rnn(x, kernel, recurrent_kernel, bias, hidden, mask):
    if not compiled(x):
        return by_reference(reference.simple_rnn, x, kernel, recurrent_kernel, bias, hidden, mask)
    inputs, absent = inputs_of(x, mask)
    units = len(recurrent_kernel)
    weights, kernel = packed(recurrent_kernel, [units]), packed(kernel, [units], bias=bias, ones=True)
    states = room_for_states(hidden, inputs, units)
    z = empty((len(x), weights.shape[1]), x.dtype)
    whole(cells.simple_rnn_steps, weights, states, kernel, inputs, absent, states, z)
    return batch_first(states[1:, :, :units]), states[-1, :, :units], (seen(inputs, x), inputs, states, absent)


@reference.simple_rnn_backward.on("cpu")
def simple_rnn_backward(kernel, recurrent_kernel, saved, grads, wanted):
    if not compiled(kernel):
        return by_reference(reference.simple_rnn_backward, kernel, recurrent_kernel, saved, grads, wanted)
    _, inputs, states, absent = saved
    units = len(recurrent_kernel)
    arrived, grad_h = time_first(grads[0], states), final(grads[1], states)
    weights = packed(recurrent_kernel.T, [units])
    grad_z = room_for_gates(1, units, inputs)
    whole(cells.simple_rnn_steps_back, weights, states, arrived, absent, states, grad_h, grad_z)
    by_hidden = grad_h[:, :units]
    by_x = by_inputs(kernel, grad_z) if wanted[0] else None
    return by_x, *(by_weights(inputs, states, grad_z, kernel, units) if wanted[1] else (None,) * 3), by_hidden


@reference.lstm.on("cpu")
def lstm(x, kernel, recurrent_kernel, bias, hidden, cell, mask):
    if not compiled(x):
        return by_reference(reference.lstm, x, kernel, recurrent_kernel, bias, hidden, cell, mask)
    inputs, absent = inputs_of(x, mask)
    units, halved = len(recurrent_kernel), (True, True, False, True)
    weights = packed(recurrent_kernel, [4 * units], halved)
    kernel = packed(kernel, [4 * units], halved, bias, ones=True)
    states, memory = room_for_states(hidden, inputs, units), room_for_states(cell, inputs, units)
    gates, bounded = room_for_gates(4, units, inputs), empty(states[1:].shape, x.dtype)
    z = empty(gates.shape[1:], x.dtype)
    whole(cells.lstm_steps, weights, states, kernel, inputs, absent, gates, states, memory, bounded, z)
    sequence, hidden, cell = batch_first(states[1:, :, :units]), states[-1, :, :units], memory[-1, :, :units]
    return sequence, hidden, cell, (seen(inputs, x), inputs, gates, states, memory, bounded, absent)


@reference.lstm_backward.on("cpu")
def lstm_backward(kernel, recurrent_kernel, saved, grads, wanted):
    if not compiled(kernel):
        return by_reference(reference.lstm_backward, kernel, recurrent_kernel, saved, grads, wanted)
    _, inputs, gates, states, memory, bounded, absent = saved
    units = len(recurrent_kernel)
    arrived, grad_h, grad_c = time_first(grads[0], states), final(grads[1], states), final(grads[2], states)
    grad_z = room_for_gates(4, units, inputs)
    weights = packed(recurrent_kernel.T, [units])
    by_step = grad_h, grad_c, grad_z
    whole(cells.lstm_steps_back, weights, states, arrived, absent, gates, memory, bounded, *by_step)
    by_states = grad_h[:, :units], grad_c[:, :units]
    by_x = by_inputs(kernel, grad_z) if wanted[0] else None
    return by_x, *(by_weights(inputs, states, grad_z, kernel, units) if wanted[1] else (None,) * 3), *by_states


@reference.gru.on("cpu")
def gru(x, kernel, recurrent_kernel, bias, hidden, mask, reset_after):
    if not compiled(x):
        return by_reference(reference.gru, x, kernel, recurrent_kernel, bias, hidden, mask, reset_after)
    inputs, absent = inputs_of(x, mask)
    units, parts = len(recurrent_kernel), [2 * len(recurrent_kernel), len(recurrent_kernel)]
    weights, candidate = (packed(w, [w.shape[1]], h) for w, h in zip(split(recurrent_kernel), [(True,), (False,)]))
    bias, state_bias = gru_biases(bias, recurrent_kernel, reset_after)
    kernel = packed(kernel, parts, (True, True, False), bias, ones=True)
    states, gates = room_for_states(hidden, inputs, units), room_for_gates(3, units, inputs)
    inner = empty(states[1:].shape, x.dtype)  # h[t-1] @ recurrent_g + recurrent_bias_g, or r * h[t-1]
    z, part = (empty((len(x), w.shape[1]), x.dtype) for w in (kernel, candidate))
    by_step = inputs, absent, gates, states, inner
    whole(cells.gru_steps, weights, states, candidate, state_bias, kernel, *by_step, z, part, reset_after)
    saved = seen(inputs, x), inputs, gates, states, inner, absent
    return batch_first(states[1:, :, :units]), states[-1, :, :units], saved


@reference.gru_backward.on("cpu")
def gru_backward(kernel, recurrent_kernel, saved, grads, wanted, reset_after):
    if not compiled(kernel):
        return by_reference(reference.gru_backward, kernel, recurrent_kernel, saved, grads, wanted, reset_after)
    _, inputs, gates, states, inner, absent = saved
    arrived, grad_h = time_first(grads[0], states), final(grads[1], states)
    units = len(recurrent_kernel)
    grad_z, grad_inner = room_for_gates(3, units, inputs), room_for_gates(1, units, inputs)
    weights, candidate = (packed(w.T, [units]) for w in split(recurrent_kernel))
    part = empty((0 if reset_after else len(grad_h), candidate.shape[1]), states.dtype)
    by_step = part, grad_h, grad_z, grad_inner, reset_after
    whole(cells.gru_steps_back, weights, states, candidate, arrived, absent, gates, states, inner, *by_step)
    by_hidden = grad_h[:, :units]
    by_x = by_inputs(kernel, grad_z) if wanted[0] else None
    if not wanted[1]:
        return by_x, None, None, None, by_hidden
    by_kernel = over_time(inputs, grad_z, len(kernel) + 1, 3 * units)
    by_recurrent = empty((units, 3 * units), inner.dtype)
    by_sigmoids, by_candidate = split(by_recurrent)
    call(np.copyto, by_sigmoids, over_time(states[:-1], grad_z, units, 2 * units))
    call(np.copyto, by_candidate, over_time(states[:-1] if reset_after else inner, grad_inner, units, units))
    by_bias = by_kernel[-1]
    if reset_after:  # beside the state the bias of z and r is the same, that of g is inside
        by_bias = empty((2, 3 * units), inner.dtype)
        call(np.copyto, by_bias, by_kernel[-1])
        call(np.sum, rows(grad_inner[..., :units]), 0, None, by_bias[1, 2 * units :])
    return by_x, by_kernel[:-1], by_recurrent, by_bias, by_hidden


def whole(loop, weights, states, *args):
    """The loop over all steps of a sequence."""
    parallel(loop, states.shape[1], states.size * weights.shape[1], weights, *args)


def parallel(loop, many, work, *args):
    """loop(*args, low, high) for so many rows; by several threads, if there is work enough for them."""
    if work < SHARED:
        call(loop, *args, 0, many)
    else:
        share(loop, many, 1, *args)


def inputs_of(x, mask):
    """(time, batch, columns): the features, ones, and room for full rows of gradients; masked steps are zeros. And the
    samples that sit a step out.
    """
    batch, time, features = x.shape
    inputs = empty((time, batch, full_rows(features + 1)), x.dtype)
    values = inputs[..., :features]
    call(np.copyto, values, x.transpose(1, 0, 2))
    call(np.copyto, inputs[..., features], 1)
    if mask is None:
        return inputs, empty((time, 0), bool)
    absent = empty((time, batch), bool)
    call(np.logical_not, mask.T, absent)
    call(np.copyto, values, 0, "same_kind", absent[..., None])
    return inputs, absent


def packed(weights, parts, halved=(False,), bias=None, ones=False):
    """Weights (rows, columns) in panels, with zeros after each of the parts up to full lanes.

    Args:
        parts: how many columns each part has.
        halved: of equal shares of the columns, which are halved.
        bias: (columns,) or None for zeros: one more row, if `ones`.
    """
    panels = empty((len(weights) + ones, sum(map(full_lanes, parts))), weights.dtype)
    scale, lanes = factors_and_lanes(tuple(parts), halved, weights.dtype)
    last = empty(0, weights.dtype) if bias is None else bias
    call(pack, weights, last, scale, lanes, len(panels), panels.reshape(-1))
    return panels


@cache
def factors_and_lanes(parts, halved, dtype):
    """For each column: 1/2 in the shares that are halved, else 1; and its place."""
    starts = np.cumsum([0, *map(full_lanes, parts)])
    lanes = np.concatenate([np.arange(start, start + part) for start, part in zip(starts, parts)])
    return np.repeat(np.where(halved, 0.5, 1), len(lanes) // len(halved)).astype(dtype), lanes


def full_lanes(columns):
    return -(-columns // LANES) * LANES


def full_rows(count):
    return -(-count // ROWS) * ROWS


def split(weights):
    """The columns of z and r, and those of g."""
    units = weights.shape[1] // 3
    return weights[:, : 2 * units], weights[:, 2 * units :]


def gru_biases(bias, weights, reset_after):
    """All that is added before the activations, beside the inputs, and recurrent_bias_g."""
    units, width = weights.shape
    inside = empty(full_lanes(units), weights.dtype)
    call(np.copyto, inside, 0)
    if bias is None or not reset_after:
        return bias, inside
    beside = empty(width, weights.dtype)
    call(np.copyto, beside, bias[0])
    call(np.add, beside[: 2 * units], bias[1, : 2 * units], beside[: 2 * units])
    call(np.copyto, inside[:units], bias[1, 2 * units :])
    return beside, inside


def room_for_states(first, like, units):
    """(time + 1, batch, units in full lanes) of which only the first step is set."""
    states = empty((len(like) + 1, like.shape[1], full_lanes(units)), like.dtype)
    call(np.copyto, states[0], 0)
    if first is not None:
        call(np.copyto, states[0, :, :units], first)
    return states


def room_for_gates(parts, units, like):
    """(time, batch, columns) for so many parts, one after another, the last in full lanes; then full lanes again."""
    return empty((*like.shape[:2], full_lanes((parts - 1) * units + full_lanes(units))), like.dtype)


def time_first(sequence, states):
    """(batch, time, units) as (time, batch, units in full lanes), contiguous; without units if None."""
    if sequence is None:
        return empty((len(states) - 1, states.shape[1], 0), states.dtype)
    turned, made = sequence.transpose(1, 0, 2), empty(states[1:].shape, states.dtype)
    if turned.shape == made.shape and turned.flags.c_contiguous and turned.flags.writeable:
        return turned
    call(np.copyto, made[..., : turned.shape[2]], turned)
    return made


def batch_first(steps):
    """(time, batch, columns) as (batch, time, columns); a view."""
    return steps.transpose(1, 0, 2)


def seen(inputs, x):
    """x with zeros where it is masked: a view."""
    return batch_first(inputs[..., : x.shape[2]])


def final(grad, states):
    """The gradient of a final state in full lanes, zeros for None, in memory of its own."""
    made = empty(states[0].shape, states.dtype)
    call(np.copyto, made, 0)
    if grad is not None:
        call(np.copyto, made[:, : grad.shape[1]], grad)
    return made


def by_inputs(kernel, grad_z):
    """The gradient of x."""
    features = len(kernel)
    weights = packed(kernel.T, [features])
    made = empty((*grad_z.shape[:2], weights.shape[1]), kernel.dtype)
    parallel(multiply, len(rows(made)), grad_z.size * features, rows(grad_z), weights, rows(made), False)
    return batch_first(made[..., :features])


def by_weights(inputs, states, grad_z, kernel, units):
    """The gradients of kernel, recurrent kernel and bias."""
    features, columns = kernel.shape
    before = inputs.shape[2]
    made = sum_of_products(weight_gradients, (rows(inputs), rows(states[:-1])), before + units, grad_z, columns)
    return made[:features], made[before : before + units], made[features]


def over_time(values, grad_z, many, columns):
    """The sum of values[..., :many].T @ grad_z[..., :columns] over all steps and samples."""
    return sum_of_products(multiply_transposed, (rows(values),), many, grad_z, columns)[:many]


def sum_of_products(loop, values, many, grad_z, columns):
    """(many in full groups, columns), what the loop makes of values and grad_z."""
    groups = full_rows(many) // ROWS
    made = empty((groups * ROWS, full_lanes(columns)), grad_z.dtype)
    left, right = (empty((groups if made.size > SMALL else 0, IN_CACHE * n), made.dtype) for n in (ROWS, PANEL))
    work = len(values[0]) * made.size
    parallel(loop, groups, work, *values, rows(grad_z), made, left, right)
    return made[:, :columns]


def rows(steps):
    """(time, batch, columns) as (time * batch, columns); a view of a contiguous array or of some of its columns."""
    time, batch, columns = steps.shape
    return steps.reshape(time * batch, columns)
