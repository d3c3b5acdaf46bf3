"""Embedding: vectors of integers, masks, and clear errors."""

import numpy as np
import pytest

import dlgpu
from dlgpu import Tensor
from dlgpu.layers import Embedding


def test_outputs_are_rows_of_the_table():
    layer = Embedding(5, 3)
    for x in (np.array([[0, 4], [2, 2]]), np.array([1, 2], np.uint8), np.array([[[3]]], np.int32)):
        outputs = layer(x)
        np.testing.assert_array_equal(outputs.numpy(), layer.embeddings.numpy()[x])
        assert outputs.dtype == np.float32
    assert [w.name for w in layer.weights] == ["embeddings"]
    assert layer.embeddings.shape == (5, 3)
    assert layer.compute_output_shape((None, 7)) == (None, 7, 3)


def test_integers_stay_exact_on_their_way_in():
    seen = []

    class Spy(Embedding):
        def call(self, inputs):
            seen.append(inputs.dtype)
            return super().call(inputs)

    Spy(5, 3)(np.array([[1]]))  # float32 would merge indices past 2**24
    assert seen == [np.int64]


def test_whole_numbers_in_floats_are_converted():
    layer = Embedding(5, 3)
    np.testing.assert_array_equal(layer(np.array([[1.0, 4.0]])).numpy(), layer(np.array([[1, 4]])).numpy())


@pytest.mark.parametrize("wrong", [0.5, np.nan, -0.5])
def test_fractions_are_no_indices(wrong):
    message = r"got -1 to 1 \(-1 stands for what is not a whole"
    with dlgpu.device("cpu"), np.errstate(invalid="ignore"), pytest.raises(ValueError, match=message):
        Embedding(5, 3)(np.array([[1.0, wrong]]))


def test_gradients_of_a_row_add_up():
    layer = Embedding(4, 2)
    layer(np.array([[1, 3, 1], [1, 0, 3]])).sum().backward()
    np.testing.assert_array_equal(layer.embeddings.grad.numpy(), [[1, 1], [3, 3], [0, 0], [2, 2]])


def test_zero_is_masked_where_asked_for():
    x = np.array([[1, 0, 2], [0, 0, 3]])
    mask = Embedding(4, 2, mask_zero=True)(x).mask
    assert isinstance(mask, Tensor)
    np.testing.assert_array_equal(mask.numpy(), x != 0)
    assert Embedding(4, 2)(x).mask is None


def test_indices_out_of_range_and_wrong_arguments():
    layer = Embedding(4, 2, name="words")
    for x in ([[4]], [[-1, 2]], [[0.0, 7.0]]):
        # to find it on a GPU would mean to wait for it: there it gives NaN
        with (
            dlgpu.device("cpu"),
            pytest.raises(ValueError, match=r"Embedding 'words': expected indices from 0 to 3, got -?\d to \d"),
        ):
            layer(np.array(x))
    for arguments in ((0, 2), (4, -1), (2.5, 2), (True, 2)):
        with pytest.raises(ValueError, match="must be a positive integer"):
            Embedding(*arguments)


def test_an_embedding_is_described_and_built_again():
    layer = Embedding(4, 2, embeddings_initializer="ones", embeddings_regularizer="l2", mask_zero=True, name="words")
    again = Embedding.from_config(layer.get_config())
    assert again.name == "words"
    assert again.mask_zero
    np.testing.assert_array_equal(again(np.array([1])).numpy(), 1)
    assert len(again.losses) == 1
