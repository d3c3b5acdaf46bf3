"""Dynamic loss scaling, decided on the device: gradients that are not finite take a step back.

`state` is (4,) float32 on the gradients' device: the scale, the steps with finite gradients since it changed, the steps
that were skipped, and whether this step's gradients are not finite (0 or 1; 0 before and after a step).
"""

import numpy as np

from dlgpu.backend.dispatch import array_namespace, kernel

SCALE, FINITE, SKIPPED, FOUND = range(4)


@kernel
def unscale(gradients, state):
    """gradients /= scale; if one is not finite that is noted in `state`.

    Args:
        gradients: (size,), floating.
    """
    gradients /= state[SCALE].astype(gradients.dtype)
    if not array_namespace(gradients).isfinite(gradients).all():
        state[FOUND] = 1


@kernel
def copy_if_skipped(target, values, state):
    """target[...] = values if this step's gradients are not finite: two arrays of one shape and dtype."""
    if state[FOUND]:
        target[...] = values


@kernel
def adjust_scale(state, growth_steps):
    """After a step: halve the scale if gradients were not finite, or double it after so many steps in which they were.

    A scale stays finite and above 0.
    """
    scale, finite = float(state[SCALE]), float(state[FINITE]) + 1
    limits = np.finfo(np.float32)
    if state[FOUND]:
        state[SKIPPED] += 1
        scale, finite = max(scale / 2, float(limits.tiny)), 0
    elif finite >= growth_steps:
        scale, finite = (scale * 2 if scale * 2 <= limits.max else scale), 0
    state[SCALE], state[FINITE], state[FOUND] = scale, finite, 0
