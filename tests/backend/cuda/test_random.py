"""The random kernels: normals, and a grid that is too small for what it fills."""

import ml_dtypes
import numpy as np
import pytest

from dlgpu.backend.cuda import geometry
from tests.backend.comparison import FLOATS
from tests.backend.rows.random import *
from tests.backend.rows.random import SIZES, drawn

ULPS = 4  # by which normals may differ: log, sine and cosine are each library's own


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", SIZES)
def test_normals_differ_in_the_last_places_at_most(size, dtype):
    found, wanted = (a.astype("d") for a in drawn("random_normal", np.zeros(size, dtype), 0.5, 2.0, 3, 4))
    eps = float(ml_dtypes.finfo(dtype).eps)
    np.testing.assert_allclose(found, wanted, rtol=ULPS * eps, atol=ULPS * eps)


def test_more_values_than_a_grid_has_threads(monkeypatch):
    monkeypatch.setattr(geometry, "MAX_BLOCKS", 2)
    for name, out, *args in [
        ("random_bits", np.zeros(9001, np.uint32)),
        ("random_uniform", np.zeros(9001, "f"), -0.3, 0.7),
        ("random_integers", np.zeros(9001, np.int64), -5, 2**32 - 5),
        ("random_bernoulli", np.zeros(9001, bool), 0.3),
        ("random_permutation", np.zeros(9001, np.int64)),
    ]:
        np.testing.assert_array_equal(*drawn(name, out, *args, 1, 2), err_msg=name)
