"""Operations that move values: NumPy's results, views where NumPy gives views, and derivatives of both orders."""

import numpy as np
import pytest

import dlgpu
from dlgpu import Tensor, ops
from dlgpu.testing import gradcheck

X = np.arange(24.0).reshape(2, 3, 4) / 7 - 1
ROWS = np.array([1, 0, 1, -1])

# operation: arguments after the tensor, and the same in NumPy
CASES = [
    ("broadcast_to", ((5, 2, 3, 4),), np.broadcast_to),
    ("broadcast_to", ((2, 3, 4),), np.broadcast_to),
    ("expand_dims", (0,), np.expand_dims),
    ("expand_dims", (-1,), np.expand_dims),
    ("expand_dims", (-2,), np.expand_dims),
    ("flip", (1,), np.flip),
    ("moveaxis", (0, -1), np.moveaxis),
    ("moveaxis", (-1, 1), np.moveaxis),
    ("pad", (((1, 0), (0, 2), (1, 1)),), np.pad),
    ("repeat", (3, 1), np.repeat),
    ("repeat", (0, -1), np.repeat),
    ("reshape", ((4, 6),), np.reshape),
    ("reshape", ((-1, 2),), np.reshape),
    ("reshape", (-1,), np.reshape),
    ("swapaxes", (0, -1), np.swapaxes),
    ("tile", ((2, 1, 3),), np.tile),
    ("tile", ((2,),), np.tile),
    ("tile", (2,), np.tile),
    ("tile", ((2, 1, 1, 1),), np.tile),
    ("tile", ((0, 1, 1),), np.tile),
    ("transpose", (), np.transpose),
    ("transpose", ((1, 2, 0),), np.transpose),
    ("transpose", ((-1, 0, 1),), np.transpose),
]
INDICES = [
    0,
    -1,
    (1, 2, 3),
    slice(None, None, -1),
    (slice(1), ..., slice(None, None, 2)),
    (None, ..., 0),
    (slice(None), None, [0, 2]),
    ROWS,
    (ROWS, slice(None), ROWS),
    (slice(None), ROWS),
    (ROWS[:, None], ROWS),
    (0, ..., ROWS),
    X > 0,
    (X[:, :, 0] > 0,),
    (slice(None), np.array([True, False, True])),
    np.zeros((0,), int),
    slice(0, 0),
    True,
    (),
    ...,
]
DIFFERENTIABLE = {name for name, _, _ in CASES}
DIFFERENTIABLE |= {"concatenate", "getitem", "split", "squeeze", "stack", "take_along_axis"}
CONSTANT = {"one_hot"}


@pytest.mark.parametrize(("name", "arguments", "expected"), CASES)
def test_shapes_change_as_in_numpy(name, arguments, expected):
    operation = getattr(ops, name)
    for array in (X, X[::-1, ::2], X[:0], X.astype(np.float32), (X * 7).astype(int)):
        if name in ("broadcast_to", "reshape") and array.shape != X.shape:
            continue
        result = operation(Tensor(array), *arguments)
        np.testing.assert_array_equal(result.numpy(), expected(array, *arguments))
        assert result.dtype == array.dtype
    gradcheck(lambda x: operation(x, *arguments), X)


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_indexing_is_numpys(index):
    np.testing.assert_array_equal(Tensor(X)[index].numpy(), X[index])
    gradcheck(lambda x: ops.getitem(x, index) ** 2, X)


def test_indexing_with_tensors():
    rows = Tensor(np.array([[1], [0]]))
    np.testing.assert_array_equal(Tensor(X)[rows].numpy(), X[[[1], [0]]])
    np.testing.assert_array_equal(Tensor(X)[Tensor(X) > 0].numpy(), X[X > 0])
    np.testing.assert_array_equal(Tensor(X)[0, Tensor(2) : Tensor(3)].numpy(), X[0, 2:3])


def test_a_value_taken_several_times_gets_the_sum_of_gradients():
    grad = dlgpu.grad(lambda x: (x[np.array([0, 2, 0, -1])] * np.array([1.0, 2.0, 4.0, 8.0])).sum())(Tensor(np.ones(3)))
    np.testing.assert_array_equal(grad.numpy(), [5, 0, 10])


def test_views_are_not_copies():
    x = Tensor(X.copy())
    views = [x[1:], x.reshape(6, 4), x.T, ops.flip(x, 0), ops.squeeze(ops.expand_dims(x, 1)), x.swapaxes(0, 1)]
    assert all(np.shares_memory(v.numpy(), x.numpy()) for v in views)


def test_squeeze_takes_out_axes_of_length_1():
    x = np.zeros((1, 3, 1))
    for axis in (None, 0, -1):
        np.testing.assert_array_equal(ops.squeeze(Tensor(x), axis).numpy(), np.squeeze(x, axis))
        gradcheck(lambda x, axis=axis: ops.squeeze(x, axis) ** 2, x)
    with pytest.raises(ValueError, match="not equal to one"):
        ops.squeeze(Tensor(x), 1)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_joins_and_splits_undo_each_other(axis):
    a, b = X, X * 2 - 0.3
    joined = ops.concatenate([Tensor(a), Tensor(b), Tensor(a[:0] if axis == 0 else a)], axis)
    np.testing.assert_array_equal(joined.numpy(), np.concatenate([a, b, a[:0] if axis == 0 else a], axis))
    np.testing.assert_array_equal(ops.stack([a, b], axis).numpy(), np.stack([a, b], axis))
    for parts in (1, X.shape[axis], [1], [0, 1, 1]):
        for ours, expected in zip(ops.split(Tensor(X), parts, axis), np.split(X, parts, axis), strict=True):
            np.testing.assert_array_equal(ours.numpy(), expected)
        np.testing.assert_array_equal(ops.concatenate(ops.split(Tensor(X), parts, axis), axis).numpy(), X)
        gradcheck(lambda x, parts=parts: tuple(p * p for p in ops.split(x, parts, axis)), X)
    gradcheck(lambda a, b: ops.concatenate([a, b, a], axis) ** 2, a, b)
    gradcheck(lambda a, b: ops.stack([a, b, a], axis) ** 2, a, b)


def test_integers_joined_with_floats_take_their_dtype():
    small = Tensor(np.ones(2, np.float32))
    assert ops.concatenate([np.arange(2), small]).dtype == np.float32
    assert ops.concatenate([np.arange(2), np.arange(3)]).dtype == np.int64
    mixed = Tensor(np.ones(2, np.float32), requires_grad=True)
    ops.concatenate([mixed, Tensor(np.ones(2))]).sum().backward()
    assert mixed.grad.dtype == np.float32


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_take_along_axis(axis):
    indices = np.array([[[1, 0, 1, 1]], [[0, 0, 1, 0]]])  # one row, for every row of X
    indices = indices[:1] if axis == 0 else indices
    np.testing.assert_array_equal(
        ops.take_along_axis(Tensor(X), indices, axis).numpy(), np.take_along_axis(X, indices, axis)
    )
    gradcheck(lambda x: ops.take_along_axis(x, indices, axis) ** 2, X)


def test_padding_has_the_value_asked_for():
    widths = ((0, 0), (1, 2), (0, 1))
    np.testing.assert_array_equal(ops.pad(Tensor(X), widths, value=-1).numpy(), np.pad(X, widths, constant_values=-1))


def test_one_hot_rows():
    labels = np.array([[2, 0], [1, 1]])
    result = ops.one_hot(labels, 3)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result.numpy(), np.eye(3)[labels])


def test_errors_say_what_is_wrong():
    x = Tensor(X)
    for wrong in (
        lambda: ops.flip(x, 3),
        lambda: ops.moveaxis(x, 0, 3),
        lambda: ops.expand_dims(x, 5),
        lambda: ops.repeat(x, 2, -4),
        lambda: ops.split(x, 2, 7),
        lambda: ops.transpose(x, (0, 1, 3)),
        lambda: ops.take_along_axis(x, np.zeros((1, 1, 1), int), 3),
    ):
        with pytest.raises(ValueError, match=r"axis -?\d is out of bounds for a tensor of \d dimensions"):
            wrong()
    with pytest.raises(ValueError, match="does not divide into 2 equal parts"):
        ops.split(x, 2, 1)
    with pytest.raises(ValueError, match="at least one"):
        ops.concatenate([])
    with pytest.raises(ValueError, match="expected 3 pairs"):
        ops.pad(x, [(1, 1)])
    with pytest.raises(ValueError, match="indices of 3 dimensions"):
        ops.take_along_axis(x, np.zeros(2, int), 0)
    with pytest.raises(IndexError):
        x[5]
    with pytest.raises(ValueError, match="reshape"):
        x.reshape(5, 5)
