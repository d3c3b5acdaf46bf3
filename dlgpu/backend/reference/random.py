"""Random numbers from a counter: Philox 4x32-10, with the same bits on every device.

A block of four 32-bit words is a function of a 128-bit counter and a 64-bit key, the seed (Salmon et al., "Parallel
random numbers: as easy as 1, 2, 3", 2011). Word i of a draw is lane i % 4 of block counter + i // 4; of the counter the
low 64 bits count, and wrap, while the high 64 stay as they are. A 64-bit draw is two words, the lower one first.

Each kernel fills `out`, a contiguous array of any shape, whose device is where it runs.
"""

import functools

import numpy as np

from dlgpu.backend.dispatch import array_namespace, kernel

MULTIPLIERS = 0xCD9E8D57, 0xD2511F53
KEY_STEPS = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10
MASK32, MASK64 = 2**32 - 1, 2**64 - 1


def philox_words(xp, count, seed, counter):
    """`count` random words, (count,) uint32, on the current device of `xp`."""
    blocks = -(-count // 4)
    word, shift = xp.uint64(MASK32), xp.uint64(32)
    multipliers = xp.array(MULTIPLIERS, xp.uint64)[:, None]
    keys = xp.asarray(round_keys(seed))
    # words 0 and 2 of the counter, and words 1 and 3, each in the low half of 64 bits to hold products
    even, odd, product = (xp.empty((2, blocks), xp.uint64) for _ in range(3))
    low = xp.arange(blocks, dtype=xp.uint64)
    low += xp.uint64(counter & MASK64)
    xp.bitwise_and(low, word, out=even[0])
    xp.right_shift(low, shift, out=odd[0])
    even[1], odd[1] = counter >> 64 & MASK32, counter >> 96
    for i in range(ROUNDS):
        xp.multiply(even[::-1], multipliers, out=product)
        xp.right_shift(product, shift, out=even)
        even ^= odd
        even ^= keys[i]
        xp.bitwise_and(product, word, out=odd)
    words = xp.empty((blocks, 4), xp.uint32)
    words[:, ::2], words[:, 1::2] = even.T, odd.T
    return words.reshape(-1)[:count]


@functools.lru_cache(64)
def round_keys(seed):
    """The keys of all rounds, (ROUNDS, 2, 1) uint64, on the host."""
    halves = seed & MASK32, seed >> 32
    return np.array([[[(h + i * s) & MASK32] for h, s in zip(halves, KEY_STEPS)] for i in range(ROUNDS)], np.uint64)


def philox_draws(xp, count, seed, counter):
    """`count` 64-bit draws, (count,) uint64."""
    return philox_words(xp, 2 * count, seed, counter).view(xp.uint64)


def threshold(probability):
    """The number of 32-bit words that an event of this probability, below 1, takes up."""
    return min(round(probability * 2**32), MASK32)


@kernel(narrow="kept")
def random_bits(out, seed, counter):
    """Fill `out` (uint32) with random words."""
    out.reshape(-1)[...] = philox_words(array_namespace(out), out.size, seed, counter)


@kernel(narrow="kept")
def random_uniform(out, low, high, seed, counter):
    """Fill `out` (floating) with low + (high - low) * u, u the top 24 bits of a word over 2**24, or 53 of a draw."""
    xp, double = array_namespace(out), out.dtype == np.float64
    if double:
        words, bits = philox_draws(xp, out.size, seed, counter) >> xp.uint64(11), 53
    else:
        words, bits = philox_words(xp, out.size, seed, counter) >> xp.uint32(8), 24
    uniform = words.astype(xp.float64 if double else xp.float32)
    uniform *= (high - low) * 2.0**-bits
    uniform += low
    out.reshape(-1)[...] = uniform


@kernel(narrow="kept")
def random_normal(out, mean, stddev, seed, counter):
    """Fill `out` (floating) with mean + stddev * z, two z from two words (or draws, for float64) by Box and Muller.

    z[2i], z[2i + 1] = r cos(a), r sin(a);  r = sqrt(-2 log u[2i]),  a = 2 pi u[2i + 1],  u = (word + 1/2) / 2**32
    """
    words = (philox_draws if out.dtype == np.float64 else philox_words)(
        array_namespace(out), out.size + out.size % 2, seed, counter
    )
    box_muller(words, out, mean, stddev)


def box_muller(words, out, mean, stddev):
    """Normally distributed `out` from as many random words, or draws for float64, and one more if that is odd."""
    xp, double = array_namespace(out), out.dtype == np.float64
    uniform = words.astype(xp.float64 if double else xp.float32)
    uniform += 0.5
    uniform *= 2.0**-64 if double else 2.0**-32
    radius = stddev * xp.sqrt(-2 * xp.log(uniform[::2]))
    angle = 2 * np.pi * uniform[1::2]
    uniform[::2], uniform[1::2] = radius * xp.cos(angle), radius * xp.sin(angle)
    uniform += mean
    out.reshape(-1)[...] = uniform[: out.size]


@kernel(narrow="kept")
def random_integers(out, low, high, seed, counter):
    """Fill `out` (integers) with low + floor(draw * (high - low) / 2**64), for high - low up to 2**32."""
    xp = array_namespace(out)
    draws, span, shift = philox_draws(xp, out.size, seed, counter), xp.uint64(high - low), xp.uint64(32)
    upper = (draws >> shift) * span
    upper += ((draws & xp.uint64(MASK32)) * span) >> shift
    out.reshape(-1)[...] = upper >> shift
    out += low


@kernel(narrow="kept")
def random_bernoulli(out, probability, seed, counter):
    """Fill `out` (boolean) with word < probability * 2**32, for a probability below 1."""
    words = philox_words(array_namespace(out), out.size, seed, counter)
    out.reshape(-1)[...] = words < words.dtype.type(threshold(probability))


@kernel(narrow="kept")
def random_permutation(out, seed, counter):
    """Fill `out` (n,) (integers) with 0 ... n - 1 in random order: that of 64-bit draws.

    The number itself replaces the draw's low bits, so that no two are equal and every sort gives the same order.
    """
    sort_by_draws(philox_draws(array_namespace(out), len(out), seed, counter), out)


def sort_by_draws(draws, out):
    """0 ... n - 1 in the order of as many draws, which are overwritten."""
    xp, n = array_namespace(out), len(out)
    mask = xp.uint64((1 << max(n - 1, 0).bit_length()) - 1)
    draws &= ~mask
    draws |= xp.arange(n, dtype=xp.uint64)
    draws.sort()
    out[...] = draws & mask


@kernel(narrow="kept")
def dropout(x, rate, seed, counter, mask_shape):
    """x * mask / (1 - rate), where mask is word >= rate * 2**32.

    Args:
        x: floating, any shape.
        rate: in [0, 1), the share to drop.
        seed, counter: of the mask's words.
        mask_shape: of the mask, which broadcasts to x.
    Returns:
        of x's shape and dtype.
    """
    xp = array_namespace(x)
    count = int(np.prod(mask_shape, dtype=np.int64))
    words = philox_words(xp, count, seed, counter).reshape(mask_shape)
    factor = (words >= words.dtype.type(threshold(rate))).astype(x.dtype)
    factor = factor * x.dtype.type(1 / (1 - rate))
    return x * factor
