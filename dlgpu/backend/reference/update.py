"""Optimizer steps: one call changes all parameters of a flat buffer, and the optimizer's slots, in place.

`values`, `gradients` and the slots are (size,) of one dtype; the numbers are Python floats, computed with in that
dtype. Where a gradient and its slots are zero, as in the gaps of the buffer, nothing moves.
"""

import numpy as np

from dlgpu.backend.dispatch import array_namespace, kernel


@kernel
def sgd_step(values, gradients, velocity, learning_rate, momentum, nesterov):
    """values += -learning_rate gradients, or with a velocity (None without momentum)

    velocity = momentum velocity - learning_rate gradients
    values += velocity, or for nesterov  momentum velocity - learning_rate gradients
    """
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
def rmsprop_step(values, gradients, square, mean, velocity, learning_rate, rho, momentum, epsilon):
    """values -= step, where step = learning_rate gradients / sqrt(square - mean**2 + epsilon)

    square = rho square + (1 - rho) gradients**2
    mean = rho mean + (1 - rho) gradients       if centered, else None and 0
    velocity = momentum velocity + step         with momentum, and then values -= velocity; else None
    """
    xp = array_namespace(values)
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
def adagrad_step(values, gradients, total, learning_rate, epsilon):
    """values -= learning_rate gradients / sqrt(total + epsilon), where total += gradients**2."""
    xp = array_namespace(values)
    scratch = gradients * gradients
    total += scratch
    xp.add(total, epsilon, out=scratch)
    xp.sqrt(scratch, out=scratch)
    xp.divide(gradients, scratch, out=scratch)
    scratch *= learning_rate
    values -= scratch


@kernel
def adam_step(values, gradients, mean, square, peak, rate, beta_1, beta_2, epsilon):
    """values -= rate mean / (sqrt(square) + epsilon)

    mean += (1 - beta_1) (gradients - mean)
    square += (1 - beta_2) (gradients**2 - square)
    peak = max(peak, square)    for AMSGrad, in the place of square; else None

    `rate` holds the bias corrections: learning_rate sqrt(1 - beta_2**t) / (1 - beta_1**t).
    """
    xp = array_namespace(values)
    scratch = moments(gradients, mean, square, beta_1, beta_2)
    if peak is not None:
        square = xp.maximum(peak, square, out=peak)
    xp.sqrt(square, out=scratch)
    scratch += epsilon
    xp.divide(mean, scratch, out=scratch)
    scratch *= rate
    values -= scratch


@kernel
def nadam_step(values, gradients, mean, square, mean_rate, rate, correction, beta_1, beta_2, epsilon):
    """values -= (mean_rate mean + rate gradients) / (sqrt(correction square) + epsilon)

    with mean and square as for Adam. The rates hold the learning rate, Nesterov's momentum schedule and its bias
    corrections, and `correction` is 1 / (1 - beta_2**t).
    """
    xp = array_namespace(values)
    scratch = moments(gradients, mean, square, beta_1, beta_2)
    xp.multiply(square, correction, out=scratch)
    xp.sqrt(scratch, out=scratch)
    scratch += epsilon
    step = mean * mean_rate
    step += gradients * rate
    step /= scratch
    values -= step


def moments(gradients, mean, square, beta_1, beta_2):
    """Move the running mean and mean square towards the gradients; returns scratch space."""
    scratch = gradients - mean
    scratch *= 1 - beta_1
    mean += scratch
    array_namespace(gradients).multiply(gradients, gradients, out=scratch)
    scratch -= square
    scratch *= 1 - beta_2
    square += scratch
    return scratch


@kernel
def decay_weights(values, factor):
    """values *= factor, a little below 1."""
    values *= factor


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
def clip_value(gradients, limit):
    """Limit each gradient to [-limit, limit]; NaN stays."""
    array_namespace(gradients).clip(gradients, -limit, limit, out=gradients)
