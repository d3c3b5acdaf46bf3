"""Activations on the CPU: one compiled loop for each name, in which bias, activation and column sums are one pass."""

import functools

import numpy as np

from dlgpu.backend.cpu.arrays import by_reference, compiled, contiguous, empty_like
from dlgpu.backend.cpu.jit import assign, inline_jit, jit
from dlgpu.backend.cpu.linear import product
from dlgpu.backend.cpu.special import clip, exp, expm1, normal_cdf, normal_pdf, sigmoid, softplus, tanh
from dlgpu.backend.cpu.threads import share
from dlgpu.backend.recorder import call, empty
from dlgpu.backend.reference import activation as reference
from dlgpu.backend.reference.activation import FROM_INPUT, GELU_CUBE, GELU_FACTOR, LEAKY_SLOPE, SELU_ALPHA, SELU_SCALE

F = np.float32
GRAIN = 2**17  # values that are worth a thread
BLOCK = 256  # rows whose column sums are added up one after another, whatever the number of threads


@reference.bias_activation.on("cpu")
def bias_activation(x, bias, name, overwrite=False):
    if not compiled(x, bias):
        return by_reference(reference.bias_activation, x, bias, name, overwrite)
    if name == "linear" and bias is None:
        return x, x
    if not x.flags.c_contiguous:
        x, overwrite = contiguous(x), True
    output = empty_like(x) if name in FROM_INPUT or not overwrite else x
    z = None if name not in FROM_INPUT or bias is None else x if overwrite else empty_like(x)
    source = None if (output if z is None else z) is x else x  # an array is passed once: aliases end vectorization
    if bias is None:
        share(_forward(name), x.size, GRAIN, None if source is None else source.reshape(-1), output.reshape(-1))
    else:
        units = len(bias)
        rows = (x.size // max(units, 1), units)
        arrays = [None if a is None else a.reshape(rows) for a in (source, z, output)]
        share(_forward_with_bias(name), rows[0], _rows_worth(units), contiguous(bias), *arrays)
    return output, output if name not in FROM_INPUT else x if z is None else z


@reference.activation_backward.on("cpu")
def activation_backward(grad, saved, name):
    if not compiled(grad, saved):
        return by_reference(reference.activation_backward, grad, saved, name)
    if name == "linear":
        return grad
    grad, saved, grad_z = contiguous(grad), contiguous(saved), empty_like(grad)
    share(_backward(name), grad.size, GRAIN, grad.reshape(-1), saved.reshape(-1), grad_z.reshape(-1))
    return grad_z


@reference.bias_activation_backward.on("cpu")
def bias_activation_backward(grad, saved, name):
    units = saved.shape[-1]
    if not compiled(grad, saved) or not saved.size:
        return by_reference(reference.bias_activation_backward, grad, saved, name)
    grad, saved = contiguous(grad), contiguous(saved)
    grad_z = grad if name == "linear" else empty_like(grad)
    rows = grad.size // units
    blocks = -(-rows // BLOCK)
    grad_bias = empty(units, grad.dtype)
    sums = grad_bias.reshape(1, units) if blocks == 1 else empty((blocks, units), grad.dtype)
    arrays = [a.reshape(rows, units) for a in (grad, saved, grad_z)]
    if name == "linear":
        arrays[1:] = None, None
    share(_backward_and_sums(name), blocks, _rows_worth(units) // BLOCK + 1, *arrays, sums)
    if blocks > 1:
        call(_add_rows, sums, grad_bias)
    return grad_z, grad_bias


@reference.dense.on("cpu")
def dense(x, kernel, bias, name):
    if not compiled(x, kernel, bias):
        return by_reference(reference.dense, x, kernel, bias, name)
    if name in ("linear", "relu"):
        output = product(x, kernel, bias, 0 if name == "relu" else -np.inf)
        return output, output
    return bias_activation(product(x, kernel), bias, name, overwrite=True)


@reference.dense_backward.on("cpu")
def dense_backward(grad, x, kernel, saved, name, needed):
    if not compiled(grad, x, kernel, saved):
        return by_reference(reference.dense_backward, grad, x, kernel, saved, name, needed)
    if needed[2]:
        grad_z, grad_bias = bias_activation_backward(grad, saved, name)
    else:
        grad_z, grad_bias = activation_backward(grad, saved, name), None
    grad_x = product(grad_z, kernel.T) if needed[0] else None
    grad_kernel = product(x.T, grad_z) if needed[1] else None
    return grad_x, grad_kernel, grad_bias


def _rows_worth(units):
    """How many rows are worth a thread."""
    return GRAIN // max(units, 1) + 1


@functools.cache
def _forward(name):
    """output = name(source), both (size,); without a source, of what stands in output."""
    activated = FORWARD[name]

    @jit
    def forward(source, output, start, stop):
        results = output[start:stop]
        inputs = results if source is None else source[start:stop]
        for i in range(results.size):
            results[i] = activated(inputs[i])

    return forward


@functools.cache
def _forward_with_bias(name):
    """z = source + bias, output = name(z), all (rows, units); without a source, of what stands in z, or in output."""
    activated = FORWARD[name]

    @jit
    def forward_with_bias(bias, source, z, output, start, stop):
        results = output[start:stop]
        if z is None:
            inputs = results if source is None else source[start:stop]
            for i in range(results.shape[0]):
                for j in range(results.shape[1]):
                    results[i, j] = activated(inputs[i, j] + bias[j])
        else:
            sums = z[start:stop]
            inputs = sums if source is None else source[start:stop]
            for i in range(results.shape[0]):
                for j in range(results.shape[1]):
                    value = inputs[i, j] + bias[j]
                    sums[i, j] = value
                    results[i, j] = activated(value)

    return forward_with_bias


@functools.cache
def _backward(name):
    """grad_z = grad name'(saved), all (size,)."""
    slope = BACKWARD[name]

    @jit
    def backward(grad, saved, grad_z, start, stop):
        grad, saved, grad_z = grad[start:stop], saved[start:stop], grad_z[start:stop]
        for i in range(grad.size):
            grad_z[i] = grad[i] * slope(saved[i])

    return backward


@functools.cache
def _backward_and_sums(name):
    """grad_z, and the sums of its columns over each BLOCK of rows; for "linear" that of grad."""
    slope = BACKWARD.get(name)

    @jit
    def backward_and_sums(grad, saved, grad_z, sums, start, stop):
        rows, units = grad.shape
        sums[start:stop] = 0
        for block in range(start, stop):
            total = sums[block]
            first, last = block * BLOCK, min(block * BLOCK + BLOCK, rows)
            g = grad[first:last]
            if saved is None:
                for i in range(g.shape[0]):
                    for j in range(units):
                        total[j] += g[i, j]
            else:
                s, z = saved[first:last], grad_z[first:last]
                for i in range(g.shape[0]):
                    for j in range(units):
                        by_z = g[i, j] * slope(s[i, j])
                        z[i, j] = by_z
                        total[j] += by_z

    return backward_and_sums


@jit
def _add_rows(parts, output):
    """output[j] = sum_i parts[i, j]"""
    assign(output, parts[0])
    for i in range(1, parts.shape[0]):
        for j in range(parts.shape[1]):
            output[j] += parts[i, j]


# Comparisons are written so that NaN is what comes out when it goes in; type(z)(...) keeps float32 what it is.


@inline_jit
def _positive(z):
    return F(0) if z < F(0) else z


@inline_jit
def _negative(z):
    return F(0) if z > F(0) else z


@inline_jit
def _leaky_relu(z):
    return z * type(z)(LEAKY_SLOPE) if z < F(0) else z


@inline_jit
def _elu(z):
    return _positive(z) + expm1(_negative(z))


@inline_jit
def _selu(z):
    return type(z)(SELU_SCALE) * (_positive(z) + type(z)(SELU_ALPHA) * expm1(_negative(z)))


@functools.partial(inline_jit, fastmath=())  # rounded as in the reference: the derivative goes by whether it is 0
def _hard_sigmoid(z):
    return clip(z * type(z)(1 / 6) + F(0.5), F(0), F(1))


@inline_jit
def _gelu_gate(z):
    """The reference's."""
    z = clip(z, F(-30), F(30))
    return sigmoid(type(z)(2 * GELU_FACTOR) * z * (F(1) + type(z)(GELU_CUBE) * (z * z)))


@inline_jit
def _gelu_tanh_slope(z):
    gate, c = _gelu_gate(z), clip(z, F(-30), F(30))
    inner = type(z)(2 * GELU_FACTOR) * (F(1) + type(z)(3 * GELU_CUBE) * (c * c))
    return gate * (F(1) + z * (F(1) - gate) * inner)


@inline_jit
def _mish_slope(z):
    t = tanh(softplus(z))
    return t + z * sigmoid(z) * (F(1) - t * t)


@inline_jit
def _selu_slope(y):
    low = type(y)(SELU_SCALE * SELU_ALPHA)
    return _negative(y) + (low if y <= F(0) else type(y)(SELU_SCALE))


@inline_jit
def _hard_silu_slope(z):
    inside = clip(z, F(-3), F(3)) * type(z)(1 / 3) + F(0.5)
    return inside * (F(1) if abs(z) < F(3) else F(0)) + (F(1) if z >= F(3) else F(0))


@inline_jit
def _step(condition, y):
    """1 where the condition holds, else 0; in y's dtype."""
    return type(y)(1) if condition else type(y)(0)


FORWARD = {
    "linear": inline_jit(lambda z: z),
    "relu": _positive,
    "leaky_relu": _leaky_relu,
    "relu6": inline_jit(lambda z: clip(z, F(0), F(6))),
    "elu": _elu,
    "selu": _selu,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "exponential": exp,
    "softplus": softplus,
    "hard_sigmoid": _hard_sigmoid,
    "hard_tanh": inline_jit(lambda z: clip(z, F(-1), F(1))),
    "softsign": inline_jit(lambda z: z / (F(1) + abs(z))),
    "silu": inline_jit(lambda z: z * sigmoid(z)),
    "hard_silu": inline_jit(lambda z: z * _hard_sigmoid(z)),
    "mish": inline_jit(lambda z: z * tanh(softplus(z))),
    "gelu": inline_jit(lambda z: z * normal_cdf(z)),
    "gelu_tanh": inline_jit(lambda z: z * _gelu_gate(z)),
}
BACKWARD = {
    "relu": inline_jit(lambda y: _step(y > F(0), y)),
    "leaky_relu": inline_jit(lambda y: type(y)(1) if y > F(0) else type(y)(LEAKY_SLOPE)),
    "relu6": inline_jit(lambda y: _step((y > F(0)) & (y < F(6)), y)),
    "elu": inline_jit(lambda y: _negative(y) + F(1)),
    "selu": _selu_slope,
    "sigmoid": inline_jit(lambda y: y * (F(1) - y)),
    "tanh": inline_jit(lambda y: F(1) - y * y),
    "exponential": inline_jit(lambda y: y),
    "softplus": inline_jit(lambda y: -expm1(-y)),
    "hard_sigmoid": inline_jit(lambda y: _step((y > F(0)) & (y < F(1)), y) * type(y)(1 / 6)),
    "hard_tanh": inline_jit(lambda y: _step(abs(y) < F(1), y)),
    "softsign": inline_jit(lambda z: F(1) / (F(1) + abs(z)) / (F(1) + abs(z))),
    "silu": inline_jit(lambda z: sigmoid(z) * (F(1) + z * sigmoid(-z))),
    "hard_silu": _hard_silu_slope,
    "mish": _mish_slope,
    "gelu": inline_jit(lambda z: normal_cdf(z) + z * normal_pdf(z)),
    "gelu_tanh": _gelu_tanh_slope,
}
