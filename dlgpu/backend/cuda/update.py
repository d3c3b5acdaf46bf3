"""Optimizer steps on CUDA: one launch for all parameters, and two for a norm."""

import numpy as np

from dlgpu.backend.cuda.geometry import BLOCK, blocks_for, contiguous, empty
from dlgpu.backend.cuda.source import source
from dlgpu.backend.dispatch import array_namespace
from dlgpu.backend.reference import update as reference

FEW_BLOCKS = 1024  # for kernels of which every block has something to do first or last


@reference.sgd_step.on("cuda")
def sgd_step(values, gradients, velocity, learning_rate, momentum, nesterov):
    _launch("sgd_step", (values, gradients, velocity), learning_rate, momentum, bool(nesterov))


@reference.rmsprop_step.on("cuda")
def rmsprop_step(values, gradients, square, mean, velocity, learning_rate, rho, momentum, epsilon):
    _launch("rmsprop_step", (values, gradients, square, mean, velocity), learning_rate, rho, momentum, epsilon)


@reference.adagrad_step.on("cuda")
def adagrad_step(values, gradients, total, learning_rate, epsilon):
    _launch("adagrad_step", (values, gradients, total), learning_rate, epsilon)


@reference.adam_step.on("cuda")
def adam_step(values, gradients, mean, square, peak, rate, beta_1, beta_2, epsilon):
    _launch("adam_step", (values, gradients, mean, square, peak), rate, beta_1, beta_2, epsilon)


@reference.nadam_step.on("cuda")
def nadam_step(values, gradients, mean, square, mean_rate, rate, correction, beta_1, beta_2, epsilon):
    numbers = mean_rate, rate, correction, beta_1, beta_2, epsilon
    _launch("nadam_step", (values, gradients, mean, square), *numbers)


@reference.decay_weights.on("cuda")
def decay_weights(values, factor):
    _launch("decay_weights", (values,), factor)


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
    _launch("clip_norm", (gradients,), square, limit, most_blocks=FEW_BLOCKS)


@reference.clip_value.on("cuda")
def clip_value(gradients, limit):
    _launch("clip_value", (gradients,), limit)


def _launch(name, buffers, *args, most_blocks=None):
    """A kernel over buffers of one size, None for a null pointer; it may change all but the second, the gradients."""
    size, dtype = buffers[0].size, buffers[0].dtype
    blocks = blocks_for(size) if most_blocks is None else min(blocks_for(size), most_blocks)
    given = [None if b is None else contiguous(b) for b in buffers]
    source("update.cu").launch(name, blocks, BLOCK, (*given, *args, size), dtype=dtype)
    for i, (buffer, copy) in enumerate(zip(buffers, given)):
        if copy is not buffer and i != 1:
            buffer[...] = copy
