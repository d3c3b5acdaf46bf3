"""The transpose of a mean against its reference."""

import numpy as np
import pytest

from tests.backend.column import agree


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("shape", [(), (1,), (32,), (33, 7), (4097,), (3, 0, 2)])
def test_what_a_mean_spreads(shape, dtype):
    for value in 0.7, np.nan, 1e4, 1e-7:
        agree("spread", np.array(value).astype(dtype), max(int(np.prod(shape)), 1), shape)
