"""What a step counts, against the references; histograms, too."""

import numpy as np
import pytest

from tests.backend.column import agree
from tests.backend.rows.counting import *
from tests.backend.rows.counting import (
    test_a_scaled_value_is_added_in_double_precision,
    test_binary_matches_of_one_dtype,
)


def test_bfloat16(rng):
    test_a_scaled_value_is_added_in_double_precision((1,), "bfloat16")
    test_binary_matches_of_one_dtype((65, 3), "bfloat16", rng)


@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 1025, 70000])
def test_each_place_is_counted(n, rng):
    agree("count_each", rng.integers(0, 9, n), 11)
    agree("count_each", np.full(n, 3), 4)


def test_places_that_are_not_contiguous(rng):
    agree("count_each", rng.integers(0, 9, 70)[::2], 9)
    agree("count_each", rng.integers(0, 9, 70).astype(np.int32)[::-1], 9)
