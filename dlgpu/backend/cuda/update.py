"""Optimizer steps on CUDA: one launch for all parameters, and two for a norm.

What changes from step to step is read and counted on the device, so that a CUDA graph of these launches can be
replayed.
"""

import numpy as np

from dlgpu.backend.cuda.geometry import BLOCK, blocks_for, contiguous, empty
from dlgpu.backend.cuda.source import source
from dlgpu.backend.dispatch import array_namespace
from dlgpu.backend.reference import update as reference

FEW_BLOCKS = 1024  # they fill a GPU, and what each block does first is done as few times
PARTS = 32  # blocks that share a segment
AT_ONCE = 6  # arrays that are collected by a launch


@reference.collect.on("cuda")
def collect(flat, targets, arrays):
    for first in range(0, len(targets), AT_ONCE):
        to, given = targets[first : first + AT_ONCE], arrays[first : first + AT_ONCE]
        none = [None] * (AT_ONCE - len(to))
        made = [None if a is None else contiguous(a.astype(flat.dtype, copy=False)) for a in given]
        sizes = [*(t.size for t in to), *[0] * len(none)]
        grid, args = (blocks_for(max(sizes)), len(to)), (*to, *none, *made, *none, *sizes)
        source("update.cu").launch("collect_six", grid, BLOCK, args, dtype=flat.dtype)


@reference.sgd_step.on("cuda")
def sgd_step(values, gradients, velocity, scalars, decay, momentum, nesterov):
    _launch("sgd_step", (values, gradients, velocity), scalars, decay, momentum, bool(nesterov))


@reference.rmsprop_step.on("cuda")
def rmsprop_step(values, gradients, square, mean, velocity, scalars, decay, rho, momentum, epsilon):
    buffers = values, gradients, square, mean, velocity
    _launch("rmsprop_step", buffers, scalars, decay, rho, 1 - rho, momentum, epsilon)


@reference.adagrad_step.on("cuda")
def adagrad_step(values, gradients, total, scalars, decay, epsilon):
    _launch("adagrad_step", (values, gradients, total), scalars, decay, epsilon)


@reference.adam_step.on("cuda")
def adam_step(values, gradients, mean, square, peak, scalars, decay, beta_1, beta_2, epsilon):
    buffers, takes = (values, gradients, mean, square, peak), (1 - beta_1, 1 - beta_2)
    _launch("adam_step", buffers, scalars, decay, beta_1, beta_2, *takes, epsilon)


@reference.nadam_step.on("cuda")
def nadam_step(values, gradients, mean, square, scalars, decay, beta_1, beta_2, epsilon):
    buffers, betas = (values, gradients, mean, square), (beta_1, beta_2, reference.MOMENTUM_DECAY)
    _launch("nadam_step", buffers, scalars, decay, *betas, 1 - beta_1, 1 - beta_2, epsilon)


@reference.decay_weights.on("cuda")
def decay_weights(values, scalars, decay):
    _launch("decay_weights", (values,), scalars, decay)


@reference.square_norm.on("cuda")
def square_norm(gradients):
    blocks = min(max(1, blocks_for(gradients.size)), FEW_BLOCKS)
    partials, total = empty(gradients, (blocks,), np.float64), empty(gradients, (), np.float64)
    code, dtype = source("update.cu"), gradients.dtype
    code.launch("square_norm", blocks, BLOCK, (contiguous(gradients), partials, gradients.size), dtype=dtype)
    code.launch("sum_partials", 1, BLOCK, (partials, total, blocks), dtype=dtype)
    return total


@reference.clip_norm.on("cuda")
def clip_norm(gradients, square, limit):
    square = array_namespace(gradients).asarray(square, np.float64)
    _launch("clip_norm", (gradients,), square, limit)


@reference.clip_norms.on("cuda")
def clip_norms(gradients, segments, limit):
    grid = len(segments), max(1, min(blocks_for(gradients.size), PARTS))
    given, partials = contiguous(gradients), empty(gradients, grid, np.float64)
    code, dtype = source("update.cu"), gradients.dtype
    code.launch("segment_squares", grid, BLOCK, (given, segments, partials), dtype=dtype)
    code.launch("clip_segments", grid, BLOCK, (given, segments, partials, limit), dtype=dtype)
    if given is not gradients:
        gradients[...] = given


@reference.clip_value.on("cuda")
def clip_value(gradients, limit):
    _launch("clip_value", (gradients,), limit)


def _launch(name, buffers, *args):
    """A kernel over buffers of one size, None for a null pointer; it may change all but the second, the gradients."""
    size, dtype = buffers[0].size, buffers[0].dtype
    given = [contiguous(b) for b in buffers]
    blocks = min(max(1, blocks_for(size)), FEW_BLOCKS)  # a step over nothing counts, too
    source("update.cu").launch(name, blocks, BLOCK, (*given, *args, size), dtype=dtype)
    for i, (buffer, copy) in enumerate(zip(buffers, given)):
        if copy is not buffer and i != 1:
            buffer[...] = copy
