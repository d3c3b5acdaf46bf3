"""The normalization row: its equations, its statistics, and derivatives of both orders."""

import numpy as np
import pytest

from dlgpu import Tensor, ops
from dlgpu.testing import gradcheck

X = np.array([[0.3, -1.2, 2.5], [1.7, 0.8, -0.6], [1.1, 0.4, -2.0], [-0.7, 2.2, 0.9], [0.1, 0.2, 0.5]])
SCALE, OFFSET = np.array([0.5, -1.5, 2.0]), np.array([1.0, 0.0, -0.3])
MASK = np.array([True, False, True, True, False])


def by_hand(x, mean, variance, scale=None, offset=None, epsilon=1e-3):
    output = (x - mean) / np.sqrt(variance + epsilon)
    return output * (1 if scale is None else scale) + (0 if offset is None else offset)


@pytest.mark.parametrize("scale", [None, SCALE])
@pytest.mark.parametrize("offset", [None, OFFSET])
@pytest.mark.parametrize("mask", [None, MASK])
def test_batch_normalization(scale, offset, mask):
    parts = [None if p is None else Tensor(p) for p in (scale, offset)]
    output, mean, variance = ops.batch_normalization(Tensor(X), *parts, mask=mask)
    seen = X if mask is None else X[mask]
    np.testing.assert_allclose(mean, seen.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(variance, seen.var(axis=0), rtol=1e-13)
    np.testing.assert_allclose(output.numpy(), by_hand(X, mean, variance, scale, offset), rtol=1e-13, atol=1e-14)
    given = [p for p in (scale, offset) if p is not None]

    def normalized(x, *given):
        rest = iter(given)
        parts = [None if p is None else next(rest) for p in (scale, offset)]
        return ops.batch_normalization(x, *parts, mask=mask)[0]

    gradcheck(normalized, X, *given)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_batch_normalization_along_any_axis(axis, rng):
    x = rng.normal(size=(2, 3, 4))
    channels = x.shape[axis]
    scale, offset = rng.normal(size=(2, channels))
    others = tuple(a for a in range(3) if a != axis % 3)
    shape = [1, 1, 1]
    shape[axis] = channels
    output, mean, variance = ops.batch_normalization(Tensor(x), Tensor(scale), Tensor(offset), axis)
    np.testing.assert_allclose(mean, x.mean(axis=others))
    np.testing.assert_allclose(variance, x.var(axis=others))
    parts = [p.reshape(shape) for p in (mean, variance, scale, offset)]
    np.testing.assert_allclose(output.numpy(), by_hand(x, *parts), rtol=1e-12)
    gradcheck(lambda x, s, o: ops.batch_normalization(x, s, o, axis)[0], x, scale, offset)
    given = [Tensor(p) for p in (mean, variance, scale, offset)]
    np.testing.assert_allclose(ops.normalize(Tensor(x), *given, axis).numpy(), output.numpy(), rtol=1e-12)


def test_a_mask_of_steps_broadcasts_over_later_axes(rng):
    x, mask = rng.normal(size=(2, 3, 2, 4)), np.array([[True, True, False], [True, False, False]])
    _, mean, variance = ops.batch_normalization(Tensor(x), mask=Tensor(mask))
    np.testing.assert_allclose(mean, x[mask].mean(axis=(0, 1)))
    np.testing.assert_allclose(variance, x[mask].var(axis=(0, 1)))


def test_statistics_of_nothing_are_zero():
    _, mean, variance = ops.batch_normalization(Tensor(X), mask=np.zeros(5, bool))
    assert not mean.any()
    assert not variance.any()
    output, mean, variance = ops.batch_normalization(Tensor(np.zeros((0, 3))))
    assert output.shape == (0, 3)
    assert not mean.any()
    gradcheck(lambda x: ops.batch_normalization(x)[0], np.zeros((0, 3)))
    gradcheck(lambda x: ops.batch_normalization(x)[0], X[:1])


def test_normalize_with_given_statistics():
    mean, variance = X.mean(axis=0), X.var(axis=0)
    parts = [Tensor(p) for p in (mean, variance, SCALE, OFFSET)]
    np.testing.assert_allclose(ops.normalize(Tensor(X), *parts).numpy(), by_hand(X, mean, variance, SCALE, OFFSET))
    np.testing.assert_allclose(ops.normalize(Tensor(X), mean, variance).numpy(), by_hand(X, mean, variance))
    gradcheck(ops.normalize, X, mean, variance, SCALE, OFFSET)
    gradcheck(lambda x: ops.normalize(x, mean, variance), X)


@pytest.mark.parametrize("axis", [-1, 0, 1, (1, 2), (0, -1), (0, 1, 2)])
def test_layer_normalization_over_any_axes(axis, rng):
    x = rng.normal(size=(2, 3, 4))
    axes = tuple(sorted(a % 3 for a in (axis if isinstance(axis, tuple) else (axis,))))
    shape = tuple(x.shape[a] for a in axes)
    scale, offset = rng.normal(size=(2, *shape))
    wide = tuple(n if a in axes else 1 for a, n in enumerate(x.shape))
    mean, variance = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    output = ops.layer_normalization(Tensor(x), Tensor(scale), Tensor(offset), axis)
    expected = by_hand(x, mean, variance, scale.reshape(wide), offset.reshape(wide))
    np.testing.assert_allclose(output.numpy(), expected, rtol=1e-12, atol=1e-13)
    gradcheck(lambda x, s, o: ops.layer_normalization(x, s, o, axis), x, scale, offset, tolerance=5e-6)


def test_layer_normalization_without_scale_or_offset():
    np.testing.assert_allclose(
        ops.layer_normalization(Tensor(X)).numpy(),
        by_hand(X, X.mean(axis=1, keepdims=True), X.var(axis=1, keepdims=True)),
        rtol=1e-13,
    )
    for x in (X, X[:, ::-2], X[:0], X[:1], X[:, :1]):
        gradcheck(ops.layer_normalization, x)
        gradcheck(lambda x, s: ops.layer_normalization(x.T.T, s), x, SCALE[: x.shape[1]])


def test_float32_far_from_zero_keeps_its_digits(rng):
    x = (rng.normal(size=(20000, 4)) + 1000).astype(np.float32)
    exact = x.astype(np.float64)
    output, mean, variance = ops.batch_normalization(Tensor(x))
    assert output.dtype == mean.dtype == variance.dtype == np.float32
    np.testing.assert_allclose(variance, exact.var(axis=0), rtol=1e-4)
    rows = ops.layer_normalization(Tensor(x.T.copy()))
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows.numpy().var(axis=1), 1, rtol=2e-3)


def test_shapes_that_do_not_fit_are_named():
    x = Tensor(X)
    for wrong, words in (
        (lambda: ops.batch_normalization(x[0]), "2 or more dimensions, got shape"),
        (lambda: ops.batch_normalization(x, Tensor(np.ones(4))), r"shape \(3,\) for inputs \(5, 3\), got \(4,\)"),
        (lambda: ops.batch_normalization(x, mask=np.ones(4, bool)), r"mask of shape \(4,\) does not fit"),
        (lambda: ops.batch_normalization(x, axis=0, mask=np.ones(5, bool)), "does not fit"),
        (lambda: ops.batch_normalization(x, axis=2), "axis 2 is out of bounds"),
        (lambda: ops.normalize(x, np.ones(2), np.ones(3)), r"got \(2,\)"),
        (lambda: ops.layer_normalization(x, Tensor(np.ones(5))), r"expected scale of shape \(3,\), got \(5,\)"),
    ):
        with pytest.raises(ValueError, match=words):
            wrong()
