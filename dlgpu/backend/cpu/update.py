"""Optimizer steps on the CPU: one pass over the flat buffer, for which memory is the limit.

The loops read `scalars` as they were before the step; what is counted there is moved on after the last part.
"""

import math

import numpy as np

from dlgpu.backend.cpu.arrays import by_reference, compiled, contiguous
from dlgpu.backend.cpu.jit import inline_jit, jit, sum_jit
from dlgpu.backend.cpu.special import clip
from dlgpu.backend.cpu.threads import share
from dlgpu.backend.recorder import call, empty
from dlgpu.backend.reference import update as reference
from dlgpu.backend.reference.update import MOMENTUM_DECAY

F = np.float32
GRAIN = 2**17  # elements that are worth a thread
BLOCK = 2**14  # elements whose squares are added up at once, whatever the number of threads


@reference.sgd_step.on("cpu")
def sgd_step(values, gradients, velocity, scalars, decay, momentum, nesterov):
    if not compiled(values):
        return by_reference(reference.sgd_step, values, gradients, velocity, scalars, decay, momentum, nesterov)
    if velocity is None:
        share(_sgd, len(values), GRAIN, values, gradients, scalars, decay)
    else:
        loop = _nesterov if nesterov else _momentum
        share(loop, len(values), GRAIN, values, gradients, velocity, scalars, decay, momentum)


@reference.rmsprop_step.on("cpu")
def rmsprop_step(values, gradients, square, mean, velocity, scalars, decay, rho, momentum, epsilon):
    buffers, numbers = (values, gradients, square, mean, velocity), (decay, rho, momentum, epsilon)
    return _step(reference.rmsprop_step, _rmsprop, buffers, scalars, *numbers)


@reference.adagrad_step.on("cpu")
def adagrad_step(values, gradients, total, scalars, decay, epsilon):
    return _step(reference.adagrad_step, _adagrad, (values, gradients, total), scalars, decay, epsilon)


@reference.adam_step.on("cpu")
def adam_step(values, gradients, mean, square, peak, scalars, decay, beta_1, beta_2, epsilon):
    buffers, numbers = (values, gradients, mean, square, peak), (decay, beta_1, beta_2, epsilon)
    return _step(reference.adam_step, _adam, buffers, scalars, *numbers, count=(_count, scalars))


@reference.nadam_step.on("cpu")
def nadam_step(values, gradients, mean, square, scalars, decay, beta_1, beta_2, epsilon):
    buffers, numbers = (values, gradients, mean, square), (decay, beta_1, beta_2, epsilon)
    return _step(reference.nadam_step, _nadam, buffers, scalars, *numbers, count=(_count_nadam, scalars, beta_1))


@reference.decay_weights.on("cpu")
def decay_weights(values, scalars, decay):
    return _step(reference.decay_weights, _decay_weights, (values,), scalars, decay)


def _step(kernel, loop, buffers, *args, count=None):
    """What kernel(*buffers, *args) does, by a loop over all elements, and then by `count`, (loop, *its arguments)."""
    if not compiled(buffers[0]):
        return by_reference(kernel, *buffers, *args)
    share(loop, len(buffers[0]), GRAIN, *buffers, *args)
    if count is not None:
        call(*count)


@reference.square_norm.on("cpu")
def square_norm(gradients):
    if not compiled(gradients):
        return by_reference(reference.square_norm, gradients)
    flat, output = contiguous(gradients).reshape(-1), empty((), np.float64)
    blocks = -(-flat.size // BLOCK)
    sums = empty(blocks, np.float64)
    share(_block_squares, blocks, GRAIN // BLOCK, flat, sums)
    call(_total, sums, output)
    return output


@reference.clip_norm.on("cpu")
def clip_norm(gradients, square, limit):
    if not compiled(gradients):
        return by_reference(reference.clip_norm, gradients, square, limit)
    factor = empty((), gradients.dtype)
    call(_clip_factor, np.asarray(square), limit, factor)
    if gradients.flags.c_contiguous:
        share(_multiply, gradients.size, GRAIN, gradients.reshape(-1), factor)
    else:
        call(np.multiply, gradients, factor, gradients)


@reference.clip_norms.on("cpu")
def clip_norms(gradients, segments, limit):
    if not compiled(gradients):
        return by_reference(reference.clip_norms, gradients, segments, limit)
    worth = 1 if gradients.size > 2 * GRAIN else len(segments) + 1
    share(_clip_segments, len(segments), worth, gradients, contiguous(segments), limit)


@reference.clip_value.on("cpu")
def clip_value(gradients, limit):
    if not compiled(gradients):
        return by_reference(reference.clip_value, gradients, limit)
    if gradients.flags.c_contiguous:
        share(_clip_value, gradients.size, GRAIN, gradients.reshape(-1), limit)
    else:
        call(np.clip, gradients, -limit, limit, gradients)


# Buffers are (size,), scalars (1 + k,) float64 as in the references. In each loop the numbers that concern all elements
# are rounded to the buffer's dtype first.


@inline_jit
def _kept(decay, scalars):
    """What weight decay leaves of a value."""
    return 1 - decay * scalars[0]


@jit
def _sgd(values, gradients, scalars, decay, start, stop):
    v, g, number = values[start:stop], gradients[start:stop], values.dtype.type
    kept, rate = number(_kept(decay, scalars)), number(scalars[0])
    for i in range(v.size):
        v[i] = v[i] * kept - g[i] * rate


@jit
def _momentum(values, gradients, velocity, scalars, decay, momentum, start, stop):
    v, g, speed, number = values[start:stop], gradients[start:stop], velocity[start:stop], values.dtype.type
    kept, rate, m = number(_kept(decay, scalars)), number(scalars[0]), number(momentum)
    for i in range(v.size):
        moved = m * speed[i] - g[i] * rate
        speed[i] = moved
        v[i] = v[i] * kept + moved


@jit
def _nesterov(values, gradients, velocity, scalars, decay, momentum, start, stop):
    v, g, speed, number = values[start:stop], gradients[start:stop], velocity[start:stop], values.dtype.type
    kept, rate, m = number(_kept(decay, scalars)), number(scalars[0]), number(momentum)
    for i in range(v.size):
        step = g[i] * rate
        moved = m * speed[i] - step
        speed[i] = moved
        v[i] = v[i] * kept - step + m * moved


@jit
def _rmsprop(values, gradients, square, mean, velocity, scalars, decay, rho, momentum, epsilon, start, stop):
    v, g, s, number = values[start:stop], gradients[start:stop], square[start:stop], values.dtype.type
    averages = s if mean is None else mean[start:stop]
    speeds = s if velocity is None else velocity[start:stop]
    kept, rate, e = number(_kept(decay, scalars)), number(scalars[0]), number(epsilon)
    r, c, m = number(rho), number(1 - rho), number(momentum)
    for i in range(v.size):
        spread = r * s[i] + c * (g[i] * g[i])
        s[i] = spread
        if mean is not None:
            average = r * averages[i] + c * g[i]
            averages[i] = average
            spread = spread - average * average
            spread = number(0) if spread < number(0) else spread  # rounding can leave it a little below 0
        step = g[i] / np.sqrt(spread + e) * rate
        if velocity is not None:
            step = m * speeds[i] + step
            speeds[i] = step
        v[i] = v[i] * kept - step


@jit
def _adagrad(values, gradients, total, scalars, decay, epsilon, start, stop):
    v, g, s, number = values[start:stop], gradients[start:stop], total[start:stop], values.dtype.type
    kept, rate, e = number(_kept(decay, scalars)), number(scalars[0]), number(epsilon)
    for i in range(v.size):
        total_here = s[i] + g[i] * g[i]
        s[i] = total_here
        v[i] = v[i] * kept - g[i] / np.sqrt(total_here + e) * rate


@jit
def _adam(values, gradients, mean, square, peak, scalars, decay, beta_1, beta_2, epsilon, start, stop):
    v, g, number = values[start:stop], gradients[start:stop], values.dtype.type
    m, s = mean[start:stop], square[start:stop]
    peaks = s if peak is None else peak[start:stop]
    t = scalars[1] + 1
    kept, e = number(_kept(decay, scalars)), number(epsilon)
    rate = number(scalars[0] * math.sqrt(1 - beta_2**t) / (1 - beta_1**t))
    c1, c2 = number(1 - beta_1), number(1 - beta_2)
    for i in range(v.size):
        gradient = g[i]
        average = m[i] + c1 * (gradient - m[i])
        spread = s[i] + c2 * (gradient * gradient - s[i])
        m[i] = average
        s[i] = spread
        if peak is not None:
            spread = peaks[i] if peaks[i] > spread else spread + number(0) * peaks[i]  # NaN in either stays
            peaks[i] = spread
        v[i] = v[i] * kept - rate * average / (np.sqrt(spread) + e)


@jit
def _count(scalars):
    scalars[1] += 1


@inline_jit
def _nadam_momentum(beta_1, t):
    return beta_1 * (1 - 0.5 * MOMENTUM_DECAY**t)


@jit
def _nadam(values, gradients, mean, square, scalars, decay, beta_1, beta_2, epsilon, start, stop):
    v, g, number = values[start:stop], gradients[start:stop], values.dtype.type
    m, s = mean[start:stop], square[start:stop]
    t = scalars[1] + 1
    now, ahead = _nadam_momentum(beta_1, t), _nadam_momentum(beta_1, t + 1)
    product = scalars[2] * now
    mean_rate = number(scalars[0] * ahead / (1 - product * ahead))
    rate, correction = number(scalars[0] * (1 - now) / (1 - product)), number(1 / (1 - beta_2**t))
    kept, e, c1, c2 = number(_kept(decay, scalars)), number(epsilon), number(1 - beta_1), number(1 - beta_2)
    for i in range(v.size):
        gradient = g[i]
        average = m[i] + c1 * (gradient - m[i])
        spread = s[i] + c2 * (gradient * gradient - s[i])
        m[i] = average
        s[i] = spread
        v[i] = v[i] * kept - (average * mean_rate + gradient * rate) / (np.sqrt(spread * correction) + e)


@jit
def _count_nadam(scalars, beta_1):
    scalars[1] += 1
    scalars[2] *= _nadam_momentum(beta_1, scalars[1])


@jit
def _decay_weights(values, scalars, decay, start, stop):
    v = values[start:stop]
    kept = values.dtype.type(_kept(decay, scalars))
    for i in range(v.size):
        v[i] *= kept


@sum_jit
def _square_sum(x):
    """In double precision."""
    total = 0.0
    for i in range(x.size):
        value = np.float64(x[i])
        total += value * value
    return total


@jit
def _block_squares(gradients, sums, start, stop):
    for block in range(start, stop):
        sums[block] = _square_sum(gradients[block * BLOCK : (block + 1) * BLOCK])


@jit
def _total(sums, output):
    total = 0.0
    for i in range(sums.size):
        total += sums[i]
    output[()] = total


@inline_jit
def _factor(square, limit):
    """limit / max(norm, limit), and NaN for a norm that is not finite."""
    norm = math.sqrt(square)
    return limit / max(norm, limit) if norm < math.inf else math.nan


@jit
def _clip_factor(square, limit, factor):
    factor[()] = _factor(square[()], limit)


@jit
def _multiply(gradients, factor, start, stop):
    g, f = gradients[start:stop], factor[()]
    for i in range(g.size):
        g[i] *= f


@jit
def _clip_segments(gradients, segments, limit, start, stop):
    for i in range(start, stop):
        g = gradients[segments[i, 0] : segments[i, 1]]
        f = gradients.dtype.type(_factor(_square_sum(g), limit))
        for j in range(g.size):
            g[j] *= f


@jit
def _clip_value(gradients, limit, start, stop):
    g, high = gradients[start:stop], gradients.dtype.type(limit)
    for i in range(g.size):
        g[i] = clip(g[i], -high, high)
