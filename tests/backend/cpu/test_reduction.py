"""The mean of an array and its transpose against their references."""

import numpy as np
import pytest

from tests.backend.cpu.agree import agree


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("shape", [(), (1,), (32,), (33, 7), (4096,), (4097,), (3, 0, 2)])
def test_means_and_what_they_spread(shape, dtype, rng):
    x = np.array(rng.standard_normal(shape), dtype)
    if x.size and dtype != "float16":
        agree("mean_of_all", x, size=x.size)
        agree("mean_of_all", x.T[::-1] if x.ndim else x, size=x.size)
    agree("spread", np.array(0.7, dtype), max(x.size, 1), shape)
    agree("spread", np.array(np.nan, dtype), 3, shape)
