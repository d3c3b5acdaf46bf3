"""The data sets that come with dlgpu: what they hold, how they are split, and that nobody can spoil them."""

import importlib

import numpy as np
import pytest

from dlgpu import datasets
from dlgpu.datasets import _stored, breast_cancer, digits, sunspots
from dlgpu.datasets._stored import read, split_by_class

LOADERS = {
    "digits": digits.load_data,
    "breast_cancer": breast_cancer.load_data,
    "sunspots": sunspots.load_data,
}
each_set = pytest.mark.parametrize("load_data", LOADERS.values(), ids=LOADERS.keys())
each_labelled_set = pytest.mark.parametrize("module", [digits, breast_cancer], ids=["digits", "breast_cancer"])


def flat(data):
    """The four arrays of load_data() in a row."""
    return [array for part in data for array in part]


def sorted_rows(x, labels):
    """Every row with its label, in an order that depends on the content alone."""
    table = np.concatenate([x.reshape(len(x), -1).astype(np.float64), labels[:, None]], axis=1)
    return table[np.lexsort(table.T)]


@pytest.mark.parametrize(
    ("load_data", "shapes", "label_dtype"),
    [
        (digits.load_data, [(1442, 8, 8, 1), (1442,), (355, 8, 8, 1), (355,)], np.int64),
        (breast_cancer.load_data, [(456, 30), (456,), (113, 30), (113,)], np.int64),
        (sunspots.load_data, [(236, 11, 1), (236, 1), (62, 11, 1), (62, 1)], np.float32),
    ],
    ids=LOADERS.keys(),
)
def test_shapes_and_dtypes_are_as_documented(load_data, shapes, label_dtype):
    arrays = flat(load_data())
    assert [array.shape for array in arrays] == shapes
    assert [array.dtype for array in arrays] == [np.float32, label_dtype] * 2
    assert all(np.isfinite(array).all() for array in arrays)


@each_set
def test_arrays_are_contiguous_and_own_their_memory(load_data):
    for array in flat(load_data()):
        assert array.flags.c_contiguous
        assert array.flags.owndata
        assert array.flags.writeable


@each_set
def test_changing_loaded_arrays_changes_nothing_for_the_next_caller(load_data):
    spoilt = flat(load_data())
    originals = [array.copy() for array in spoilt]
    for array in spoilt:
        array[...] = -1
    for original, again in zip(originals, flat(load_data())):
        np.testing.assert_array_equal(original, again)


@each_set
def test_no_two_of_the_arrays_share_memory(load_data):
    arrays = flat(load_data())
    for i, first in enumerate(arrays):
        assert not any(np.shares_memory(first, second) for second in arrays[i + 1 :])


def test_importing_reads_no_file(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a data file was read at import")

    monkeypatch.setattr(np, "load", refuse)
    for module in (_stored, digits, breast_cancer, sunspots, datasets):
        importlib.reload(module)
    with pytest.raises(AssertionError, match="read at import"):
        digits.load_data()


def test_stored_files_need_no_pickle_and_stay_small():
    for name, most_bytes in {"digits": 150_000, "breast_cancer": 100_000, "sunspots": 5_000}.items():
        file = importlib.resources.files("dlgpu.datasets") / f"{name}.npz"
        assert len(file.read_bytes()) < most_bytes
        assert all(array.dtype != object for array in read(name).values())


# The split of the labelled sets


def test_every_fifth_row_of_each_class_is_a_test_row():
    labels = np.array([0, 1, 0, 0, 0, 0, 1, 1, 1, 1, 0, 1])
    x = np.arange(12)
    (x_train, y_train), (x_test, y_test) = split_by_class(x, labels)
    assert x_test.tolist() == [5, 9]
    assert y_test.tolist() == [0, 1]
    assert x_train.tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 10, 11]
    assert y_train.tolist() == labels[x_train].tolist()


def test_digits_split_covers_every_image_once():
    stored = read("digits")
    (x_train, y_train), (x_test, y_test) = digits.load_data()
    both = sorted_rows(np.concatenate([x_train, x_test]) * 16, np.concatenate([y_train, y_test]))
    np.testing.assert_array_equal(both, sorted_rows(stored["images"], stored["labels"]))


def test_breast_cancer_split_covers_every_row_once():
    stored = read("breast_cancer")
    (x_train, y_train), (x_test, y_test) = breast_cancer.load_data(standardize=False)
    both = sorted_rows(np.concatenate([x_train, x_test]), np.concatenate([y_train, y_test]))
    np.testing.assert_array_equal(both, sorted_rows(stored["features"].astype(np.float32), stored["labels"]))


@each_labelled_set
def test_no_test_row_is_also_a_training_row(module):
    (x_train, _), (x_test, _) = module.load_data()
    train_rows = {row.tobytes() for row in x_train}
    assert not any(row.tobytes() in train_rows for row in x_test)


@each_labelled_set
def test_each_class_gives_a_fifth_of_its_rows_to_the_test(module):
    (_, y_train), (_, y_test) = module.load_data()
    in_train, in_test = np.bincount(y_train), np.bincount(y_test)
    assert (in_test == (in_train + in_test) // 5).all()


# Digits


def test_digits_pixels_run_from_paper_to_full_ink_in_sixteenths():
    for x, _ in digits.load_data():
        assert x.min() == 0
        assert x.max() == 1
        np.testing.assert_array_equal(x * 16, np.round(x * 16))


def test_digits_have_the_known_count_of_each_digit():
    (_, y_train), (_, y_test) = digits.load_data()
    counts = np.bincount(np.concatenate([y_train, y_test]))
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_digits_images_are_upright_with_their_own_labels():
    (x_train, y_train), (x_test, y_test) = digits.load_data()
    means = np.stack([x_train[y_train == digit].mean(axis=0) for digit in range(10)])
    distances = ((x_test[:, None] - means) ** 2).sum(axis=(2, 3, 4))
    assert (distances.argmin(axis=1) == y_test).mean() > 0.85
    # A zero is a ring: ink to the left and right of a hollow. A one is a stroke down the middle.
    zero, one = means[0, 3:5, :, 0].mean(axis=0), means[1, 3:5, :, 0].mean(axis=0)
    assert zero[2] > 2 * zero[4] < zero[5]
    assert one[3:5].min() > 0.5 > one[[0, 7]].max()
    # A seven is wide at the top and a single stroke at the bottom.
    seven = means[7, :, :, 0]
    assert seven[0].sum() > seven[7].sum()


# Breast cancer


def test_breast_cancer_classes_are_the_known_diagnoses():
    (x_train, y_train), (_, y_test) = breast_cancer.load_data(standardize=False)
    diagnoses = np.concatenate([y_train, y_test])
    assert (diagnoses == breast_cancer.CLASS_NAMES.index("malignant")).sum() == 212
    assert (diagnoses == breast_cancer.CLASS_NAMES.index("benign")).sum() == 357
    radius = x_train[:, breast_cancer.FEATURE_NAMES.index("mean radius")]
    assert radius[y_train == 0].mean() > radius[y_train == 1].mean()


def test_breast_cancer_feature_names_are_in_the_columns_order():
    (x, _), _ = breast_cancer.load_data(standardize=False)
    assert len(set(breast_cancer.FEATURE_NAMES)) == x.shape[1] == 30

    def column(name):
        return x[:, breast_cancer.FEATURE_NAMES.index(name)]

    for measure in ("radius", "texture", "perimeter", "area", "smoothness", "symmetry", "fractal dimension"):
        assert (column(f"worst {measure}") >= column(f"mean {measure}")).all()
        assert (column(f"{measure} error") < column(f"mean {measure}")).all()
    np.testing.assert_allclose(column("mean area"), np.pi * column("mean radius") ** 2, rtol=0.15)


def test_breast_cancer_is_standardized_by_its_training_rows_alone():
    (x_train, _), (x_test, _) = breast_cancer.load_data()
    (raw_train, _), (raw_test, _) = breast_cancer.load_data(standardize=False)
    np.testing.assert_allclose(x_train.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(x_train.std(axis=0), 1, atol=1e-5)
    mean, std = raw_train.mean(axis=0, dtype=np.float64), raw_train.std(axis=0, dtype=np.float64)
    np.testing.assert_allclose(x_test, (raw_test - mean) / std, rtol=1e-4, atol=1e-5)
    assert abs(x_test.mean(axis=0)).max() > 0.05


# Sunspots


def test_sunspot_series_is_every_year_with_the_known_numbers():
    years, numbers = sunspots.load_series()
    assert years.dtype == np.int64
    assert numbers.dtype == np.float32
    assert sunspots.SCALE == 100, "the documentation speaks of hundreds"
    assert years.tolist() == list(range(1700, 2009))
    known = {1700: 5.0, 1712: 0.0, 1778: 154.4, 1957: 190.2, 2008: 2.9}
    assert {year: round(float(numbers[years == year][0]), 1) for year in known} == known
    assert numbers.min() == 0
    assert years[numbers.argmax()] == 1957


@pytest.mark.parametrize("window", [1, 2, 11, 246])
def test_sunspot_target_is_the_number_of_the_year_after_its_window(window):
    _, numbers = sunspots.load_series()
    (x_train, y_train), (x_test, y_test) = sunspots.load_data(window)
    x, y = np.concatenate([x_train, x_test]), np.concatenate([y_train, y_test])
    assert len(x) == len(y) == 309 - window
    for i in range(len(x)):
        np.testing.assert_allclose(x[i, :, 0] * sunspots.SCALE, numbers[i : i + window], rtol=1e-6)
        np.testing.assert_allclose(y[i, 0] * sunspots.SCALE, numbers[i + window], rtol=1e-6)


@pytest.mark.parametrize("window", [1, 11, 100])
def test_sunspot_test_years_come_after_every_training_year_whatever_the_window(window):
    years, numbers = sunspots.load_series()
    (x_train, y_train), (_, y_test) = sunspots.load_data(window)
    before = years < sunspots.FIRST_TEST_YEAR
    np.testing.assert_allclose(y_test[:, 0] * sunspots.SCALE, numbers[~before], rtol=1e-6)
    np.testing.assert_allclose(y_train[:, 0] * sunspots.SCALE, numbers[before][window:], rtol=1e-6)
    assert 0.19 < (~before).mean() < 0.21
    # Every number a training pair holds is a number of the training years: the series' peak, 1957, is not among them.
    assert max(x_train.max(), y_train.max()) * sunspots.SCALE < numbers[before].max() + 0.01 < numbers.max()


@pytest.mark.parametrize("window", [-3, 0, 247, 309])
def test_sunspots_refuse_a_window_that_leaves_nothing_to_train_on(window):
    with pytest.raises(ValueError, match=f"window of 1 to 246 years, got {window}"):
        sunspots.load_data(window)


@pytest.mark.parametrize("window", [2.0, "11", None])
def test_sunspots_refuse_a_window_that_is_not_an_integer(window):
    with pytest.raises(TypeError):
        sunspots.load_data(window)
