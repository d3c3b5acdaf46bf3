"""The softmax and cross-entropy kernels, also on a grid that is too small for their rows."""

import pytest

from dlgpu.backend.cuda import geometry
from tests.backend.rows import normal
from tests.backend.rows.softmax import *
from tests.backend.rows.softmax import along, both_ways, positive, test_other_dtypes


def test_bfloat16(rng):
    test_other_dtypes("bfloat16", rng)


@pytest.mark.parametrize("columns", [1, 20, 50, 1030])
def test_more_rows_than_a_grid_has_teams(columns, rng, monkeypatch):
    monkeypatch.setattr(geometry, "MAX_BLOCKS", 2)
    x, size = normal(rng, 300, columns), columns
    along(x, normal(rng, 300, columns), 1, size=size)
    both_ways("softmax_cross_entropy", x, positive(rng, *x.shape), size=size)
    both_ways("softmax_cross_entropy", x, rng.integers(0, columns, 300), size=size)
    both_ways("sigmoid_cross_entropy", x, positive(rng, *x.shape), size=size)
    both_ways("binary_cross_entropy", positive(rng, *x.shape), positive(rng, *x.shape), ulps=32, size=size)
    p = positive(rng, *x.shape).astype("d")
    both_ways("categorical_cross_entropy", p, positive(rng, *x.shape, dtype="d"), size=size)
