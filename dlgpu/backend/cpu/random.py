"""Random numbers on the CPU: the reference's bits, a block of four words at a time, with no arrays in between."""

import functools

import numpy as np

from dlgpu.backend.cpu.arrays import by_reference, compiled, contiguous, empty_like
from dlgpu.backend.cpu.jit import jit
from dlgpu.backend.cpu.threads import share
from dlgpu.backend.recorder import Wide, call, empty
from dlgpu.backend.reference import random as reference
from dlgpu.backend.reference.random import KEY_STEPS, MASK64, MULTIPLIERS, ROUNDS, threshold

F, U, UU = np.float32, np.uint32, np.uint64
FIRST_STEP, SECOND_STEP = map(U, KEY_STEPS)
SECOND_MULTIPLIER, FIRST_MULTIPLIER = map(UU, MULTIPLIERS)
GRAIN = 2**16  # words that are worth a thread

# No fused multiply-add: nothing may be rounded otherwise than in the reference.
strict_jit = functools.partial(jit, fastmath=())
strict_inline_jit = functools.partial(strict_jit, forceinline=True)


@reference.random_bits.on("cpu")
def random_bits(out, seed, counter):
    _fill("bits", out.reshape(-1), seed, counter, 0, 0)


@reference.random_uniform.on("cpu")
def random_uniform(out, low, high, seed, counter):
    if not compiled(out):
        return by_reference(reference.random_uniform, out, low, high, seed, counter)
    number, double = out.dtype.type, out.dtype == np.float64
    kind, bits = ("uniform_double", 53) if double else ("uniform", 24)
    _fill(kind, out.reshape(-1), seed, counter, number((high - low) * 2.0**-bits), number(low))


@reference.random_normal.on("cpu")
def random_normal(out, mean, stddev, seed, counter):
    words = empty(out.size + out.size % 2, np.uint64 if out.dtype == np.float64 else np.uint32)
    _fill("bits", words.view(np.uint32), seed, counter, 0, 0)
    call(reference.box_muller, words, out, mean, stddev)


@reference.random_integers.on("cpu")
def random_integers(out, low, high, seed, counter):
    _fill("integers", out.reshape(-1), seed, counter, UU(high - low), UU(int(out.dtype.type(low)) & MASK64))


@reference.random_bernoulli.on("cpu")
def random_bernoulli(out, probability, seed, counter):
    _fill("bernoulli", out.reshape(-1), seed, counter, U(threshold(probability)), 0)


@reference.random_permutation.on("cpu")
def random_permutation(out, seed, counter):
    draws = empty(len(out), np.uint64)
    _fill("bits", draws.view(np.uint32), seed, counter, 0, 0)
    call(reference.sort_by_draws, draws, out)


@reference.dropout.on("cpu")
def dropout(x, rate, seed, counter, mask_shape):
    if not compiled(x):
        return by_reference(reference.dropout, x, rate, seed, counter, mask_shape)
    limit, scale = U(threshold(rate)), x.dtype.type(1 / (1 - rate))
    output = empty_like(x)
    if tuple(mask_shape) == x.shape:
        arrays = contiguous(x).reshape(-1), output.reshape(-1)
        share(_drop, -(-x.size // 4), GRAIN // 4, *arrays, wide(seed), wide(counter), limit, scale)
    else:
        factor = empty(mask_shape, x.dtype)
        _fill("factor", factor.reshape(-1), seed, counter, limit, scale)
        call(np.multiply, x, factor, output)
    return output


def _fill(kind, out, seed, counter, one, two):
    """Fill `out`, (size,), with what VALUES makes of words, four to a block, or of draws, two to a block."""
    make, each = (_of_draws, 2) if kind in OF_DRAWS else (_of_words, 4)
    share(make(kind), -(-out.size // each), GRAIN // each, out, wide(seed), wide(counter), one, two)


def wide(number):
    """As loops take it: in two halves."""
    return number if isinstance(number, Wide) else Wide(number)


@strict_inline_jit
def _block(seed, counter, block):
    """The four words of the counter's value at `block`."""
    low, high = UU(counter[0] + UU(block)), counter[1]
    c0, c1, c2, c3 = U(low), U(low >> UU(32)), U(high), U(high >> UU(32))
    k0, k1 = U(seed[0]), U(seed[0] >> UU(32))
    for _ in range(ROUNDS):
        first, second = UU(c0) * FIRST_MULTIPLIER, UU(c2) * SECOND_MULTIPLIER
        c0, c1 = U(U(second >> UU(32)) ^ c1 ^ k0), U(second)
        c2, c3 = U(U(first >> UU(32)) ^ c3 ^ k1), U(first)
        k0, k1 = U(k0 + FIRST_STEP), U(k1 + SECOND_STEP)
    return c0, c1, c2, c3


@functools.cache
def _of_words(kind):
    """The loop that sets each of `out` to VALUES[kind](word, one, two)."""
    value = VALUES[kind]

    @strict_jit
    def fill(out, seed, counter, one, two, start, stop):
        part = out[4 * start : 4 * stop]
        whole = part.size // 4
        for block in range(whole):
            a, b, c, d = _block(seed, counter, start + block)
            part[4 * block] = value(a, one, two)
            part[4 * block + 1] = value(b, one, two)
            part[4 * block + 2] = value(c, one, two)
            part[4 * block + 3] = value(d, one, two)
        if part.size % 4:
            words = _block(seed, counter, start + whole)
            for k in range(part.size % 4):
                part[4 * whole + k] = value(words[k], one, two)

    return fill


@functools.cache
def _of_draws(kind):
    """The loop that sets each of `out` to VALUES[kind](draw, one, two)."""
    value = VALUES[kind]

    @strict_jit
    def fill(out, seed, counter, one, two, start, stop):
        part = out[2 * start : 2 * stop]
        whole = part.size // 2
        for block in range(whole):
            a, b, c, d = _block(seed, counter, start + block)
            part[2 * block] = value(UU(a) | (UU(b) << UU(32)), one, two)
            part[2 * block + 1] = value(UU(c) | (UU(d) << UU(32)), one, two)
        if part.size % 2:
            a, b, _, _ = _block(seed, counter, start + whole)
            part[2 * whole] = value(UU(a) | (UU(b) << UU(32)), one, two)

    return fill


@strict_jit
def _drop(x, output, seed, counter, limit, scale, start, stop):
    """output = x * scale, or x * 0 where the word is below limit, all (size,); in blocks of four words."""
    values, results, nothing = x[4 * start : 4 * stop], output[4 * start : 4 * stop], type(scale)(0)
    whole = values.size // 4
    for block in range(whole):
        i = 4 * block
        a, b, c, d = _block(seed, counter, start + block)
        results[i] = values[i] * (scale if a >= limit else nothing)
        results[i + 1] = values[i + 1] * (scale if b >= limit else nothing)
        results[i + 2] = values[i + 2] * (scale if c >= limit else nothing)
        results[i + 3] = values[i + 3] * (scale if d >= limit else nothing)
    if values.size % 4:
        words = _block(seed, counter, start + whole)
        for k in range(values.size % 4):
            results[4 * whole + k] = values[4 * whole + k] * (scale if words[k] >= limit else nothing)


@strict_inline_jit
def _scaled(draw, span, low):
    upper = (draw >> UU(32)) * span
    upper += ((draw & UU(0xFFFFFFFF)) * span) >> UU(32)
    return (upper >> UU(32)) + low


VALUES = {
    "bits": strict_inline_jit(lambda word, one, two: word),
    "uniform": strict_inline_jit(lambda word, scale, low: F(U(word >> U(8))) * scale + low),
    "bernoulli": strict_inline_jit(lambda word, limit, two: word < limit),
    "factor": strict_inline_jit(lambda word, limit, scale: scale if word >= limit else type(scale)(0)),
    "uniform_double": strict_inline_jit(lambda draw, scale, low: np.float64(draw >> UU(11)) * scale + low),
    "integers": _scaled,
}
OF_DRAWS = ("uniform_double", "integers")
