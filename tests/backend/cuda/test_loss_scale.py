"""Dynamic loss scaling: what is found, what is copied, and how the scale moves."""

import numpy as np
import pytest

from dlgpu.backend.reference import loss_scale
from tests.backend.column import agree, on_device
from tests.backend.comparison import FLOATS
from tests.backend.rows.update import values

SIZES = [0, 1, 31, 32, 33, 1025, 70001]


def state(scale=2.0**15, finite=0, skipped=0, found=0):
    return np.array([scale, finite, skipped, found], "f")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", SIZES)
def test_gradients_are_divided_and_what_is_not_finite_is_noted(size, dtype, rng):
    for edges in (False, True):
        x = values(rng, size, dtype, edges=False)
        if edges and size > 5:
            x[-3:] = np.array([3e4, 1e-7, -np.inf], dtype)
            x[size // 2] = np.nan
        agree("unscale", x, state(4.0))
        now = state(4.0)
        on_device(loss_scale.unscale, x.copy(), now)
        assert now.tolist() == [4, 0, 0, edges and size > 5]
    if size:
        agree("unscale", np.stack([x, x], 1)[:, 0], state(0.5))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", SIZES)
def test_arrays_are_copied_in_a_step_that_is_skipped_only(size, dtype, rng):
    target, source = (values(rng, size, dtype) for _ in range(2))
    if size > 5:
        source[:3] = np.array([3e4, 1e-7, np.nan], dtype)
    for found in (0, 1):
        agree("copy_if_skipped", target, source, state(found=found))
        copy = target.copy()
        on_device(loss_scale.copy_if_skipped, copy, source, state(found=found))
        np.testing.assert_array_equal(copy.view(np.uint8), (source if found else target).view(np.uint8))
    if size:
        agree("copy_if_skipped", np.stack([target] * 2, 1)[:, 0], np.stack([source] * 2, 1)[:, 1], state(found=1))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (state(), [2.0**15, 1, 0, 0]),
        (state(finite=2), [2.0**16, 0, 0, 0]),
        (state(finite=2, found=1), [2.0**14, 0, 1, 0]),
        (state(finite=1, skipped=7, found=1), [2.0**14, 0, 8, 0]),
        (state(2.0**127, finite=2), [2.0**127, 0, 0, 0]),
        (state(2.0**-126, found=1), [2.0**-126, 0, 1, 0]),
    ],
)
def test_the_scale_halves_at_once_and_doubles_after_so_many_steps(before, after):
    agree("adjust_scale", before, 3)
    on_device(loss_scale.adjust_scale, before, 3)
    assert before.tolist() == after
