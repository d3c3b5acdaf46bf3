"""Random numbers on CUDA: one thread for each Philox block of four words."""

import math

import numpy as np

from dlgpu.backend.cuda.geometry import BLOCK, blocks_for, contiguous, empty, empty_like
from dlgpu.backend.cuda.signature import C_TYPES
from dlgpu.backend.cuda.source import source
from dlgpu.backend.dispatch import array_namespace
from dlgpu.backend.reference import random as reference

C_NAMES = {name: c_type for c_type, name in reversed(C_TYPES.items())}  # the first that stands for each dtype


@reference.random_bits.on("cuda")
def random_bits(out, seed, counter):
    _launch("random_bits", out, 4, (), seed, counter)


@reference.random_uniform.on("cuda")
def random_uniform(out, low, high, seed, counter):
    bits = 53 if out.dtype == np.float64 else 24
    numbers = (high - low) * 2.0**-bits, low
    _launch("random_uniform", out, _values(out), numbers, seed, counter, dtype=out.dtype)


@reference.random_normal.on("cuda")
def random_normal(out, mean, stddev, seed, counter):
    _launch("random_normal", out, _values(out), (mean, stddev), seed, counter, dtype=out.dtype)


@reference.random_integers.on("cuda")
def random_integers(out, low, high, seed, counter):
    start = int(out.dtype.type(low)) & reference.MASK64  # an error if `out` cannot hold it
    integer = f"INTEGER={C_NAMES[out.dtype.name]}"
    _launch("random_integers", out, 2, (start, high - low), seed, counter, defines=(integer,))


@reference.random_bernoulli.on("cuda")
def random_bernoulli(out, probability, seed, counter):
    _launch("random_bernoulli", out, 4, (reference.threshold(probability),), seed, counter)


@reference.random_permutation.on("cuda")
def random_permutation(out, seed, counter):
    n = len(out)
    mask = (1 << max(n - 1, 0).bit_length()) - 1
    keys = empty(out, (n,), np.uint64)
    _launch("permutation_keys", keys, 2, (mask,), seed, counter)
    keys.sort()
    out[...] = keys & keys.dtype.type(mask)


@reference.dropout.on("cuda")
def dropout(x, rate, seed, counter, mask_shape):
    if math.prod(mask_shape) != x.size:
        mask = dropout(array_namespace(x).ones(mask_shape, x.dtype), rate, seed, counter, mask_shape)
        return x * mask
    x, out = contiguous(x), empty_like(x)
    scale = float(x.dtype.type(1 / (1 - rate)))
    numbers = out, reference.threshold(rate), scale
    _launch("dropout", x, 4, numbers, seed, counter, dtype=x.dtype)
    return out


def _values(out):
    """How many floating values a block makes."""
    return 2 if out.dtype == np.float64 else 4


def _launch(name, array, values, args, seed, counter, **options):
    """A kernel that makes so many `values` of each Philox block; see graph.Distance for a step that is captured."""
    state = getattr(counter, "state", None), seed, counter & reference.MASK64, counter >> 64
    blocks = blocks_for(-(-array.size // values))
    source("random.cu").launch(name, blocks, BLOCK, (array, *args, *state, array.size), **options)
