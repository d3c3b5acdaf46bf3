"""The compiled means of arrays and their transposes against their references."""

import numpy as np
import pytest

from tests.backend.cpu.agree import agree
from tests.backend.rows.reduction import *


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(), (1,), (32,), (33, 7), (4096,), (4097,)])
def test_means(shape, dtype, rng):
    x = np.array(rng.standard_normal(shape), dtype)
    agree("mean_of_all", x, size=x.size)
    agree("mean_of_all", x.T[::-1] if x.ndim else x, size=x.size)
