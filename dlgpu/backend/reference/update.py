"""Optimizer steps: one call changes all parameters of a flat buffer, and the optimizer's slots, in place.

`values`, `gradients` and the slots are (size,) of one dtype. Where a gradient and its slots are zero, as in the gaps of
the buffer, nothing moves.

What changes from step to step is read from `scalars`, (1 + k,) float64 on the same device: the learning rate, which the
optimizer writes there, and what a step counts and moves on itself; so each step is the same call. In those that count,
the last one is the device's own: 0 before and after a step. The other numbers are Python floats. What concerns all
elements alike is computed in double precision and then rounded to the dtype.

Each step begins with weight decay apart from the gradients, values *= 1 - decay learning_rate; a `decay` of 0 is none.
"""

import math

import numpy as np

from dlgpu.backend.dispatch import array_namespace, kernel

MOMENTUM_DECAY = 0.96  # of Nadam's momentum schedule


@kernel(narrow="kept", composed=True)
def collect(flat, targets, arrays):
    """Copy each array to its target; None stands for zeros.

    Args:
        flat: an array on their device and of the targets' dtype, such as the buffer in which they lie.
        targets: contiguous arrays.
        arrays: of the targets' shapes.
    """
    for target, array in zip(targets, arrays):
        array_namespace(target).copyto(target, 0 if array is None else array)  # which a recording notes


@kernel
def sgd_step(values, gradients, velocity, scalars, decay, momentum, nesterov):
    """values += -learning_rate gradients, or with a velocity (None without momentum)

    velocity = momentum velocity - learning_rate gradients
    values += velocity, or for nesterov  momentum velocity - learning_rate gradients

    scalars: [learning_rate]
    """
    (learning_rate,) = scalars.tolist()
    _decay(values, decay, learning_rate)
    step = gradients * learning_rate
    if velocity is None:
        values -= step
        return
    velocity *= momentum
    velocity -= step
    if not nesterov:
        values += velocity
        return
    values -= step
    values += array_namespace(values).multiply(velocity, momentum, out=step)


@kernel
def rmsprop_step(values, gradients, square, mean, velocity, scalars, decay, rho, momentum, epsilon):
    """values -= step, where step = learning_rate gradients / sqrt(square - mean**2 + epsilon)

    square = rho square + (1 - rho) gradients**2
    mean = rho mean + (1 - rho) gradients       if centered, else None and 0
    velocity = momentum velocity + step         with momentum, and then values -= velocity; else None

    scalars: [learning_rate]
    """
    xp = array_namespace(values)
    (learning_rate,) = scalars.tolist()
    _decay(values, decay, learning_rate)
    scratch = gradients * gradients
    scratch *= 1 - rho
    square *= rho
    square += scratch
    if mean is None:
        xp.add(square, epsilon, out=scratch)
    else:
        mean *= rho
        mean += xp.multiply(gradients, 1 - rho, out=scratch)
        xp.multiply(mean, mean, out=scratch)
        xp.subtract(square, scratch, out=scratch)
        # rounding can leave a variance a little below 0
        xp.maximum(scratch, 0, out=scratch)
        scratch += epsilon
    xp.sqrt(scratch, out=scratch)
    xp.divide(gradients, scratch, out=scratch)
    scratch *= learning_rate
    if velocity is not None:
        velocity *= momentum
        velocity += scratch
        scratch = velocity
    values -= scratch


@kernel
def adagrad_step(values, gradients, total, scalars, decay, epsilon):
    """values -= learning_rate gradients / sqrt(total + epsilon), where total += gradients**2.

    scalars: [learning_rate]
    """
    xp = array_namespace(values)
    (learning_rate,) = scalars.tolist()
    _decay(values, decay, learning_rate)
    scratch = gradients * gradients
    total += scratch
    xp.add(total, epsilon, out=scratch)
    xp.sqrt(scratch, out=scratch)
    xp.divide(gradients, scratch, out=scratch)
    scratch *= learning_rate
    values -= scratch


@kernel
def adam_step(values, gradients, mean, square, peak, scalars, decay, beta_1, beta_2, epsilon):
    """values -= learning_rate sqrt(1 - beta_2**t) / (1 - beta_1**t) mean / (sqrt(square) + epsilon)

    mean += (1 - beta_1) (gradients - mean)
    square += (1 - beta_2) (gradients**2 - square)
    peak = max(peak, square)    for AMSGrad, in the place of square; else None

    scalars: [learning_rate, t, 0], where t += 1 first
    """
    xp = array_namespace(values)
    learning_rate, t, _ = scalars.tolist()
    scalars[1] = t = t + 1
    _decay(values, decay, learning_rate)
    scratch = _moments(gradients, mean, square, beta_1, beta_2)
    if peak is not None:
        square = xp.maximum(peak, square, out=peak)
    xp.sqrt(square, out=scratch)
    scratch += epsilon
    xp.divide(mean, scratch, out=scratch)
    scratch *= learning_rate * math.sqrt(1 - beta_2**t) / (1 - beta_1**t)
    values -= scratch


@kernel
def nadam_step(values, gradients, mean, square, scalars, decay, beta_1, beta_2, epsilon):
    """values -= learning_rate step / (sqrt(square / (1 - beta_2**t)) + epsilon), with mean and square as for Adam

    step = u[t + 1] mean / (1 - product u[t + 1]) + (1 - u[t]) gradients / (1 - product)
    u[t] = beta_1 (1 - 0.96**t / 2)

    scalars: [learning_rate, t, product, 0], where t += 1 and product *= u[t] first, so that it is u[1] ... u[t]
    """
    xp = array_namespace(values)
    learning_rate, t, product, _ = scalars.tolist()
    t += 1
    now, ahead = nadam_momentum(beta_1, t), nadam_momentum(beta_1, t + 1)
    product *= now
    scalars[1], scalars[2] = t, product
    _decay(values, decay, learning_rate)
    scratch = _moments(gradients, mean, square, beta_1, beta_2)
    xp.multiply(square, 1 / (1 - beta_2**t), out=scratch)
    xp.sqrt(scratch, out=scratch)
    scratch += epsilon
    step = mean * (learning_rate * ahead / (1 - product * ahead))
    step += gradients * (learning_rate * (1 - now) / (1 - product))
    step /= scratch
    values -= step


def nadam_momentum(beta_1, t):
    """u[t], Nadam's momentum at step t."""
    return beta_1 * (1 - 0.5 * MOMENTUM_DECAY**t)


def _moments(gradients, mean, square, beta_1, beta_2):
    """Move the running mean and mean square towards the gradients; returns scratch space."""
    scratch = gradients - mean
    scratch *= 1 - beta_1
    mean += scratch
    array_namespace(gradients).multiply(gradients, gradients, out=scratch)
    scratch -= square
    scratch *= 1 - beta_2
    square += scratch
    return scratch


def _decay(values, decay, learning_rate):
    if decay:
        values *= 1 - decay * learning_rate


@kernel
def decay_weights(values, scalars, decay):
    """values *= 1 - decay learning_rate, for where it is not part of the step. scalars: [learning_rate, ...]"""
    _decay(values, decay, float(scalars[0]))


@kernel
def square_norm(gradients):
    """sum(gradients**2) in float64, which cannot overflow for narrower dtypes; () on the device."""
    xp = array_namespace(gradients)
    return xp.sum(xp.multiply(gradients, gradients, dtype=np.float64))


@kernel
def clip_norm(gradients, square, limit):
    """gradients *= limit / max(norm, limit), where norm = sqrt(square); all become NaN when the norm is not finite.

    Args:
        gradients: floating, any shape.
        square: () float64, the norm's square, over these and perhaps other gradients.
        limit: the largest norm that stays as it is.
    """
    xp = array_namespace(gradients)
    norm = xp.sqrt(square)
    factor = xp.where(xp.isfinite(norm), limit / xp.maximum(norm, limit), np.nan)
    gradients *= factor.astype(gradients.dtype)


@kernel
def clip_norms(gradients, segments, limit):
    """clip_norm of each gradients[start:stop] by its own norm.

    Args:
        gradients: (size,), floating.
        segments: (n, 2) int64 on the same device, the start and stop of each; they do not overlap.
        limit: the largest norm that stays as it is.
    """
    for start, stop in segments.tolist():
        segment = gradients[start:stop]
        clip_norm.reference(segment, square_norm.reference(segment), limit)


@kernel
def clip_value(gradients, limit):
    """Limit each gradient to [-limit, limit]; NaN stays."""
    array_namespace(gradients).clip(gradients, -limit, limit, out=gradients)
