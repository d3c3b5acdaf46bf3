"""The normalization loops of the CPU column against their references."""

import numpy as np

from dlgpu.backend.reference import normalization as reference
from tests.backend.rows.normalization import *


def test_equal_values_far_from_zero_have_no_variance(rng):
    x = np.broadcast_to(rng.uniform(1e5, 1e6, (64, 1)), (64, 35)).astype(np.float32)
    rows, _, of_rows = reference.layer_normalization(x, None, None, 1e-3)
    columns, _, of_columns = reference.batch_normalization(x.T.copy(), None, None, 1e-3, None)
    # the mean is off by some ulps of a sum of 35 values, and what is left of it by as many ulps of that
    allowed = (35 * np.finfo(np.float32).eps) ** 2 * x.max() / np.sqrt(1e-3)
    for output, variance in ((rows, of_rows), (columns, of_columns)):
        assert abs(output).max() <= allowed
        assert (variance >= 0).all()
