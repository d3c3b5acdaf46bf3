"""Arrays and streams go by in batches, every sample once a pass."""

import numpy as np
import pytest

from dlgpu.data import ArrayData, StreamData, as_data


def test_batches_cover_all_samples_in_order_and_the_last_may_be_smaller():
    x, y = np.arange(20).reshape(10, 2), np.arange(10)
    batches = list(ArrayData(x, y, batch_size=4))
    assert [b.samples for b in batches] == [4, 4, 2]
    assert len(ArrayData(x, y, batch_size=4)) == 3
    np.testing.assert_array_equal(np.concatenate([b.x for b in batches]), x)
    np.testing.assert_array_equal(np.concatenate([b.y for b in batches]), y)


def test_batches_follow_the_order_given_and_rows_stay_together():
    x, y, w = np.arange(7) * 10, np.arange(7), np.arange(7) + 0.5
    order = np.array([6, 0, 5, 1, 4, 2, 3])
    batches = list(ArrayData(x, y, w, batch_size=3).batches(order))
    assert np.concatenate([b.y for b in batches]).tolist() == order.tolist()
    for b in batches:
        np.testing.assert_array_equal(b.x, b.y * 10)
        np.testing.assert_array_equal(b.sample_weight, b.y + 0.5)


def test_lists_and_dictionaries_of_arrays_are_cut_alike():
    x = {"a": np.arange(5), "b": np.arange(5) * 2}
    batch = ArrayData(x, [np.arange(5), np.arange(5) + 1]).take(slice(1, 3))
    assert batch.x["a"].tolist() == [1, 2]
    assert batch.x["b"].tolist() == [2, 4]
    assert [a.tolist() for a in batch.y] == [[1, 2], [2, 3]]


def test_a_batch_of_arrays_is_a_view_when_the_order_is_plain():
    x = np.zeros((8, 2))
    assert ArrayData(x).take(slice(2, 4)).x.base is x


def test_split_holds_out_the_last_samples():
    head, tail = ArrayData(np.arange(10), np.arange(10), batch_size=3).split(0.2)
    assert head.x.tolist() == list(range(8))
    assert tail.y.tolist() == [8, 9]
    assert head.batch_size == tail.batch_size == 3


@pytest.mark.parametrize("fraction", [1.0, -0.1, 2, 0.95])
def test_a_split_that_leaves_a_part_empty_is_an_error(fraction):
    with pytest.raises(ValueError, match="validation_split"):
        ArrayData(np.arange(10)).split(fraction)


def test_nested_lists_of_numbers_are_one_array_and_a_list_of_arrays_several_inputs():
    assert as_data([[1.0, 2.0], [3.0, 4.0]]).x.shape == (2, 2)
    assert [a.shape for a in as_data([np.zeros((3, 2)), np.zeros((3, 4))]).x] == [(3, 2), (3, 4)]


def test_a_generator_goes_on_where_it_stopped_and_a_list_like_begins_anew():
    generator = StreamData(iter([(np.zeros((2, 1)), np.zeros(2)), (np.ones((2, 1)), np.ones(2))]))
    assert next(iter(generator)).x[0, 0] == 0
    assert next(iter(generator)).x[0, 0] == 1

    class Pieces:
        def __len__(self):
            return 2

        def __getitem__(self, i):
            return np.full((3, 1), i), np.zeros(3)

    pieces = as_data(Pieces())
    assert len(pieces) == 2
    assert [b.x[0, 0] for b in pieces] == [b.x[0, 0] for b in pieces] == [0, 1]


def test_a_generator_that_yields_nonsense_says_in_which_batch():
    stream = as_data(item for item in [(np.zeros((1, 1)), np.zeros(1)), (1, 2, 3, 4)])
    with pytest.raises(ValueError, match="batch 1 of the generator"):
        list(stream)
    with pytest.raises(ValueError, match="x has 2 samples, but y has 3"):
        list(as_data(item for item in [(np.zeros((2, 1)), np.zeros(3))]))


def test_what_goes_with_arrays_only_is_refused_beside_a_generator():
    with pytest.raises(ValueError, match="go with arrays"):
        as_data((i for i in range(3)), np.zeros(3))
    with pytest.raises(TypeError, match="expected arrays, or a generator"):
        as_data(object())


def test_every_run_through_the_same_data_is_one_of_its_own():
    data = ArrayData(np.arange(4.0))
    first, second = as_data(data), as_data(data)
    assert len({id(d) for d in (data, first, second)}) == 3  # a device knows by the object what it has seen
    assert all(a is b is c for a, b, c in zip(data.arrays, first.arrays, second.arrays))
    first.batch_size = 1
    assert (data.batch_size, second.batch_size) == (32, 32)
