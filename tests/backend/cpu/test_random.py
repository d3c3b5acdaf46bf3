"""The compiled random numbers: the normals, too, have the reference's bits."""

import numpy as np
import pytest

from tests.backend.comparison import FLOATS
from tests.backend.rows.random import *
from tests.backend.rows.random import SIZES, drawn


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", SIZES)
def test_normals_are_those_of_the_reference(size, dtype):
    found, wanted = drawn("random_normal", np.zeros(size, dtype), 0.5, 2.0, 3, 4)
    np.testing.assert_array_equal(found, wanted)
