"""The normalization kernels against their references, where they could break."""

import ml_dtypes
import numpy as np
import pytest

import dlgpu
from dlgpu.backend.cuda.source import Source
from dlgpu.backend.emulator import launcher
from dlgpu.backend.reference import normalization as reference
from tests.backend.cuda.hostile import agree, covers

SHAPES = [(0, 3), (1, 1), (2, 0), (5, 2), (1, 31), (3, 32), (33, 33), (131, 10), (3, 1025), (2500, 33), (70000, 3)]


def normal(rng, *shape, dtype="f"):
    return rng.standard_normal(shape).astype(dtype)


def batch(x, grad, scale, offset, mask=None, epsilon=1e-3, **options):
    agree("batch_normalization", x, scale, offset, epsilon, mask, **options)
    _, mean, variance = reference.batch_normalization.reference(x, scale, offset, epsilon, mask)
    agree("batch_normalization_backward", grad, x, mean, variance, scale, epsilon, mask, **options)
    agree("normalize", x, mean, variance, scale, offset, epsilon, **options)


def layer(x, grad, scale, offset, epsilon=1e-3, **options):
    agree("layer_normalization", x, scale, offset, epsilon, **options)
    _, mean, variance = reference.layer_normalization.reference(x, scale, offset, epsilon)
    agree("layer_normalization_backward", grad, x, mean, variance, scale, epsilon, **options)


@covers("batch_normalization", "batch_normalization_backward", "normalize")
@pytest.mark.parametrize("shape", SHAPES)
def test_batch_normalization(shape, rng):
    x, grad = normal(rng, *shape), normal(rng, *shape)
    scale, offset = normal(rng, shape[1]), normal(rng, shape[1])
    batch(x, grad, scale, offset, size=shape[0])
    batch(x, grad, None, offset, size=shape[0])
    batch(x, grad, scale, None, rng.uniform(size=shape[0]) < 0.6, size=shape[0])
    batch(x, grad, None, None, np.zeros(shape[0], bool), size=shape[0])


@covers("layer_normalization", "layer_normalization_backward")
@pytest.mark.parametrize("shape", SHAPES)
def test_layer_normalization(shape, rng):
    x, grad = normal(rng, *shape), normal(rng, *shape)
    scale, offset = normal(rng, shape[1]), normal(rng, shape[1])
    # of two features the gradient is what is left of a difference, epsilon's part in it
    options = {"size": max(shape), "ulps": 16}
    layer(x, grad, scale, offset, **options)
    layer(x, grad, None, offset, **options)
    layer(x, grad, scale, None, **options)


def test_values_far_from_zero_keep_their_variance(rng):
    x, grad = (
        3000 + normal(rng, 700, 40),
        normal(rng, 700, 40),
    )  # squares and their mean agree in all of float32's digits
    ulps = 3000  # a mean of 3000 deviations is rounded to a unit in its own last place
    batch(x, grad, None, None, rng.uniform(size=700) < 0.6, ulps=ulps)
    layer(x, grad, None, None, ulps=ulps)


@pytest.mark.parametrize("size", [1e15, 1e4, 1e-6])
def test_large_and_tiny_values(size, rng):
    x, grad, scale = size * normal(rng, 40, 35), normal(rng, 40, 35), normal(rng, 35)
    batch(x.astype("f"), grad, scale, scale, size=40)
    layer(x.astype("f"), grad, scale, scale, size=40)


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_dtypes(dtype, rng):
    x, grad, scale, offset = (normal(rng, *shape, dtype=dtype) for shape in [(50, 33), (50, 33), (33,), (33,)])
    batch(x, grad, scale, offset, rng.uniform(size=50) < 0.6, size=50)
    layer(x, grad, scale, offset, size=50)


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
def test_of_sixteen_bits_nothing_but_the_storage_is_rounded(dtype, rng):
    arrays = [normal(rng, 300, 33).astype(dtype), normal(rng, 300, 33).astype(dtype), normal(rng, 33).astype(dtype)]
    mask, statistics = rng.uniform(size=300) < 0.6, [normal(rng, 33).astype(dtype), np.ones(33, dtype)]
    by_row = [normal(rng, 300).astype(dtype), np.ones(300, dtype)]
    found = both_ways(*arrays, mask, *statistics, by_row)
    wide = [[a.astype("f") for a in group] for group in (arrays, statistics, by_row)]
    for i, (f, w) in enumerate(zip(found, both_ways(*wide[0], mask, *wide[1], wide[2]))):
        assert f.dtype == dtype
        np.testing.assert_array_equal(f.astype("f"), w.astype(dtype).astype("f"), err_msg=f"output {i}")


def test_any_number_of_blocks_gives_the_same_bits(rng, monkeypatch):
    args = normal(rng, 2500, 70), normal(rng, 2500, 70), normal(rng, 70), rng.uniform(size=2500) < 0.6
    monkeypatch.setattr(launcher, "RESIDENT", 1)
    alone = both_ways(*args)
    for blocks in (2, 5):
        monkeypatch.setattr(launcher, "RESIDENT", blocks)
        for f, w in zip(both_ways(*args), alone):
            np.testing.assert_array_equal(f, w)


def test_one_launch_each_way(rng, monkeypatch):
    launched, launch = [], Source.launch
    monkeypatch.setattr(
        Source, "launch", lambda self, name, *a, **k: (launched.append(name), launch(self, name, *a, **k))
    )
    both_ways(normal(rng, 9, 7), normal(rng, 9, 7), None, None)
    assert sorted(launched) == [
        *("batch_normalization", "batch_normalization_backward"),
        *("layer_normalization", "layer_normalization_backward", "normalize"),
    ]


def test_nan_stays_where_it_is(rng):
    x = normal(rng, 40, 35)
    x[7, 3] = np.nan
    batch(x, normal(rng, 40, 35), None, None, size=40)
    layer(x, normal(rng, 40, 35), None, None, size=40)


def test_inputs_that_are_not_contiguous(rng):
    x, grad = normal(rng, 35, 80)[:, ::2].T, normal(rng, 40, 70)[:, ::2]
    scale, offset, mask = normal(rng, 70)[::2], normal(rng, 70)[::2], rng.uniform(size=80)[::2] < 0.5
    batch(x, grad, scale, offset, mask, size=40)
    layer(x, grad, scale, offset, size=40)


def test_more_rows_than_a_grid_has_blocks(rng):
    x = normal(rng, 140000, 2)
    batch(x, x[::-1], None, None, size=len(x))
    layer(x, x[::-1], None, None, size=len(x))
