"""Losses: values, reductions, weights and masks, names, and the checks of labels."""

import numpy as np
import pytest

from dlgpu import Tensor, losses, ops
from dlgpu.testing import gradcheck

FUNCTIONS = sorted(losses._CLASSES, key=lambda f: f.__name__)
EVERY = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
T = np.array([[0.2, 0.7, 0.4], [0.9, 0.1, 0.3]])
P = np.array([[0.3, 0.5, 0.8], [0.6, 0.25, 0.15]])


def labels_for(function):
    return np.array([2, 0]) if function is losses.sparse_categorical_crossentropy else T


def norm(x):
    return x / np.sqrt((x * x).sum(-1, keepdims=True))


VALUES = {
    "binary_crossentropy": -(T * np.log(P) + (1 - T) * np.log(1 - P)).mean(-1),
    "categorical_crossentropy": -(T * np.log(P / P.sum(-1, keepdims=True))).sum(-1),
    "categorical_hinge": np.maximum(0, ((1 - T) * P).max(-1) - (T * P).sum(-1) + 1),
    "cosine_similarity": -(norm(T) * norm(P)).sum(-1),
    "hinge": np.maximum(0, 1 - T * P).mean(-1),
    "huber": (0.5 * (T - P) ** 2).mean(-1),
    "kl_divergence": (T * np.log(T / P)).sum(-1),
    "log_cosh": np.log(np.cosh(T - P)).mean(-1),
    "mean_absolute_error": np.abs(T - P).mean(-1),
    "mean_absolute_percentage_error": 100 * (np.abs(T - P) / T).mean(-1),
    "mean_squared_error": ((T - P) ** 2).mean(-1),
    "mean_squared_logarithmic_error": ((np.log1p(T) - np.log1p(P)) ** 2).mean(-1),
    "poisson": (P - T * np.log(P + 1e-7)).mean(-1),
    "sparse_categorical_crossentropy": -np.log((P / P.sum(-1, keepdims=True))[[0, 1], [2, 0]]),
    "squared_hinge": (np.maximum(0, 1 - T * P) ** 2).mean(-1),
}


@EVERY
def test_the_values_of_single_samples(function):
    values = function(labels_for(function), P)
    np.testing.assert_allclose(values.numpy(), VALUES[function.__name__], rtol=1e-9)
    loss = losses.get(function.__name__)
    assert type(loss) is losses._CLASSES[function]
    assert loss(labels_for(function), P).item() == pytest.approx(VALUES[function.__name__].mean(), rel=1e-9)


@EVERY
def test_derivatives_and_dtypes(function):
    y = labels_for(function)
    weights = np.array([0.5, 2.0])
    loss = losses.get(function)
    gradcheck(lambda p: loss(y, p, Tensor(weights)), P)
    if y is T:
        gradcheck(lambda t, p: loss(t, p), T, P)
    assert loss(y, P.astype(np.float32), weights).dtype == np.float32
    assert loss(y.tolist(), P.astype(np.float32)).dtype == np.float32


@EVERY
def test_descriptions_build_the_same_loss(function):
    loss = losses._CLASSES[function](reduction="sum", name="mine")
    again = type(loss).from_config(loss.get_config())
    assert (again.name, again.reduction) == ("mine", "sum")
    assert again(labels_for(function), P).item() == loss(labels_for(function), P).item()
    assert losses.get(type(loss)).name == {"huber": "huber_loss"}.get(function.__name__, function.__name__)


def test_arguments_of_the_classes_reach_the_functions():
    logits = np.array([[2.0, -1.0, 0.5], [-3.0, 4.0, 1.0]])
    soft = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    sparse = losses.SparseCategoricalCrossentropy(from_logits=True)
    assert sparse([2, 0], logits).item() == pytest.approx(-np.log(soft[[0, 1], [2, 0]]).mean(), rel=1e-12)
    smooth = losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.3)
    expected = -((np.eye(3)[[2, 0]] * 0.7 + 0.1) * np.log(soft)).sum(-1).mean()
    assert smooth(np.eye(3)[[2, 0]], logits).item() == pytest.approx(expected, rel=1e-12)
    binary = losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.2)
    p, t = 1 / (1 + np.exp(-logits)), np.array([[1, 0, 1], [0, 1, 1]])
    expected = -((t * 0.8 + 0.1) * np.log(p) + (0.9 - t * 0.8) * np.log(1 - p)).mean()
    assert binary(t, logits).item() == pytest.approx(expected, rel=1e-12)
    assert losses.Huber(delta=0.1)(T, P).item() == pytest.approx(
        np.where(abs(T - P) <= 0.1, (T - P) ** 2 / 2, 0.1 * abs(T - P) - 0.005).mean(), rel=1e-12
    )


@pytest.mark.parametrize("axis", [1, -2])
def test_another_axis_of_classes(axis, rng):
    p = rng.uniform(0.1, 0.9, (2, 3, 4))
    labels, weights = rng.integers(0, 3, (2, 4)), rng.uniform(size=(2, 3, 4))
    moved = np.moveaxis(p, 1, -1)
    for function, y, y_moved in (
        (losses.sparse_categorical_crossentropy, labels, labels),
        (losses.sparse_categorical_crossentropy, labels[:, None], labels),
        (losses.categorical_crossentropy, weights, np.moveaxis(weights, 1, -1)),
        (losses.binary_crossentropy, weights, np.moveaxis(weights, 1, -1)),
    ):
        np.testing.assert_allclose(function(y, p, axis=axis).numpy(), function(y_moved, moved).numpy(), rtol=1e-12)
    assert losses.CosineSimilarity(axis=axis).call(Tensor(p), Tensor(p)).shape == (2, 4)


def test_reductions():
    values, weights = ((T - P) ** 2).mean(-1), np.array([0.5, 2.0])
    for reduction, plain, weighted in (
        ("sum_over_batch_size", values.mean(), (values * weights).mean()),
        ("mean", values.mean(), (values * weights).mean()),
        ("sum", values.sum(), (values * weights).sum()),
        ("mean_with_sample_weight", values.mean(), (values * weights).sum() / 2.5),
        (None, values, values * weights),
        ("none", values, values * weights),
    ):
        loss = losses.MeanSquaredError(reduction=reduction)
        np.testing.assert_allclose(loss(T, P).numpy(), plain, rtol=1e-12)
        np.testing.assert_allclose(loss(T, P, weights).numpy(), weighted, rtol=1e-12)
    zero = losses.MeanSquaredError(reduction="mean_with_sample_weight")
    assert zero(T, P, np.zeros(2)).item() == 0
    with pytest.raises(ValueError, match=r"Unknown reduction 'men'\. Did you mean 'mean'"):
        losses.MeanSquaredError(reduction="men")


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 3), (1, 3), ()])
def test_sample_weights_go_along_the_values_from_the_front(shape, rng):
    t, p = rng.normal(size=(4, 3, 2)), rng.normal(size=(4, 3, 2))
    weights = rng.uniform(size=shape)
    full = np.broadcast_to(weights[:, None] if shape == (4,) else weights, (4, 3))
    values = ((t - p) ** 2).mean(-1)
    for reduction, expected in (
        ("sum_over_batch_size", (values * full).mean()),
        ("mean_with_sample_weight", (values * full).sum() / full.sum()),
    ):
        loss = losses.MeanSquaredError(reduction=reduction)
        assert loss(t, p, weights).item() == pytest.approx(expected, rel=1e-12)


def test_weights_of_a_wrong_shape_are_named():
    with pytest.raises(ValueError, match=r"expected sample_weight to fit values of shape \(2,\), got shape \(3,"):
        losses.MeanSquaredError()(T, P, np.ones(3))


def test_labels_and_outputs_differ_by_a_last_axis_of_one(rng):
    p, t = rng.uniform(size=(5, 1)), rng.integers(0, 2, 5)
    for loss in (losses.BinaryCrossentropy(), losses.MeanSquaredError(), losses.Hinge()):
        expected = loss(t[:, None], p).item()
        assert loss(t, p).item() == pytest.approx(expected, rel=1e-12)
        assert loss(t[:, None], p[:, 0], np.ones(5)).item() == pytest.approx(expected, rel=1e-12)
    steps = rng.uniform(size=(5, 4, 1))
    assert losses.MeanSquaredError()(steps[..., 0], steps).item() == 0
    with pytest.raises(ValueError, match=r"labels of the predictions' shape \(5, 1\), got \(5, 2\)"):
        losses.MeanSquaredError()(np.ones((5, 2)), p)  # would broadcast without a word


def test_masked_steps_count_for_nothing(rng):
    t, p, mask = rng.normal(size=(2, 4, 3)), Tensor(rng.normal(size=(2, 4, 3))), np.array([[1, 1, 0, 0], [1, 1, 1, 0]])
    p.mask = Tensor(mask.astype(bool))
    values = ((t - p.numpy()) ** 2).mean(-1)
    assert losses.MeanSquaredError()(t, p).item() == pytest.approx(values[mask == 1].mean(), rel=1e-12)
    assert losses.MeanSquaredError("sum")(t, p).item() == pytest.approx(values[mask == 1].sum(), rel=1e-12)
    weights = np.array([1.0, 3.0])
    expected = (values * weights[:, None])[mask == 1].mean()
    assert losses.MeanSquaredError()(t, p, weights).item() == pytest.approx(expected, rel=1e-12)
    p.mask = Tensor(np.zeros((2, 4), bool))
    assert losses.MeanSquaredError()(t, p).item() == 0


def test_an_ignored_class_leaves_the_mean_and_the_gradient():
    p = Tensor(np.array([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]]), requires_grad=True)
    loss = losses.SparseCategoricalCrossentropy(ignore_class=-1)(np.array([1, -1, 0]), p)
    loss.backward()
    assert loss.item() == pytest.approx(-(np.log(0.8) + np.log(0.9)) / 2, rel=1e-12)
    values = losses.sparse_categorical_crossentropy(np.array([1, -1, 0]), p, ignore_class=-1).numpy()
    np.testing.assert_allclose(values, [-np.log(0.8), 0, -np.log(0.9)], rtol=1e-12)
    assert (p.grad.numpy()[1] == 0).all()
    assert (p.grad.numpy()[[0, 2]] != 0).all()


def test_hinge_takes_labels_of_zero_and_one():
    p = np.array([[0.3], [-2.0], [0.7]])
    signs = np.array([[1.0], [-1.0], [-1.0]])
    for function in (losses.hinge, losses.squared_hinge):
        np.testing.assert_array_equal(function((signs + 1) / 2, p).numpy(), function(signs, p).numpy())


def test_large_errors_do_not_overflow_and_zero_vectors_have_no_angle():
    big = np.array([[1e4], [-1e4]], np.float32)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        np.testing.assert_allclose(losses.log_cosh(np.zeros((2, 1)), big).numpy(), 1e4 - np.log(2), rtol=1e-6)
        zero = Tensor(np.zeros((1, 3), np.float32), requires_grad=True)
        losses.cosine_similarity(np.ones((1, 3)), zero).sum().backward()
        assert np.isfinite(zero.grad.numpy()).all()
        assert losses.mean_absolute_percentage_error(np.zeros((1, 1)), np.ones((1, 1))).item() == pytest.approx(1e9)


def test_an_empty_batch_costs_nothing():
    assert losses.MeanSquaredError()(np.zeros((0, 3)), np.zeros((0, 3))).item() == 0
    assert losses.BinaryCrossentropy()(np.zeros((0, 1)), np.zeros((0, 1)), np.zeros(0)).item() == 0


def test_names_aliases_and_unknown_names():
    for alias, loss in (
        ("mse", losses.MeanSquaredError),
        ("MAE", losses.MeanAbsoluteError),
        ("mape", losses.MeanAbsolutePercentageError),
        ("msle", losses.MeanSquaredLogarithmicError),
        ("bce", losses.BinaryCrossentropy),
        ("KLD", losses.KLDivergence),
        ("huber_loss", losses.Huber),
        ("CategoricalCrossentropy", losses.CategoricalCrossentropy),
    ):
        assert type(losses.get(alias)) is loss
    assert losses.get(None) is None
    with pytest.raises(ValueError, match=r"Unknown loss 'binary_crossentopy'\. Did you mean 'binary_crossentropy'\?"):
        losses.get("binary_crossentopy")
    with pytest.raises(TypeError, match="expected the name of a loss or a Loss, got 3"):
        losses.get(3)


def test_a_plain_function_is_a_loss(rng):
    def quartic(y_true, y_pred):
        return ops.mean((y_true - y_pred) ** 4, axis=-1)

    loss = losses.get(quartic)
    t, p = rng.normal(size=6), rng.normal(size=(6, 1)).astype(np.float32)
    value = loss(t, p, np.arange(6))
    assert loss.name == "quartic"
    assert value.dtype == np.float32
    assert value.item() == pytest.approx(((t[:, None] - p) ** 4 * np.arange(6)[:, None]).mean(), rel=1e-5)
    loss.check_labels(np.zeros((9, 9)), (None, 1))  # it knows its labels itself


def test_a_loss_of_ones_own_defines_call():
    class Cubic(losses.Loss):
        def call(self, y_true, y_pred):
            return ops.mean(abs(y_true - y_pred) ** 3, -1)

    assert losses.get("cubic")(T, P).item() == pytest.approx((abs(T - P) ** 3).mean(), rel=1e-12)
    assert Cubic().name == "cubic"
    with pytest.raises(NotImplementedError, match=r"Loss does not define call\(\)"):
        losses.Loss()(T, P)


GOOD = [
    ("binary_crossentropy", np.array([0, 1, 1]), (None, 1)),
    ("binary_crossentropy", np.array([[0.5, 1], [0, 1]]), (2, 2)),
    ("mean_squared_error", np.array([[-3e9], [7]]), (None, 1)),
    ("mean_squared_error", np.ones((5, 3)), (2, 3)),
    ("sparse_categorical_crossentropy", np.ones(5, int), (2, 3)),
    ("sparse_categorical_crossentropy", np.array([0.0, 9.0]), (None, 10)),
    ("sparse_categorical_crossentropy", np.array([[0], [9]], np.uint8), (None, 10)),
    ("sparse_categorical_crossentropy", np.zeros((2, 7), int), (None, None, 10)),
    ("categorical_crossentropy", np.eye(3), (None, 3)),
    ("hinge", np.array([-1, 1]), (None, 1)),
    (losses.SparseCategoricalCrossentropy(ignore_class=255), np.array([3, 255]), (None, 10)),
    ("binary_crossentropy", np.zeros((0, 1)), (None, 1)),
]
BAD = [
    ("binary_crossentropy", [0, 1, 2], (None, 1), r"labels from 0 to 1; row 2 holds 2"),
    ("binary_crossentropy", [0, 1, np.nan], (None, 1), r"row 2 holds nan"),
    ("binary_crossentropy", [[0], [-1]], (None, 1), r"row 1 holds -1"),
    (
        "binary_crossentropy",
        np.ones((4, 2)),
        (None, 1),
        r"labels of shape \(batch, 1\), like the outputs, got \(4, 2\)",
    ),
    ("mean_squared_error", np.ones(4), (None, 3), r"labels of shape \(batch, 3\), like the outputs, got \(4,\)"),
    (
        "mean_squared_error",
        np.ones((4, 5, 2)),
        (None, None, 3),
        r"\(batch, any, 3\), like the outputs, got \(4, 5, 2\)",
    ),
    ("mean_squared_error", ["a"], (None, 1), r"labels that are numbers, got dtype <U1"),
    ("poisson", [1.0, -2.0], (None, 1), r"labels from 0 to inf; row 1 holds -2"),
    ("categorical_crossentropy", [0, 1], (None, 3), r"For integer labels use sparse_categorical_crossentropy"),
    ("sparse_categorical_crossentropy", [0, 10], (None, 10), r"integer labels from 0 to 9, .*; row 1 holds 10"),
    ("sparse_categorical_crossentropy", [-1, 0], (None, 10), r"row 0 holds -1"),
    ("sparse_categorical_crossentropy", [0, 1.5], (None, 10), r"row 1 holds 1.5"),
    ("sparse_categorical_crossentropy", np.eye(10), (None, 10), r"For one-hot labels use categorical_crossentropy"),
    (
        "sparse_categorical_crossentropy",
        np.zeros((3, 4)),
        (None, 5, 10),
        r"\(batch, 5\) for outputs of shape .*\(3, 4\)",
    ),
]


@pytest.mark.parametrize(("loss", "labels", "shape"), GOOD)
def test_good_labels_pass(loss, labels, shape):
    losses.get(loss).check_labels(labels, shape)


@pytest.mark.parametrize(("loss", "labels", "shape", "message"), BAD)
def test_bad_labels_are_named_with_their_row(loss, labels, shape, message):
    with pytest.raises(ValueError, match=message) as caught:
        losses.get(loss).check_labels(np.asarray(labels), shape)
    assert str(caught.value).startswith(f"{loss}: expected")
