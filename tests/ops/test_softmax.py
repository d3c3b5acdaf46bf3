"""The softmax row: softmax, log-softmax, and the cross-entropies of softmax and sigmoid."""

import numpy as np
import pytest

from dlgpu import Tensor, ops
from dlgpu.ops.softmax import (
    binary_cross_entropy,
    categorical_cross_entropy,
    log_softmax,
    sigmoid_cross_entropy,
    softmax,
    softmax_cross_entropy,
)
from dlgpu.testing import gradcheck

FROM_PROBABILITIES = (categorical_cross_entropy, binary_cross_entropy)
LOSSES = pytest.mark.parametrize(
    "function", [softmax_cross_entropy, categorical_cross_entropy, sigmoid_cross_entropy, binary_cross_entropy]
)


def inputs(function, rng, shape):
    return rng.uniform(0.1, 0.9, shape) if function in FROM_PROBABILITIES else rng.normal(0, 3, shape)


@pytest.mark.parametrize("axis", [-1, 0, (0, 2), None])
def test_softmax_sums_to_one_and_log_softmax_is_its_logarithm(axis, rng):
    x = rng.normal(0, 5, (3, 4, 5)).astype(np.float32)
    y = softmax(x, axis).numpy()
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.sum(axis=axis), 1, rtol=1e-6)
    np.testing.assert_allclose(np.exp(log_softmax(x, axis).numpy()), y, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("function", [softmax, log_softmax])
@pytest.mark.parametrize(("shape", "axis"), [((3, 4), -1), ((2, 3, 2), 1), ((2, 3), None), ((1, 1), -1), ((0, 3), -1)])
def test_softmax_derivatives(function, shape, axis, rng):
    gradcheck(lambda x: function(x, axis), rng.normal(size=shape))


def test_large_logits_do_not_overflow_and_small_probabilities_keep_their_logarithm():
    x = np.array([[1e4, 0, -1e4], [-1e4, -1e4 - 100, -2e4]], np.float32)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        np.testing.assert_allclose(softmax(x).numpy(), [[1, 0, 0], [1, 0, 0]], rtol=0, atol=1e-43)
        np.testing.assert_array_equal(log_softmax(x).numpy(), [[0, -1e4, -2e4], [0, -100, -1e4]])
        np.testing.assert_array_equal(softmax_cross_entropy(x, np.array([2, 1])).numpy(), [2e4, 100])
        np.testing.assert_allclose(
            sigmoid_cross_entropy(x[:1], np.array([[0, 1, 1]])).numpy(), [(2e4 + np.log(2)) / 3], rtol=1e-6
        )


@LOSSES
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (1, 1), (0, 3), (5,)])
def test_cross_entropies_of_dense_targets(function, shape, rng):
    x, targets = inputs(function, rng, shape), rng.uniform(size=shape)
    if function in (softmax_cross_entropy, categorical_cross_entropy):
        q = np.exp(log_softmax(x).numpy()) if function is softmax_cross_entropy else x / x.sum(-1, keepdims=True)
        expected = -(targets * np.log(np.clip(q, 1e-7, 1 - 1e-7) if function is categorical_cross_entropy else q)).sum(
            -1
        )
    else:
        p = 1 / (1 + np.exp(-x)) if function is sigmoid_cross_entropy else x
        expected = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean(-1)
    np.testing.assert_allclose(function(x, targets).numpy(), expected, rtol=1e-12, atol=1e-15)
    constant = Tensor(targets)
    gradcheck(lambda x: function(x, constant), x)
    gradcheck(function, x, targets)


@pytest.mark.parametrize("function", [softmax_cross_entropy, categorical_cross_entropy])
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (1, 1), (0, 3), (5,)])
def test_integer_labels_mean_one_hot_targets(function, shape, rng):
    x, labels = inputs(function, rng, shape), rng.integers(0, shape[-1], shape[:-1])
    one_hot = np.eye(shape[-1])[labels]
    np.testing.assert_allclose(function(x, labels).numpy(), function(x, one_hot).numpy(), rtol=1e-12)
    gradcheck(lambda x: function(x, labels), x)


@LOSSES
def test_float32_stays_float32_and_strides_do_not_matter(function, rng):
    x = inputs(function, rng, (4, 6)).astype(np.float32)
    targets = rng.integers(0, 2, (4, 6))
    assert function(x, targets).dtype == np.float32
    strided = Tensor(np.asfortranarray(x), requires_grad=True)
    plain = Tensor(x, requires_grad=True)
    for t in (strided, plain):
        function(t, targets).sum().backward()
    assert strided.grad.dtype == np.float32
    np.testing.assert_allclose(strided.grad.numpy(), plain.grad.numpy(), rtol=1e-6)


@pytest.mark.parametrize("function", [softmax_cross_entropy, categorical_cross_entropy])
@pytest.mark.parametrize("label", [-1, 4])
def test_a_label_out_of_range_gives_nan_and_spares_the_other_rows(function, label, rng):
    x = Tensor(inputs(function, rng, (3, 4)), requires_grad=True)
    loss = function(x, np.array([0, label, 3]))
    loss.sum().backward()
    assert np.isnan(loss.numpy()).tolist() == [False, True, False]
    assert np.isnan(x.grad.numpy()).all(axis=1).tolist() == [False, True, False]
    assert np.isfinite(x.grad.numpy()[[0, 2]]).all()


def test_probabilities_of_zero_and_one_cost_what_the_clip_allows():
    p = Tensor(np.array([[0.0], [1.0], [0.0], [1.0]]), requires_grad=True)
    loss = binary_cross_entropy(p, np.array([[1], [0], [0], [1]]))
    np.testing.assert_allclose(loss.numpy(), [-np.log(1e-7)] * 2 + [-np.log1p(-1e-7)] * 2, rtol=1e-9)
    loss.sum().backward()
    np.testing.assert_array_equal(p.grad.numpy(), np.zeros((4, 1)))  # nothing flows through the clip
    q = Tensor(np.array([[0.0, 1.0]]), requires_grad=True)
    categorical_cross_entropy(q, np.array([0])).sum().backward()
    np.testing.assert_array_equal(q.grad.numpy(), [[0, 0]])


@LOSSES
def test_nan_is_not_hidden(function):
    x = Tensor(np.array([[0.5, np.nan], [0.5, 0.5]]), requires_grad=True)
    loss = function(x, np.array([[0, 1], [0, 1]]))
    loss.sum().backward()
    assert np.isnan(loss.numpy()).tolist() == [True, False]
    assert np.isnan(x.grad.numpy()[0, 1])
    assert np.isfinite(x.grad.numpy()[1]).all()


def test_the_gradient_of_a_confident_and_wrong_prediction_stays_exact():
    z = Tensor(np.array([[-60.0]], np.float32), requires_grad=True)
    loss = sigmoid_cross_entropy(z, np.ones((1, 1)))
    loss.sum().backward()
    assert (loss.item(), z.grad.item()) == (60.0, -1.0)


def test_wrong_targets_are_named():
    with pytest.raises(
        ValueError, match=r"expected integers of shape \(3,\) or targets of shape \(3, 4\), got .*\(4,\)"
    ):
        softmax_cross_entropy(np.ones((3, 4)), np.array([0, 1, 2, 3]))
    with pytest.raises(
        ValueError, match=r"binary_cross_entropy: expected targets of shape \(3, 1\), got int64 of shape \(3,\)"
    ):
        binary_cross_entropy(np.ones((3, 1)), np.array([0, 1, 1]))
    with pytest.raises(ValueError, match="got float64"):
        softmax_cross_entropy(np.ones((3, 4)), np.array([0.0, 1.0, 2.0]))
    with pytest.raises(ValueError, match="axis 2 is out of bounds"):
        softmax(np.ones((3, 4)), 2)


def test_second_derivatives_of_softmax_reach_through_other_operations(rng):
    kernel = rng.normal(size=(4, 3))
    gradcheck(lambda x, k: softmax_cross_entropy(ops.matmul(x, k), np.array([2, 0])), rng.normal(size=(2, 4)), kernel)


def test_a_confident_and_right_probability_keeps_the_digits_of_its_loss():
    p = np.array([[1 - 2**-14], [1e-5]], np.float32)
    loss = binary_cross_entropy(p, np.array([[1], [0]])).numpy()
    np.testing.assert_allclose(loss, -np.log1p([-(2.0**-14), -1e-5]), rtol=3e-7)
