"""Recurrent networks: one step, and whole sequences with their matrix products, for some rows of a batch.

Arrays lie as (time, rows, columns), weights in panels. A function of one step takes rows; `absent` has no columns if
there is no mask, `arrived` none if nothing used the sequence. Weights come with the columns of sigmoids halved, because
sigmoid(z) = tanh(z / 2) / 2 + 1/2: one tanh serves all gates. Each loop writes one array, so that it vectorizes.
"""

from dlgpu.backend.cpu.approximations import tanh
from dlgpu.backend.cpu.jit import assign, jit
from dlgpu.backend.cpu.product import multiply


@jit
def add_columns(values, out):
    """out += values[:, :columns of out]"""
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            out[row, column] += values[row, column]


@jit
def simple_rnn_cell(drive, product, absent, before, h, low, high):
    for r in range(low, high):
        d, p, new, old = drive[r], product[r], h[r], before[r]
        if absent.size and absent[r]:
            assign(new, old)
        else:
            for j in range(new.size):
                new[j] = tanh(d[j] + p[j])


@jit
def simple_rnn_steps(weights, kernel, inputs, absent, states, drive, product, low, high):
    for t in range(len(inputs)):
        multiply(inputs[t], kernel, drive, low, high)
        multiply(states[t], weights, product, low, high)
        simple_rnn_cell(drive, product, absent[t], states[t], states[t + 1], low, high)


@jit
def simple_rnn_cell_back(arrived, absent, h, product, grad_h, grad_z, low, high):
    one = h.dtype.type(1)
    for r in range(low, high):
        by_h, new, d = grad_h[r], h[r], grad_z[r]
        collect(by_h, product[r], arrived, r)
        if absent.size and absent[r]:
            d[:] = 0
        else:
            for j in range(new.size):
                d[j] = by_h[j] * (one - new[j] * new[j])
            by_h[:] = 0


@jit
def simple_rnn_steps_back(weights, arrived, absent, states, product, grad_h, grad_z, low, high):
    for t in range(len(grad_z) - 1, -1, -1):
        simple_rnn_cell_back(arrived[t], absent[t], states[t + 1], product, grad_h, grad_z[t], low, high)
        multiply(grad_z[t], weights, product, low, high)


@jit
def lstm_cell(gates, product, absent, before, h, c_before, c, bounded, low, high):
    units, half = h.shape[1], gates.dtype.type(0.5)
    for r in range(low, high):
        gate, p, new, old = gates[r], product[r], c[r], c_before[r]
        if absent.size and absent[r]:
            assign(h[r], before[r])
            assign(new, old)
            continue
        for j in range(gate.size):
            gate[j] = tanh(gate[j] + p[j])
        to_sigmoids(gate[: 2 * units], half)
        to_sigmoids(gate[3 * units :], half)
        i, f, g, o = gate[:units], gate[units:], gate[2 * units :], gate[3 * units :]
        for j in range(units):
            new[j] = f[j] * old[j] + i[j] * g[j]
        tanh_c, out = bounded[r], h[r]
        for j in range(units):
            tanh_c[j] = tanh(new[j])
        for j in range(units):
            out[j] = o[j] * tanh_c[j]


@jit
def lstm_steps(weights, kernel, inputs, absent, gates, states, cells, bounded, product, low, high):
    for t in range(len(gates)):
        multiply(inputs[t], kernel, gates[t], low, high)
        multiply(states[t], weights, product, low, high)
        args = gates[t], product, absent[t], states[t], states[t + 1], cells[t], cells[t + 1], bounded[t], low, high
        lstm_cell(*args)


@jit
def lstm_cell_back(arrived, absent, gates, c_before, bounded, product, grad_h, grad_c, grad_z, low, high):
    units, one = bounded.shape[1], bounded.dtype.type(1)
    for r in range(low, high):
        by_h, by_c, d = grad_h[r], grad_c[r], grad_z[r]
        collect(by_h, product[r], arrived, r)
        if absent.size and absent[r]:
            d[:] = 0
            continue
        gate, old, tanh_c = gates[r], c_before[r], bounded[r]
        i, f, g, o = gate[:units], gate[units:], gate[2 * units :], gate[3 * units :]
        by_i, by_f, by_g, by_o = d[:units], d[units:], d[2 * units :], d[3 * units :]
        for j in range(units):
            by_o[j] = by_h[j] * tanh_c[j] * (o[j] - o[j] * o[j])
        for j in range(units):
            by_c[j] += by_h[j] * o[j] * (one - tanh_c[j] * tanh_c[j])
        for j in range(units):
            by_i[j] = by_c[j] * g[j] * (i[j] - i[j] * i[j])
        for j in range(units):
            by_f[j] = by_c[j] * old[j] * (f[j] - f[j] * f[j])
        for j in range(units):
            by_g[j] = by_c[j] * i[j] * (one - g[j] * g[j])
        for j in range(units):
            by_c[j] *= f[j]
        by_h[:] = 0


@jit
def lstm_steps_back(weights, arrived, absent, gates, cells, bounded, product, grad_h, grad_c, grad_z, low, high):
    for t in range(len(grad_z) - 1, -1, -1):
        by_state = product, grad_h, grad_c, grad_z[t], low, high
        lstm_cell_back(arrived[t], absent[t], gates[t], cells[t], bounded[t], *by_state)
        multiply(grad_z[t], weights, product, low, high)


@jit
def gru_sigmoids(gates, product, before, inner, reset_after, low, high):
    """z and r in place; unless reset_after, inner = r * h[t-1]."""
    units, half = inner.shape[1], gates.dtype.type(0.5)
    for r in range(low, high):
        gate, p, old, within = gates[r], product[r], before[r], inner[r]
        for j in range(2 * units):
            gate[j] = tanh(gate[j] + p[j])
        to_sigmoids(gate[: 2 * units], half)
        if not reset_after:
            reset = gate[units:]
            for j in range(units):
                within[j] = reset[j] * old[j]


@jit
def gru_state(gates, product, bias, absent, before, h, inner, reset_after, low, high):
    """g in place, and h; if reset_after, inner = h[t-1] @ recurrent_g + bias, of which the product comes."""
    units = h.shape[1]
    for r in range(low, high):
        gate, p, old, new, within = gates[r], product[r], before[r], h[r], inner[r]
        z, reset, g = gate[:units], gate[units:], gate[gate.size - product.shape[1] :]
        if reset_after:
            for j in range(units):
                within[j] = p[j] + bias[j]
            for j in range(units):
                g[j] = tanh(g[j] + reset[j] * within[j])
        else:
            for j in range(units):
                g[j] = tanh(g[j] + p[j])
        if absent.size and absent[r]:
            assign(new, old)
        else:
            for j in range(units):
                new[j] = g[j] + z[j] * (old[j] - g[j])


@jit
def gru_steps(
    weights, candidate, bias, kernel, inputs, absent, gates, states, inner, product, part, reset_after, low, high
):
    for t in range(len(gates)):
        before, within = states[t], inner[t]
        multiply(inputs[t], kernel, gates[t], low, high)
        multiply(before, weights, product, low, high)
        gru_sigmoids(gates[t], product, before, within, reset_after, low, high)
        multiply(before if reset_after else within, candidate, part, low, high)
        gru_state(gates[t], part, bias, absent[t], before, states[t + 1], within, reset_after, low, high)


@jit
def gru_state_back(
    arrived, absent, gates, columns, before, inner, product, grad_h, grad_z, grad_inner, reset_after, low, high
):
    """The gradients of z and g, of the product with recurrent_g, and of r if reset_after; grad_h is what z keeps."""
    units, one = before.shape[1], before.dtype.type(1)
    for r in range(low, high):
        by_h, d, by_inner = grad_h[r], grad_z[r], grad_inner[r]
        collect(by_h, product[r], arrived, r)
        if absent.size and absent[r]:
            d[:] = 0
            by_inner[:] = 0
            continue
        gate, old, within = gates[r], before[r], inner[r]
        z, reset, g = gate[:units], gate[units:], gate[gate.size - columns :]
        by_z, by_r, by_g = d[:units], d[units:], d[2 * units :]
        for j in range(units):
            by_z[j] = by_h[j] * (old[j] - g[j]) * (z[j] - z[j] * z[j])
        for j in range(units):
            by_g[j] = by_h[j] * (one - z[j]) * (one - g[j] * g[j])
        for j in range(units):
            by_h[j] *= z[j]
        if reset_after:
            for j in range(units):
                by_inner[j] = by_g[j] * reset[j]
            for j in range(units):
                by_r[j] = by_g[j] * within[j] * (reset[j] - reset[j] * reset[j])
        else:
            for j in range(units):
                by_inner[j] = by_g[j]


@jit
def gru_sigmoids_back(gates, before, part, grad_h, grad_z, reset_after, low, high):
    """What comes through the product with recurrent_g."""
    units = before.shape[1]
    for r in range(low, high):
        by_h, p, old, reset, by_r = grad_h[r], part[r], before[r], gates[r, units:], grad_z[r, units:]
        if reset_after:
            for j in range(units):
                by_h[j] += p[j]
        else:
            for j in range(units):
                by_r[j] = old[j] * p[j] * (reset[j] - reset[j] * reset[j])
            for j in range(units):
                by_h[j] += p[j] * reset[j]


@jit
def gru_steps_back(
    weights, candidate, arrived, absent, gates, states, inner, product, part, grad_h, grad_z, grad_inner, reset_after,
    low, high,
):  # fmt: skip
    columns = part.shape[1]
    for t in range(len(grad_z) - 1, -1, -1):
        saved = gates[t], columns, states[t], inner[t]
        by_state = product, grad_h, grad_z[t], grad_inner[t], reset_after, low, high
        gru_state_back(arrived[t], absent[t], *saved, *by_state)
        multiply(grad_inner[t], candidate, part, low, high)
        gru_sigmoids_back(gates[t], states[t], part, grad_h, grad_z[t], reset_after, low, high)
        multiply(grad_z[t], weights, product, low, high)


@jit
def collect(by_h, through, arrived, r):
    """Add what comes to a state from the step after it, and from outside."""
    for j in range(by_h.size):
        by_h[j] += through[j]
    if arrived.size:
        row = arrived[r]
        for j in range(by_h.size):
            by_h[j] += row[j]


@jit
def to_sigmoids(halves, half):
    """tanh(z / 2) to sigmoid(z), in place."""
    for j in range(halves.size):
        halves[j] = half * halves[j] + half
