"""The normalization kernels: one launch each way, whatever the number of blocks, and sixteen bits."""

import ml_dtypes
import numpy as np
import pytest

import dlgpu
from dlgpu.backend.emulator import launcher
from dlgpu.backend.reference import normalization as reference
from tests.backend.rows import normal
from tests.backend.rows.normalization import *


def both_ways(x, grad, scale, mask, mean=None, variance=None, by_row=(None, None)):
    """Everything that the kernels make of these, backward from given statistics if there are some."""
    with dlgpu.device("emulator"):
        columns = reference.batch_normalization(x, scale, scale, 1e-3, mask)
        rows = reference.layer_normalization(x, scale, scale, 1e-3)
        mean, variance = columns[1:] if mean is None else (mean, variance)
        by_row = rows[1:] if by_row[0] is None else by_row
        return [
            *(*columns, *reference.batch_normalization_backward(grad, x, mean, variance, scale, 1e-3, mask)),
            *(*rows, *reference.layer_normalization_backward(grad, x, *by_row, scale, 1e-3)),
            reference.normalize(x, mean, variance, scale, None, 1e-3),
        ]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_of_sixteen_bits_nothing_is_rounded_but_the_output_and_the_gradient_of_x(dtype, rng):
    x, grad, scale = normal(rng, 300, 33).astype(dtype), normal(rng, 300, 33).astype(dtype), normal(rng, 33)
    mask, statistics = rng.uniform(size=300) < 0.6, [normal(rng, 33), np.ones(33, "f")]
    by_row = [normal(rng, 300), np.ones(300, "f")]
    found = both_ways(x, grad, scale, mask, *statistics, by_row)
    for f, w in zip(found, both_ways(x.astype("f"), grad.astype("f"), scale, mask, *statistics, by_row)):
        assert f.dtype == (dtype if f.ndim == 2 else np.float32)
        np.testing.assert_array_equal(f, w.astype(f.dtype))


def test_any_number_of_blocks_gives_the_same_bits(rng, monkeypatch):
    args = normal(rng, 2500, 70), normal(rng, 2500, 70), normal(rng, 70), rng.uniform(size=2500) < 0.6
    monkeypatch.setattr(launcher, "RESIDENT", 1)
    alone = both_ways(*args)
    for blocks in (2, 5):
        monkeypatch.setattr(launcher, "RESIDENT", blocks)
        for f, w in zip(both_ways(*args), alone):
            np.testing.assert_array_equal(f, w)


def test_one_launch_each_way(rng, launches):
    both_ways(normal(rng, 9, 7), normal(rng, 9, 7), None, None)
    assert sorted(launches) == [
        *("batch_normalization", "batch_normalization_backward"),
        *("layer_normalization", "layer_normalization_backward", "normalize"),
    ]
