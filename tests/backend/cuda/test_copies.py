"""Several copies in one launch."""

import numpy as np
import pytest

from dlgpu.backend.cuda.copies import AT_ONCE, fill
from tests.backend.column import on_device
from tests.backend.comparison import FLOATS

SHAPES = [(3, 5), (), (0, 4), (70001,), (33, 7), (1, 1), (1025,), (31, 2), (2,)]


@pytest.mark.parametrize("count", [1, AT_ONCE, len(SHAPES)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_each_array_comes_to_its_place_and_what_is_missing_is_zero(count, dtype, rng):
    flat = np.full(80000, 7, dtype)
    starts = np.cumsum([0, *(int(np.prod(s)) + 3 for s in SHAPES[: count - 1])])
    arrays = [rng.standard_normal(s).astype(dtype) for s in SHAPES[:count]]
    arrays[-1] = None
    if count > 1:
        arrays[0] = rng.standard_normal((5, 3)).astype("d").T  # neither contiguous nor of the dtype
    wanted = flat.copy()

    def filled(flat, *arrays):
        fill([flat[at : at + int(np.prod(s))].reshape(s) for at, s in zip(starts, SHAPES)], arrays)

    for at, s, a in zip(starts, SHAPES, arrays):
        wanted[at : at + int(np.prod(s))] = 0 if a is None else a.ravel()
    on_device(filled, flat, *arrays)
    np.testing.assert_array_equal(flat, wanted)
