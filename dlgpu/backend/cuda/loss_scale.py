"""Dynamic loss scaling on CUDA: nothing is read back, and copies are made only in a step that is skipped."""

from dlgpu.backend.cuda.geometry import BLOCK, blocks_for, contiguous
from dlgpu.backend.cuda.source import source
from dlgpu.backend.reference import loss_scale as reference

FEW_BLOCKS = 1024  # they fill a GPU; in most launches each thread only looks at the state


@reference.unscale.on("cuda")
def unscale(gradients, state):
    _launch("unscale", gradients, state)


@reference.copy_if_skipped.on("cuda")
def copy_if_skipped(target, values, state):
    _launch("copy_if_skipped", target, contiguous(values), state)


@reference.adjust_scale.on("cuda")
def adjust_scale(state, growth_steps):
    source("loss_scale.cu").launch("adjust_scale", 1, 1, (state, growth_steps), dtype=state.dtype)


def _launch(name, changed, *args):
    given = contiguous(changed)
    blocks = min(blocks_for(given.size), FEW_BLOCKS)
    source("loss_scale.cu").launch(name, blocks, BLOCK, (given, *args, given.size), dtype=given.dtype)
    if given is not changed:
        changed[...] = given
