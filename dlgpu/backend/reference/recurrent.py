"""Recurrent networks: a whole sequence forward in one call and backward in another.

Inside, arrays lie as (time, rows, batch), so that each gate of a step is contiguous. A row of ones below the inputs
makes the bias a column of the weights, in the product and in its gradient. A sigmoid is tanh(z / 2) / 2 + 1/2; with the
first half in the weights, one tanh serves all gates of a step.

A forward kernel returns (sequence, final states..., saved), where saved[0] is x with zeros where it is masked, x itself
or a view of what else is saved. Its backward takes `saved`; `grads`, the gradients of (sequence, final states...), None
for one that nothing used; and `wanted`, whether (x's, the weights') gradients are.
It returns those of (x, kernel, recurrent_kernel, bias, initial states...), None for those not wanted.
"""

from itertools import repeat

from dlgpu.backend.dispatch import array_namespace, kernel


@kernel
def simple_rnn(x, kernel, recurrent_kernel, bias, hidden, mask):
    """h[t] = tanh(x[t] @ kernel + h[t-1] @ recurrent_kernel + bias)

    Args:
        x: (batch, time, features), floating; the other floating arguments are of its dtype.
        kernel, recurrent_kernel, bias: (features, units), (units, units), and (units,) or None.
        hidden: (batch, units), h before the first step; None for zeros.
        mask: (batch, time), booleans, or None; where it is False the input is not looked at and the state stays.
    Returns:
        h of all steps (batch, time, units), h of the last (batch, units), saved.
    """
    xp = array_namespace(x)
    inputs, absent = with_ones(x, mask)
    driven, weights = columns(kernel, bias, ones=True) @ inputs, columns(recurrent_kernel)
    states = room_for_states(hidden, driven, len(recurrent_kernel))
    z = xp.empty_like(states[0])
    for drive, before, h, held in zip(driven, states, states[1:], each(absent)):
        xp.matmul(weights, before, out=z)
        z += drive
        xp.tanh(z, out=h)
        if held is not None:
            xp.copyto(h, before, where=held)
    return batch_first(states[1:]), states[-1].T, (batch_first(inputs[:, :-1]), inputs, states, absent)


@kernel
def simple_rnn_backward(kernel, recurrent_kernel, saved, grads, wanted):
    """The gradients of `simple_rnn`."""
    xp = array_namespace(kernel)
    _, inputs, states, absent = saved
    grad_z, grad_h = xp.empty_like(states[1:]), final(grads[1], states[0])
    for arrived, d, h, held in zip(each(time_first(grads[0]), -1), grad_z[::-1], states[:0:-1], each(absent, -1)):
        if arrived is not None:
            grad_h += arrived
        xp.multiply(h, h, out=d)
        xp.subtract(1, d, out=d)
        d *= grad_h
        if held is None:
            xp.matmul(recurrent_kernel, d, out=grad_h)
        else:
            d *= ~held
            grad_h *= held
            grad_h += recurrent_kernel @ d
    by_x = batch_first(xp.matmul(kernel, grad_z)) if wanted[0] else None
    if not wanted[1]:
        return by_x, None, None, None, grad_h.T
    by_kernel = over_time(inputs, grad_z)
    return by_x, by_kernel[:-1], over_time(states[:-1], grad_z), by_kernel[-1], grad_h.T


@kernel
def lstm(x, kernel, recurrent_kernel, bias, hidden, cell, mask):
    """z = x[t] @ kernel + h[t-1] @ recurrent_kernel + bias
    i, f, g, o = sigmoid(z_i), sigmoid(z_f), tanh(z_g), sigmoid(z_o)
    c[t] = f * c[t-1] + i * g
    h[t] = o * tanh(c[t])

    Args:
        x: (batch, time, features), floating; the other floating arguments are of its dtype.
        kernel, recurrent_kernel, bias: (features, 4 units), (units, 4 units), and (4 units,) or None, in
            parts i, f, g, o.
        hidden, cell: (batch, units), h and c before the first step; None for zeros.
        mask: (batch, time), booleans, or None; where it is False the input is not looked at and the states stay.
    Returns:
        h of all steps (batch, time, units), h and c of the last (batch, units), saved.
    """
    xp, units = array_namespace(x), len(recurrent_kernel)
    inputs, absent = with_ones(x, mask)
    # With o in front the sigmoids are one block, o, i, f, and so are the gates that act on the cell, i, f, g.
    kernel, recurrent_kernel, bias = (last_part_first(w, units) for w in (kernel, recurrent_kernel, bias))
    gates = columns(kernel, bias, 3 * units, ones=True) @ inputs
    weights = columns(recurrent_kernel, halved=3 * units)
    states, cells = room_for_states(hidden, gates, units), room_for_states(cell, gates, units)
    bounded = xp.empty_like(cells[1:])
    z, new = xp.empty(gates.shape[1:], gates.dtype), xp.empty_like(cells[0])
    steps = zip(gates, states, states[1:], cells, cells[1:], bounded, each(absent))
    for gate, before, h, c_before, c, tanh_c, held in steps:
        o, i, f, g = gate.reshape(4, units, -1)
        xp.matmul(weights, before, out=z)
        gate += z
        xp.tanh(gate, out=gate)
        to_sigmoids(gate[: 3 * units])
        if held is not None:
            xp.copyto(gate, 0, where=held)
            xp.copyto(f, 1, where=held)
        xp.multiply(f, c_before, out=c)
        xp.multiply(i, g, out=new)
        c += new
        xp.tanh(c, out=tanh_c)
        xp.multiply(o, tanh_c, out=h)
        if held is not None:
            xp.copyto(h, before, where=held)
    saved = batch_first(inputs[:, :-1]), inputs, gates, states, cells, bounded, absent
    return batch_first(states[1:]), states[-1].T, cells[-1].T, saved


@kernel
def lstm_backward(kernel, recurrent_kernel, saved, grads, wanted):
    """The gradients of `lstm`."""
    xp, units = array_namespace(kernel), len(recurrent_kernel)
    _, inputs, gates, states, cells, bounded, absent = saved
    kernel, recurrent_kernel = last_part_first(kernel, units), last_part_first(recurrent_kernel, units)
    grad_z = xp.empty_like(gates)
    grad_h, grad_c = final(grads[1], states[0]), final(grads[2], states[0])
    through_h = xp.empty_like(grad_c)
    steps = zip(each(time_first(grads[0]), -1), gates[::-1], grad_z[::-1], cells[-2::-1], bounded[::-1])
    for (arrived, gate, d, c_before, tanh_c), held in zip(steps, each(absent, -1)):
        if arrived is not None:
            grad_h += arrived
        o, i, f, g = gate.reshape(4, units, -1)
        by_gate = d.reshape(4, units, -1)
        by_o, by_i, by_f, by_g = by_gate
        sigmoid_slopes(gate[: 3 * units], d[: 3 * units])
        by_o *= tanh_c
        by_o *= grad_h
        tanh_slope(tanh_c, through_h)
        through_h *= o
        through_h *= grad_h
        grad_c += through_h
        by_i *= g
        by_f *= c_before
        tanh_slope(g, by_g)
        by_g *= i
        by_cell = by_gate[1:]
        by_cell *= grad_c
        grad_c *= f
        if held is None:
            xp.matmul(recurrent_kernel, d, out=grad_h)
        else:  # its gates are o = i = 0 and f = 1, so that d = 0 and grad_c stays
            grad_h *= held
            grad_h += recurrent_kernel @ d
    by_x = batch_first(xp.matmul(kernel, grad_z)) if wanted[0] else None
    if not wanted[1]:
        return by_x, None, None, None, grad_h.T, grad_c.T
    by_kernel = last_part_first(over_time(inputs, grad_z), -units)
    by_recurrent = last_part_first(over_time(states[:-1], grad_z), -units)
    return by_x, by_kernel[:-1], by_recurrent, by_kernel[-1], grad_h.T, grad_c.T


@kernel
def gru(x, kernel, recurrent_kernel, bias, hidden, mask, reset_after):
    """z = sigmoid(x[t] @ kernel_z + h[t-1] @ recurrent_z + bias_z), and r likewise
    g = tanh(x[t] @ kernel_g + bias_g + r * (h[t-1] @ recurrent_g + recurrent_bias_g)) if reset_after, else
    g = tanh(x[t] @ kernel_g + bias_g + (r * h[t-1]) @ recurrent_g)
    h[t] = z * h[t-1] + (1 - z) * g

    Args:
        x: (batch, time, features), floating; the other floating arguments are of its dtype.
        kernel, recurrent_kernel: (features, 3 units) and (units, 3 units), in parts z, r, g.
        bias: (2, 3 units), beside the inputs and beside the state, if reset_after; else (3 units,); or None.
        hidden: (batch, units), h before the first step; None for zeros.
        mask: (batch, time), booleans, or None; where it is False the input is not looked at and the state stays.
        reset_after: whether the reset gate comes after the product with the state, or before it.
    Returns:
        h of all steps (batch, time, units), h of the last (batch, units), saved.
    """
    xp, units = array_namespace(x), len(recurrent_kernel)
    inputs, absent = with_ones(x, mask)
    bias, state_bias = bias if reset_after and bias is not None else (bias, None)
    gates = columns(kernel, bias, 2 * units, ones=True) @ inputs
    weights = columns(recurrent_kernel, state_bias, 2 * units, ones=reset_after)
    by_sigmoids, by_candidate = weights[: 2 * units], weights[2 * units :]
    states = room_for_states(hidden, gates, units, ones=reset_after)
    inner = xp.empty_like(gates[:, :units])  # h[t-1] @ recurrent_g + recurrent_bias_g, or r * h[t-1]
    batch = gates.shape[2]
    product, part = xp.empty((2 * units, batch), gates.dtype), xp.empty((units, batch), gates.dtype)
    for gate, before, h, within, held in zip(gates, states, states[1:, :units], inner, each(absent)):
        z, r, g = gate.reshape(3, units, -1)
        h_before, sigmoids = before[:units], gate[: 2 * units]
        xp.matmul(by_sigmoids, before, out=product)
        sigmoids += product
        xp.tanh(sigmoids, out=sigmoids)
        to_sigmoids(sigmoids)
        if reset_after:
            xp.matmul(by_candidate, before, out=within)
            xp.multiply(r, within, out=part)
        else:
            xp.multiply(r, h_before, out=within)
            xp.matmul(by_candidate, within, out=part)
        g += part
        xp.tanh(g, out=g)
        xp.subtract(h_before, g, out=h)
        h *= z
        h += g
        if held is not None:
            xp.copyto(z, 1, where=held)
            xp.copyto(h, h_before, where=held)
    saved = batch_first(inputs[:, :-1]), inputs, gates, states, inner
    return batch_first(states[1:, :units]), states[-1, :units].T, saved


@kernel
def gru_backward(kernel, recurrent_kernel, saved, grads, wanted, reset_after):
    """The gradients of `gru`. Where a sample sits out, z = 1: every gate's gradient is 0 and the state's stays."""
    xp, units = array_namespace(kernel), len(recurrent_kernel)
    _, inputs, gates, states, inner = saved
    recurrent_kernel = last_part_first(recurrent_kernel, units)
    # The gradients of h[t-1] @ recurrent_g, and of z, r, g before their activations.
    grad_z = xp.empty((len(gates), 4 * units, gates.shape[2]), gates.dtype)
    grad_h = final(grads[1], states[0, :units])
    kept, part = xp.empty_like(grad_h), xp.empty_like(grad_h)
    steps = zip(each(time_first(grads[0]), -1), gates[::-1], grad_z[::-1], states[-2::-1, :units], inner[::-1])
    for arrived, gate, d, h_before, within in steps:
        if arrived is not None:
            grad_h += arrived
        z, r, g = gate.reshape(3, units, -1)
        by_inner, by_z, by_r, by_g = d.reshape(4, units, -1)
        sigmoid_slopes(gate[: 2 * units], d[units : 3 * units])
        xp.subtract(h_before, g, out=part)
        part *= grad_h
        by_z *= part
        xp.multiply(grad_h, z, out=kept)
        grad_h -= kept
        tanh_slope(g, by_g)
        by_g *= grad_h
        if reset_after:
            xp.multiply(by_g, r, out=by_inner)
            xp.multiply(by_g, within, out=part)
            by_r *= part
            xp.matmul(recurrent_kernel, d[: 3 * units], out=grad_h)
        else:
            xp.matmul(recurrent_kernel[:, :units], by_g, out=part)
            by_r *= h_before
            by_r *= part
            part *= r
            xp.matmul(recurrent_kernel[:, units:], d[units : 3 * units], out=grad_h)
            grad_h += part
        grad_h += kept
    by_x = batch_first(xp.matmul(kernel, grad_z[:, units:])) if wanted[0] else None
    if not wanted[1]:
        return by_x, None, None, None, grad_h.T
    by_kernel = over_time(inputs, grad_z[:, units:])
    if reset_after:
        by_state = last_part_first(over_time(states[:-1], grad_z[:, : 3 * units]), -units)
        return by_x, by_kernel[:-1], by_state[:-1], xp.stack([by_kernel[-1], by_state[-1]]), grad_h.T
    by_sigmoids, by_candidate = over_time(states[:-1], grad_z[:, units:-units]), over_time(inner, grad_z[:, -units:])
    return by_x, by_kernel[:-1], xp.concatenate([by_sigmoids, by_candidate], 1), by_kernel[-1], grad_h.T


def with_ones(x, mask):
    """Inputs (batch, time, features) as (time, features + 1, batch), the last row ones, masked steps zeros.

    Also returns the (time, batch) booleans of the samples that sit a step out, None without a mask.
    """
    xp, (batch, time, features) = array_namespace(x), x.shape
    steps = xp.ones((time, features + 1, batch), x.dtype)
    steps[:, :-1] = x.transpose(1, 2, 0)
    if mask is None:
        return steps, None
    absent = ~mask.T
    xp.copyto(steps[:, :-1], 0, where=absent[:, None])
    return steps, absent


def columns(weights, bias=None, halved=0, ones=False):
    """Weights (rows, units) as (units, rows), with `ones` the bias or zeros after them; the first `halved` halved."""
    xp, (rows, units) = array_namespace(weights), weights.shape
    made = xp.empty((units, rows + ones), weights.dtype)
    made[:, :rows] = weights.T
    if ones:
        made[:, rows] = 0 if bias is None else bias
    made[:halved] *= 0.5
    return made


def room_for_states(first, like, units, ones=False):
    """(time + 1, units, batch) of which only the first step is set; with `ones`, a row of ones below."""
    time, _, batch = like.shape
    states = array_namespace(like).empty((time + 1, units + ones, batch), like.dtype)
    states[:, units:] = 1
    states[0, :units] = 0 if first is None else first.T
    return states


def to_sigmoids(halves):
    """tanh(z / 2) to sigmoid(z), in place."""
    halves *= 0.5
    halves += 0.5


def sigmoid_slopes(s, out):
    """s (1 - s): the derivative of a sigmoid by what it is taken of."""
    xp = array_namespace(s)
    xp.multiply(s, s, out=out)
    xp.subtract(s, out, out=out)


def tanh_slope(t, out):
    """1 - t^2: the derivative of a tanh by what it is taken of."""
    xp = array_namespace(t)
    xp.multiply(t, t, out=out)
    xp.subtract(1, out, out=out)


def each(steps, order=1):
    """The steps forwards (1) or backwards (-1); None for ever if there are none."""
    return repeat(None) if steps is None else steps[::order]


def time_first(sequence):
    """(batch, time, units) as (time, units, batch), contiguous; None as None."""
    return None if sequence is None else array_namespace(sequence).ascontiguousarray(sequence.transpose(1, 2, 0))


def batch_first(steps):
    """(time, units, batch) as (batch, time, units); a view."""
    return steps.transpose(2, 0, 1)


def final(grad, like):
    """The gradient of a final state, (batch, units) or None, as (units, batch) in memory of its own."""
    xp = array_namespace(like)
    return xp.zeros(like.shape, like.dtype) if grad is None else xp.array(grad.T, order="C")


def last_part_first(weights, units):
    """The last `units` columns moved to the front; with -units they go back. None as None."""
    return None if weights is None else array_namespace(weights).roll(weights, units, axis=-1)


def over_time(inputs, grad_z):
    """sum over t of inputs[t] @ grad_z[t].T, (rows, units), by blocks of steps that stay in cache."""
    time, _, batch = grad_z.shape
    steps = max(1, 1024 // max(1, batch))
    total = 0
    for low in range(0, max(1, time), steps):
        rows, units = (a[low : low + steps].swapaxes(0, 1) for a in (inputs, grad_z))
        total += rows.reshape(len(rows), -1) @ units.reshape(len(units), -1).T
    return total
