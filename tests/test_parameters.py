"""Parameters, and the flat buffers in which they live: what optimizers and all-reduce rely on."""

import numpy as np
import pytest

from dlgpu import Tensor
from dlgpu.parameters import ALIGNMENT, FlatParameters, Parameter, flatten

SHAPES = [(3, 5), (), (64,), (0, 4), (65,), (2, 1, 7)]


@pytest.fixture(params=[np.float32, np.float64, np.float16])
def parameters(request, rng):
    return [Parameter(rng.normal(size=s).astype(request.param), f"w{i}") for i, s in enumerate(SHAPES)]


def test_parameters_move_into_one_buffer_and_keep_their_values(parameters):
    before = [p.numpy().copy() for p in parameters]
    flat = FlatParameters(parameters)
    assert flat.values.dtype == flat.gradients.dtype == parameters[0].dtype
    assert flat.values.shape == flat.gradients.shape
    for p, where, value in zip(parameters, flat.slices, before):
        np.testing.assert_array_equal(p.numpy(), value)
        np.testing.assert_array_equal(flat.values[where], value.ravel())
    assert flat.in_place()


def test_each_parameter_begins_at_256_bytes_and_the_gaps_are_zero(parameters):
    flat = FlatParameters(parameters)
    assert ALIGNMENT == 256
    used = np.zeros(flat.values.size, bool)
    for where in flat.slices:
        assert where.start * flat.values.itemsize % ALIGNMENT == 0
        assert not used[where].any()
        used[where] = True
    assert not flat.values[~used].any()
    flat.set_gradients([Tensor(np.ones(p.shape, p.dtype)) for p in parameters])
    np.testing.assert_array_equal(flat.gradients, used)


def test_parameters_are_views_both_ways(parameters):
    flat = FlatParameters(parameters)
    flat.values += 1
    assert parameters[1].item() == flat.values[flat.slices[1]][0]
    parameters[2].assign(np.full(64, 7))
    assert (flat.values[flat.slices[2]] == 7).all()
    assert flat.in_place()


def test_a_missing_gradient_counts_as_zero(parameters):
    flat = FlatParameters(parameters)
    flat.gradients[...] = 9
    flat.set_gradients([Tensor(np.ones(p.shape, p.dtype)) if i == 2 else None for i, p in enumerate(parameters)])
    for i, view in enumerate(flat.gradient_views):
        assert (view == (i == 2)).all()


def test_a_parameter_shared_with_another_buffer_lives_in_the_last(parameters):
    first = FlatParameters(parameters)
    second = FlatParameters(parameters[2:4])
    assert not first.in_place()
    assert second.in_place()
    second.values += 1
    assert (parameters[2].numpy() != first.values[first.slices[2]]).all()


def test_there_is_a_buffer_for_each_dtype_and_none_is_made_anew_without_need():
    single, double = Parameter(np.ones(3, np.float32), "a"), Parameter(np.ones(3), "b")
    other = Parameter(np.ones((2, 2), np.float32), "c")
    flats = flatten([single, double, other])
    assert [[p.name for p in flat.parameters] for flat in flats] == [["a", "c"], ["b"]]
    assert flatten([other, single, double], flats) == flats
    assert flatten([single, double], flats) != flats


def test_assign_converts_copies_and_refuses_other_shapes():
    p = Parameter(np.zeros((2, 2), np.float32), "kernel", "dense/kernel")
    array, given = p.array, np.arange(4).reshape(2, 2)
    p.assign(Tensor(given))
    assert p.array is array
    assert p.dtype == np.float32
    given[...] = 0
    np.testing.assert_array_equal(p.numpy(), [[0, 1], [2, 3]])
    with pytest.raises(ValueError, match=r"dense/kernel: expected an array of shape \(2, 2\), got \(4,\)"):
        p.assign(np.arange(4))
    np.testing.assert_array_equal(p.numpy(), [[0, 1], [2, 3]])


def test_what_is_not_trainable_requires_no_gradient():
    assert Parameter(np.zeros(2), "kernel").requires_grad
    assert not Parameter(np.zeros(2), "moving_mean", trainable=False).requires_grad
    assert repr(Parameter(np.zeros(2), "a")) == "<Parameter a shape=(2,) dtype=float64 trainable=True>"
