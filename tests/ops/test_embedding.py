"""The embedding row: rows taken and rows added up, each the other's derivative."""

import numpy as np
import pytest

from dlgpu import Tensor, ops
from dlgpu.testing import gradcheck

TABLE = np.arange(12.0).reshape(4, 3) / 5 - 1
INDICES = [np.array([[3, 0], [3, 3]]), np.array([2]), np.array(1), np.zeros((0, 2), int), np.array([0, 2, 1], np.uint8)]


def added(values, indices, rows):
    output = np.zeros((rows, *values.shape[indices.ndim :]), values.dtype)
    np.add.at(output, indices, values)
    return output


@pytest.mark.parametrize("indices", INDICES, ids=str)
def test_gather_takes_rows_and_scatter_add_adds_them_up(indices, rng):
    for table in (TABLE, TABLE[:, 0], TABLE.reshape(4, 3, 1), TABLE[::-1, ::2], TABLE[:, :0]):
        np.testing.assert_array_equal(ops.gather(Tensor(table), indices).numpy(), table[indices])
        values = rng.normal(size=indices.shape + table.shape[1:])
        result = ops.scatter_add(Tensor(values), indices, 4)
        np.testing.assert_allclose(result.numpy(), added(values, indices, 4), rtol=1e-13)
    values = rng.normal(size=(*indices.shape, 3))
    gradcheck(lambda table: ops.gather(table, indices) ** 3, TABLE)
    gradcheck(lambda values: ops.scatter_add(values, indices, 4) ** 3, values)
    gradcheck(lambda table: ops.scatter_add(ops.gather(table, indices), indices, 4) * table, TABLE)


def test_dtypes_are_kept():
    for dtype in (np.float32, np.int32):
        assert ops.gather(Tensor(TABLE.astype(dtype)), [1]).dtype == dtype
        assert ops.scatter_add(Tensor(TABLE.astype(dtype)), [0, 0, 1, 1], 2).dtype == dtype


def test_sums_have_the_same_bits_in_any_batch_of_the_same_order(rng):
    values, indices = rng.normal(size=(1000, 2)).astype(np.float32), rng.integers(0, 7, 1000)
    alone = [ops.scatter_add(Tensor(values[indices == r]), np.zeros((indices == r).sum(), int), 1) for r in range(7)]
    together = ops.scatter_add(Tensor(values), indices, 7)
    np.testing.assert_array_equal(together.numpy(), np.concatenate([a.numpy() for a in alone]))


def test_indices_out_of_range_and_shapes_that_do_not_fit():
    for wrong in ([4], [-1], [0, 5]):
        with pytest.raises(ValueError, match="expected indices from 0 to 3, got"):
            ops.gather(Tensor(TABLE), wrong)
        with pytest.raises(ValueError, match="expected indices from 0 to 3, got"):
            ops.scatter_add(Tensor(TABLE[: len(wrong)]), wrong, 4)
    with pytest.raises(TypeError, match="expected integer indices, got float32"):
        ops.gather(Tensor(TABLE), [1.0])
    with pytest.raises(ValueError, match=r"values of shape \(4, 3\) do not fit indices of shape \(2,\)"):
        ops.scatter_add(Tensor(TABLE), [0, 1], 4)
    with pytest.raises(ValueError, match="at least one dimension"):
        ops.gather(Tensor(1.0), [0])
