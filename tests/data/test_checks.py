"""Data that cannot be trained on is refused with an error that names the argument, and what came."""

import numpy as np
import pytest

from dlgpu.data import ArrayData, as_data
from dlgpu.data.checks import ROWS_AT_ONCE, as_array, check_finite


@pytest.mark.parametrize(
    "bad", [["a", "b"], np.array([object()]), np.array(["2020-01-01"], "datetime64[D]"), [None, 1]]
)
def test_values_that_are_not_numbers_are_a_type_error(bad):
    with pytest.raises(TypeError, match=r"^x: expected numbers, got an array of dtype"):
        as_array(bad, "x")


def test_rows_of_different_lengths_are_named():
    with pytest.raises(ValueError, match=r"^y: expected rows of one shape"):
        as_array([[1, 2], [3]], "y")


def test_a_single_number_is_not_a_batch():
    with pytest.raises(ValueError, match=r"^x: expected an array of shape \(batch, ...\)"):
        as_array(3.0, "x")


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")])
@pytest.mark.parametrize("row", [0, 5, 9])
def test_the_first_bad_row_is_named(value, word, row):
    x = np.zeros((10, 3), np.float32)
    x[row:, 1] = value
    with pytest.raises(ValueError, match=rf"^x: row {row} holds {word}"):
        ArrayData(x, np.zeros(10)).check_finite()


def test_the_scan_finds_a_bad_row_behind_its_first_chunk():
    x = np.zeros((ROWS_AT_ONCE + 10, 1), np.float32)
    x[-3] = np.nan
    with pytest.raises(ValueError, match=f"row {ROWS_AT_ONCE + 7} holds NaN"):
        check_finite(x, "x")


def test_targets_and_weights_are_scanned_too():
    x = np.zeros((4, 2))
    with pytest.raises(ValueError, match=r"^y: row 2 holds NaN"):
        ArrayData(x, np.array([0, 0, np.nan, 0])).check_finite()
    with pytest.raises(ValueError, match=r"^sample_weight: row 1 holds infinity"):
        ArrayData(x, np.zeros(4), np.array([0, np.inf, 0, 0])).check_finite()


def test_different_lengths_name_both():
    with pytest.raises(ValueError, match="x has 4 samples, but y has 5"):
        as_data(np.zeros((4, 2)), np.zeros(5))
    with pytest.raises(ValueError, match=r"x\[0\] has 4 samples, but x\[1\] has 3"):
        as_data([np.zeros((4, 2)), np.zeros((3, 2))], np.zeros(4))
    with pytest.raises(ValueError, match="x has 4 samples, but sample_weight has 1"):
        as_data(np.zeros((4, 2)), np.zeros(4), np.zeros(1))


def test_no_samples_is_an_error():
    with pytest.raises(ValueError, match="x is empty"):
        as_data(np.zeros((0, 2)), np.zeros(0))


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "32"])
def test_a_batch_size_that_is_not_a_positive_integer_is_an_error(size):
    with pytest.raises(ValueError, match="batch_size: expected a positive integer"):
        as_data(np.zeros((4, 2)), batch_size=size)
