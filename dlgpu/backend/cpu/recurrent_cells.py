"""Recurrent networks: one step, and whole sequences with their matrix products, for some rows of a batch.

Arrays lie as (time, rows, columns), weights in panels. A function of one step takes rows; `absent` has no columns if
there is no mask, `arrived` none if nothing used the sequence. Weights come with the columns of sigmoids halved, because
sigmoid(z) = tanh(z / 2) / 2 + 1/2: one tanh serves all gates.

A row of states is as long as its vectors, and what is after its units means nothing. The gates of a row follow one
another without a gap: the last vector of a gate runs over into the next one. So a row of gates is written from the last
vector to the first, and each of them gate by gate: what has been run over is written after that.
"""

from dlgpu.backend.cpu.approximations import tanh
from dlgpu.backend.cpu.jit import jit
from dlgpu.backend.cpu.product import multiply
from dlgpu.backend.cpu.vectors import LANES, load, store


@jit
def simple_rnn_cell(z, absent, before, h, low, high):
    for r in range(low, high):
        if absent.size and absent[r]:
            copy(before[r], h[r])
            continue
        for j in range(0, h.shape[1], LANES):
            store(h[r], j, tanh(load(z[r], j)))


@jit
def simple_rnn_steps(weights, kernel, inputs, absent, states, z, low, high):
    for t in range(len(inputs)):
        multiply(inputs[t], kernel, z, False, low, high)
        multiply(states[t], weights, z, True, low, high)
        simple_rnn_cell(z, absent[t], states[t], states[t + 1], low, high)


@jit
def simple_rnn_cell_back(arrived, absent, h, grad_h, grad_z, low, high):
    zero, one = h.dtype.type(0), h.dtype.type(1)
    for r in range(low, high):
        if absent.size and absent[r]:
            hold(grad_h, arrived, r)
            fill(grad_z[r], zero)
            continue
        for j in range(0, h.shape[1], LANES):
            by_h, new = to_state(grad_h, arrived, r, j), load(h[r], j)
            store(grad_z[r], j, by_h * (one - new * new))
            store(grad_h[r], j, zero)


@jit
def simple_rnn_steps_back(weights, arrived, absent, states, grad_h, grad_z, low, high):
    for t in range(len(grad_z) - 1, -1, -1):
        simple_rnn_cell_back(arrived[t], absent[t], states[t + 1], grad_h, grad_z[t], low, high)
        multiply(grad_z[t], weights, grad_h, True, low, high)


@jit
def lstm_cell(z, absent, before, h, c_before, c, gates, bounded, units, low, high):
    half = z.dtype.type(0.5)
    for r in range(low, high):
        if absent.size and absent[r]:
            copy(before[r], h[r])
            copy(c_before[r], c[r])
            continue
        drive, gate = z[r], gates[r]
        for j in range(h.shape[1] - LANES, -1, -LANES):
            i = tanh(load(drive, j)) * half + half
            f = tanh(load(drive, units + j)) * half + half
            g = tanh(load(drive, 2 * units + j))
            o = tanh(load(drive, 3 * units + j)) * half + half
            state = f * load(c_before[r], j) + i * g
            tanh_c = tanh(state)
            store(gate, j, i)
            store(gate, units + j, f)
            store(gate, 2 * units + j, g)
            store(gate, 3 * units + j, o)
            store(c[r], j, state)
            store(bounded[r], j, tanh_c)
            store(h[r], j, o * tanh_c)


@jit
def lstm_steps(weights, kernel, inputs, absent, gates, states, cells, bounded, z, low, high):
    units = len(weights)
    for t in range(len(gates)):
        multiply(inputs[t], kernel, z, False, low, high)
        multiply(states[t], weights, z, True, low, high)
        by_state = states[t], states[t + 1], cells[t], cells[t + 1]
        lstm_cell(z, absent[t], *by_state, gates[t], bounded[t], units, low, high)


@jit
def lstm_cell_back(arrived, absent, gates, c_before, bounded, grad_h, grad_c, grad_z, units, low, high):
    zero, one = gates.dtype.type(0), gates.dtype.type(1)
    for r in range(low, high):
        d, gate = grad_z[r], gates[r]
        if absent.size and absent[r]:
            hold(grad_h, arrived, r)
            fill(d, zero)
            continue
        for j in range(bounded.shape[1] - LANES, -1, -LANES):
            i, f = load(gate, j), load(gate, units + j)
            g, o = load(gate, 2 * units + j), load(gate, 3 * units + j)
            by_h, tanh_c = to_state(grad_h, arrived, r, j), load(bounded[r], j)
            by_c = load(grad_c[r], j) + by_h * o * (one - tanh_c * tanh_c)
            store(d, j, by_c * g * (i - i * i))
            store(d, units + j, by_c * load(c_before[r], j) * (f - f * f))
            store(d, 2 * units + j, by_c * i * (one - g * g))
            store(d, 3 * units + j, by_h * tanh_c * (o - o * o))
            store(grad_c[r], j, by_c * f)
            store(grad_h[r], j, zero)


@jit
def lstm_steps_back(weights, arrived, absent, gates, cells, bounded, grad_h, grad_c, grad_z, low, high):
    units = len(weights) // 4
    for t in range(len(grad_z) - 1, -1, -1):
        by_state = grad_h, grad_c, grad_z[t], units, low, high
        lstm_cell_back(arrived[t], absent[t], gates[t], cells[t], bounded[t], *by_state)
        multiply(grad_z[t], weights, grad_h, True, low, high)


@jit
def gru_sigmoids(z, before, gates, inner, units, reset_after, low, high):
    """The gates z and r; unless reset_after, inner = r * h[t-1]."""
    half = z.dtype.type(0.5)
    for r in range(low, high):
        for j in range(before.shape[1] - LANES, -1, -LANES):
            reset = tanh(load(z[r], units + j)) * half + half
            store(gates[r], j, tanh(load(z[r], j)) * half + half)
            store(gates[r], units + j, reset)
            if not reset_after:
                store(inner[r], j, reset * load(before[r], j))


@jit
def gru_state(z, product, bias, absent, before, h, gates, inner, units, reset_after, low, high):
    """The gate g, and h; if reset_after, inner = h[t-1] @ recurrent_g + bias, of which the product comes."""
    first = z.shape[1] - h.shape[1]
    for r in range(low, high):
        held = absent.size and absent[r]
        for j in range(0, h.shape[1], LANES):
            through = load(product[r], j)
            if reset_after:
                through = through + load(bias, j)
                store(inner[r], j, through)
                through = through * load(gates[r], units + j)
            g, old = tanh(load(z[r], first + j) + through), load(before[r], j)
            store(gates[r], 2 * units + j, g)
            store(h[r], j, old if held else g + load(gates[r], j) * (old - g))


@jit
def gru_steps(weights, candidate, bias, kernel, inputs, absent, gates, states, inner, z, part, reset_after, low, high):
    units = len(weights)
    for t in range(len(gates)):
        before, within = states[t], inner[t]
        multiply(inputs[t], kernel, z, False, low, high)
        multiply(before, weights, z, True, low, high)
        gru_sigmoids(z, before, gates[t], within, units, reset_after, low, high)
        multiply(before if reset_after else within, candidate, part, False, low, high)
        by_state = before, states[t + 1], gates[t], within, units, reset_after, low, high
        gru_state(z, part, bias, absent[t], *by_state)


@jit
def gru_state_back(arrived, absent, gates, before, inner, grad_h, grad_z, grad_inner, units, reset_after, low, high):
    """The gradients of z, of the product with recurrent_g, and of r and g if reset_after; grad_h is what z keeps."""
    zero, one = gates.dtype.type(0), gates.dtype.type(1)
    for r in range(low, high):
        d, gate = grad_z[r], gates[r]
        if absent.size and absent[r]:
            hold(grad_h, arrived, r)
            fill(d, zero)
            fill(grad_inner[r], zero)
            continue
        for j in range(before.shape[1] - LANES, -1, -LANES):
            z, reset, g = load(gate, j), load(gate, units + j), load(gate, 2 * units + j)
            by_h = to_state(grad_h, arrived, r, j)
            by_g = by_h * (one - z) * (one - g * g)
            store(d, j, by_h * (load(before[r], j) - g) * (z - z * z))
            if reset_after:
                store(d, units + j, by_g * load(inner[r], j) * (reset - reset * reset))
                store(d, 2 * units + j, by_g)
                store(grad_inner[r], j, by_g * reset)
            else:
                store(grad_inner[r], j, by_g)
            store(grad_h[r], j, by_h * z)


@jit
def gru_reset_back(gates, before, part, grad_h, grad_z, grad_inner, units, low, high):
    """The gradients of r and, after it, of g, unless reset_after."""
    for r in range(low, high):
        for j in range(before.shape[1] - LANES, -1, -LANES):
            reset, by_inner = load(gates[r], units + j), load(part[r], j)
            store(grad_z[r], units + j, load(before[r], j) * by_inner * (reset - reset * reset))
            store(grad_z[r], 2 * units + j, load(grad_inner[r], j))
            store(grad_h[r], j, load(grad_h[r], j) + by_inner * reset)


@jit
def gru_steps_back(
    weights, candidate, arrived, absent, gates, states, inner, part, grad_h, grad_z, grad_inner, reset_after,
    low, high,
):  # fmt: skip
    units = len(candidate)
    for t in range(len(grad_z) - 1, -1, -1):
        by_state = grad_h, grad_z[t], grad_inner[t], units, reset_after, low, high
        gru_state_back(arrived[t], absent[t], gates[t], states[t], inner[t], *by_state)
        if reset_after:
            multiply(grad_inner[t], candidate, grad_h, True, low, high)
        else:
            multiply(grad_inner[t], candidate, part, False, low, high)
            gru_reset_back(gates[t], states[t], part, grad_h, grad_z[t], grad_inner[t], units, low, high)
        multiply(grad_z[t], weights, grad_h, True, low, high)


@jit
def to_state(grad_h, arrived, r, j):
    """What comes to a state from the steps after it, and from outside."""
    by_h = load(grad_h[r], j)
    if arrived.size:
        by_h = by_h + load(arrived[r], j)
    return by_h


@jit
def hold(grad_h, arrived, r):
    """Keep what comes to a state that sat the step out."""
    if arrived.size:
        for j in range(0, grad_h.shape[1], LANES):
            store(grad_h[r], j, to_state(grad_h, arrived, r, j))


@jit
def copy(row, out):
    for j in range(0, out.size, LANES):
        store(out, j, load(row, j))


@jit
def fill(row, number):
    for j in range(0, row.size, LANES):
        store(row, j, number)
