"""The kernel that is the transpose of a mean against its reference."""

from tests.backend.rows.reduction import *
from tests.backend.rows.reduction import test_what_a_mean_spreads


def test_bfloat16():
    test_what_a_mean_spreads((33, 7), "bfloat16")
