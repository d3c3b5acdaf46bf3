"""Metrics: sums over the epoch, weights and masks, shapes of labels, names, and metrics of the user's own."""

import gc
import json

import numpy as np
import pytest

from dlgpu import Tensor, losses, metrics, ops
from dlgpu.metrics.base import Variable
from dlgpu.saving.configurable import known_objects, serialize


def batches(rng, outputs=1):
    """Batches of unequal length: binary labels and probabilities."""
    for samples in (5, 1, 8):
        yield rng.integers(0, 2, (samples, outputs)).astype(np.float32), rng.random((samples, outputs), np.float32)


def test_the_result_is_of_all_samples_and_not_a_mean_of_batches(rng):
    metric, seen = metrics.MeanSquaredError(), []
    for y_true, y_pred in batches(rng, 2):
        metric.update_state(y_true, y_pred)
        seen.append(((y_true - y_pred) ** 2).ravel())
        assert float(metric.result()) == pytest.approx(np.concatenate(seen).mean(), rel=1e-6)
    metric.reset_state()
    assert float(metric.result()) == 0
    metric.update_state([[1.0]], [[3.0]])
    assert float(metric.result()) == 4


def test_one_batch_by_hand():
    y_true, y_pred = np.array([1.0, 0.0, 1.0, 1.0]), np.array([0.9, 0.6, 0.4, 0.7])
    p = y_pred.clip(1e-7, 1 - 1e-7)
    expected = {
        "binary_accuracy": 0.5,
        "mean_squared_error": ((y_true - y_pred) ** 2).mean(),
        "root_mean_squared_error": ((y_true - y_pred) ** 2).mean() ** 0.5,
        "mean_absolute_error": abs(y_true - y_pred).mean(),
        "binary_crossentropy": -(y_true * np.log(p) + (1 - y_true) * np.log(1 - p)).mean(),
        "log_cosh": np.log(np.cosh(y_pred - y_true)).mean(),
        "poisson": (y_pred - y_true * np.log(y_pred + 1e-7)).mean(),
        "true_positives": 2,
        "false_positives": 1,
        "true_negatives": 0,
        "false_negatives": 1,
        "precision": 2 / 3,
        "recall": 2 / 3,
        "auc": 2 / 3,
        "r2_score": 1 - ((y_true - y_pred) ** 2).sum() / 0.75,
    }
    for name, value in expected.items():
        metric = metrics.get(name)
        metric.update_state(y_true[:, None], y_pred[:, None])
        assert float(metric.result()) == pytest.approx(value, rel=1e-5), name


def test_classes_by_hand():
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.3, 0.3, 0.4], [0.6, 0.3, 0.1]])
    labels = np.array([1, 2, 2, 1])
    for metric, value in (
        (metrics.SparseCategoricalAccuracy(), 0.5),
        (metrics.SparseTopKCategoricalAccuracy(k=2), 0.75),
        (metrics.SparseCategoricalCrossentropy(), -np.log([0.7, 0.2, 0.4, 0.3]).mean()),
    ):
        for y_true in (labels, labels[:, None]):
            metric.reset_state()
            metric.update_state(y_true, scores)
            assert float(metric.result()) == pytest.approx(value), metric
    for metric, value in (
        (metrics.CategoricalAccuracy(), 0.5),
        (metrics.TopKCategoricalAccuracy(k=2), 0.75),
        (metrics.CategoricalCrossentropy(), -np.log([0.7, 0.2, 0.4, 0.3]).mean()),
        (metrics.F1Score(average="micro"), 0.5),
    ):
        metric.update_state(np.eye(3)[labels], scores)
        assert float(metric.result()) == pytest.approx(value, rel=1e-6), metric


@pytest.mark.parametrize(
    "metric",
    [
        metrics.BinaryAccuracy(),
        metrics.MeanSquaredError(),
        metrics.BinaryCrossentropy(),
        metrics.Precision(),
        metrics.AUC(num_thresholds=7),
        metrics.AUC(curve="PR"),
        metrics.RecallAtPrecision(0.5),
        metrics.R2Score(),
        metrics.FBetaScore(beta=2.0, threshold=0.5),
    ],
    ids=str,
)
def test_a_weight_counts_like_repetition(metric, rng):
    y_true, y_pred = rng.integers(0, 2, (6, 1)), rng.random((6, 1))
    weight = np.array([2, 0, 1, 3, 1, 1])
    metric.update_state(y_true, y_pred, weight)
    weighted = metric.result().numpy()
    metric.reset_state()
    metric.update_state(y_true.repeat(weight, axis=0), y_pred.repeat(weight, axis=0))
    np.testing.assert_allclose(weighted, metric.result().numpy(), rtol=1e-6)
    metric.reset_state()


def test_weights_may_have_an_axis_more_or_fewer(rng):
    y_true, y_pred, weight = rng.integers(0, 2, 6), rng.random(6), rng.random(6)
    for metric in (metrics.Precision(), metrics.MeanSquaredError(), metrics.FalsePositives()):
        results = []
        for shapes in (((6,), (6,)), ((6,), (6, 1)), ((6, 1), (6,)), ((6, 1), (6, 1))):
            metric.update_state(y_true.reshape(shapes[0]), y_pred.reshape(shapes[0]), weight.reshape(shapes[1]))
            results.append(float(metric.result()))
            metric.reset_state()
        assert results == pytest.approx([results[0]] * 4)
    with pytest.raises(ValueError, match=r"sample_weight to fit values of shape \(6,\), got shape \(6, 2\)"):
        metrics.Precision().update_state(y_true, y_pred, np.ones((6, 2)))


def test_masked_steps_do_not_count(rng):
    y_true, y_pred, mask = rng.random((3, 4, 2)), rng.random((3, 4, 2)), rng.random((3, 4)) < 0.6
    predictions, weight = Tensor(y_pred), np.array([1.0, 2.0, 0.5])
    predictions.mask = Tensor(mask)
    for name in ("mse", "mae", "poisson"):
        metric, other = metrics.get(name), metrics.get(name)
        metric.update_state(y_true, predictions)
        other.update_state(y_true[mask], y_pred[mask])
        assert float(metric.result()) == pytest.approx(float(other.result()))
        metric.reset_state(), other.reset_state()
        metric.update_state(y_true, predictions, weight)
        other.update_state(y_true[mask], y_pred[mask], np.broadcast_to(weight[:, None], (3, 4))[mask])
        assert float(metric.result()) == pytest.approx(float(other.result()))


def test_an_ignored_class_does_not_count():
    metric = metrics.SparseCategoricalCrossentropy(ignore_class=-1)
    metric.update_state(np.array([0, -1]), np.array([[0.5, 0.5], [0.1, 0.9]]))
    assert float(metric.result()) == pytest.approx(np.log(2))


def test_labels_without_the_last_axis_fit():
    for name in ("binary_accuracy", "mse", "mae", "binary_crossentropy", "precision", "auc", "r2_score"):
        results = []
        for y_true, y_pred in (((4, 1), (4, 1)), ((4,), (4, 1)), ((4, 1), (4,))):
            metric = metrics.get(name)
            if name == "r2_score" and len(y_pred) == 1:
                continue
            labels, scores = np.array([1.0, 0, 1, 0]), np.array([0.9, 0.6, 0.4, 0.2])
            metric.update_state(labels.reshape(y_true), scores.reshape(y_pred))
            results.append(float(metric.result()))
        assert results == [results[0]] * len(results)


@pytest.mark.parametrize(
    ("y_true", "y_pred", "expected"),
    [
        ((8,), (8, 1), "Binary"),
        ((8, 1), (8, 1), "Binary"),
        ((8,), (8, 3), "SparseCategorical"),
        ((8, 1), (8, 3), "SparseCategorical"),
        ((8, 3), (8, 3), "Categorical"),
        ((8, 5), (8, 5, 3), "SparseCategorical"),
        ((8, 5, 3), (8, 5, 3), "Categorical"),
    ],
)
def test_accuracy_and_crossentropy_go_by_shapes(y_true, y_pred, expected):
    for name in ("accuracy", "acc", "crossentropy", "ce"):
        metric = metrics.for_output(name, y_true, y_pred)
        assert type(metric).__name__ == expected + ("Accuracy" if name.startswith("acc") else "Crossentropy")
        assert metric.name == name
    assert type(metrics.for_output("mse", y_true, y_pred)) is metrics.MeanSquaredError
    given = metrics.AUC()
    assert metrics.for_output(given, y_true, y_pred) is given


def test_names_and_aliases():
    for name, expected in {
        "mse": metrics.MeanSquaredError,
        "MAE": metrics.MeanAbsoluteError,
        "mape": metrics.MeanAbsolutePercentageError,
        "msle": metrics.MeanSquaredLogarithmicError,
        "bce": metrics.BinaryCrossentropy,
        "AUC": metrics.AUC,
        "auc": metrics.AUC,
        "f1_score": metrics.F1Score,
        "top_k_categorical_accuracy": metrics.TopKCategoricalAccuracy,
    }.items():
        metric = metrics.get(name)
        assert type(metric) is expected
        assert metric.name == name
    assert metrics.get(metrics.Recall).name == "recall"
    assert metrics.get(None) is None
    with pytest.raises(ValueError, match=r"Unknown metric 'mean_sqared_error'. Did you mean 'mean_squared_error'"):
        metrics.get("mean_sqared_error")
    with pytest.raises(TypeError, match="expected the name of a metric"):
        metrics.get(3)


def test_a_function_is_wrapped_with_its_name():
    def largest_error(y_true, y_pred):
        return ops.max(abs(y_true - y_pred), axis=-1)

    metric = metrics.get(largest_error)
    assert metric.name == "largest_error"
    y_pred = Tensor([[1.0, 2.0], [3.0, 0.0]], requires_grad=True)
    metric.update_state(np.zeros((2, 2), np.float32), y_pred)
    assert float(metric.result()) == 2.5
    assert not metric.result().requires_grad
    assert metrics.get(losses.mean_squared_error).name == "mean_squared_error"
    huber = metrics.get(losses.Huber(delta=2.0, name="huber"))
    huber.update_state([[3.0], [0.0]], [[0.0], [0.0]])
    huber.update_state([[0.0]], [[0.0]])
    assert huber.name == "huber"
    assert float(huber.result()) == pytest.approx(4 / 3)  # of samples, not of batches
    smooth = metrics.MeanMetricWrapper(losses.huber, name="smooth", delta=2.0)
    assert float(smooth([[3.0]], [[0.0]])) == pytest.approx(2 * 3 - 2)


def test_a_metric_of_the_users_own():
    class LargestPrediction(metrics.Metric):
        def __init__(self, name="largest", **kwargs):
            super().__init__(name=name, **kwargs)
            self.largest = self.add_variable()
            self.batches = self.add_variable(shape=(2,), dtype="int64")

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.largest.assign(ops.maximum(self.largest, ops.max(y_pred)))
            self.batches += 1

        def result(self):
            return self.largest

    metric = metrics.get("largest_prediction")
    assert float(metric(np.zeros(2), Tensor([1.0, 3.0]))) == 3
    assert float(metric(np.zeros(2), Tensor([2.0, 1.0]))) == 3
    assert isinstance(metric.batches, Variable)
    assert metric.batches.numpy().tolist() == [2, 2]
    metric.reset_state()
    assert float(metric.result()) == 0
    assert metric.batches.numpy().tolist() == [0, 0]
    with pytest.raises(NotImplementedError, match="does not define update_state"):
        metrics.Metric().update_state(0, 0)


def test_state_is_changed_in_place_and_results_are_not_views_of_it(rng):
    for metric in (metrics.BinaryAccuracy(), metrics.Precision(), metrics.AUC(), metrics.Recall(thresholds=[0.2, 0.8])):
        before = [v.array for v in metric.variables]
        for y_true, y_pred in batches(rng):
            metric.update_state(y_true, y_pred)
        assert all(v.array is b for v, b in zip(metric.variables, before))
        first = np.array(metric.result().numpy())
        result = metric.result()
        metric.reset_state()
        np.testing.assert_array_equal(result.numpy(), first)
    total = metrics.Sum()
    total.update_state([1.0, 2.0])
    result = total.result()
    total.reset_state()
    assert float(result) == 3


def test_metrics_record_nothing_and_hold_no_memory(rng):
    y_pred = Tensor(rng.random((4, 1)), requires_grad=True)
    names = ("binary_accuracy", "mse", "poisson", "auc", "precision", "cosine_similarity")
    gc.collect()
    for metric in map(metrics.get, names):
        metric.update_state(np.ones((4, 1)), y_pred * 0.5)
        assert not metric.result().requires_grad
        assert all(not v.requires_grad for v in metric.variables)
    del metric
    assert gc.collect() == 0


def test_many_samples_are_still_counted():
    metric = metrics.BinaryAccuracy()
    metric.count.assign(2.0**24)
    metric.total.assign(2.0**24)
    metric.update_state(np.ones((1, 1)), np.zeros((1, 1)))
    assert float(metric.result()) == 2**24 / (2**24 + 1)


def test_mean_and_sum():
    mean, total = metrics.Mean(), metrics.Sum()
    for values, weight in (([1.0, 3.0], None), (5.0, None), ([[2.0, 4.0]], [3.0])):
        mean.update_state(values, weight)
        total.update_state(values, weight)
    assert float(mean.result()) == (1 + 3 + 5 + 3 * 3) / 6
    assert float(total.result()) == 1 + 3 + 5 + 3 * 6
    mean.update_state(np.zeros((0, 2)))
    assert float(mean.result()) == 3


def test_thresholds_keep_their_order(rng):
    y_true, y_pred = rng.integers(0, 2, 50), rng.random(50)
    metric = metrics.FalsePositives(thresholds=[0.7, 0.1, 0.4])
    metric.update_state(y_true, y_pred)
    expected = [((y_pred > t) & (y_true == 0)).sum() for t in (0.7, 0.1, 0.4)]
    assert metric.result().numpy().tolist() == expected


def test_auc_is_the_share_of_pairs_in_order(rng):
    y_true, y_pred = rng.integers(0, 2, 200), rng.random(200).round(2)
    metric = metrics.AUC(num_thresholds=2001)
    metric.update_state(y_true, y_pred)
    ones, zeros = y_pred[y_true == 1][:, None], y_pred[y_true == 0]
    assert float(metric.result()) == pytest.approx(((ones > zeros) + 0.5 * (ones == zeros)).mean(), abs=1e-9)


def rates(y_true, y_pred, thresholds):
    """True and false positives and negatives at thresholds, by comparing everything with everything."""
    positive = y_pred > np.asarray(thresholds, np.float32)[:, None]
    return [((positive == p) & (y_true == t)).sum(axis=1) for p, t in ((1, 1), (1, 0), (0, 0), (0, 1))]


def test_area_under_precision_and_recall_is_an_integral(rng):
    y_true, y_pred = rng.integers(0, 2, 40), rng.random(40).astype(np.float32)
    thresholds = [0.2, 0.5, 0.8]
    metric = metrics.AUC(curve="PR", thresholds=thresholds)
    metric.update_state(y_true, y_pred)
    hits, alarms, _, _ = rates(y_true, y_pred, [-1, *thresholds, 2])
    area = 0.0
    for h0, a0, h1, a1 in zip(hits[1:], alarms[1:], hits, alarms):  # from few positives to many
        share = (np.arange(100000) + 0.5) / 100000
        h, a = h0 + (h1 - h0) * share, a0 + (a1 - a0) * share
        area += (h / (h + a)).mean() * (h1 - h0) / y_true.sum()
    assert float(metric.result()) == pytest.approx(area, rel=1e-6)
    for method, height in (("minoring", np.minimum), ("majoring", np.maximum)):
        metric = metrics.AUC(curve="pr", thresholds=thresholds, summation_method=method)
        metric.update_state(y_true, y_pred)
        precision, recall = hits / np.maximum(hits + alarms, 1), hits / y_true.sum()
        expected = ((recall[:-1] - recall[1:]) * height(precision[:-1], precision[1:])).sum()
        assert float(metric.result()) == pytest.approx(expected)


def test_the_best_rate_where_another_is_large_enough(rng):
    y_true, y_pred = rng.integers(0, 2, 40), rng.random(40).astype(np.float32)
    hits, alarms, rejections, misses = rates(y_true, y_pred, np.linspace(0, 1, 11))
    recall, specificity = hits / (hits + misses), rejections / (rejections + alarms)
    precision = hits / np.maximum(hits + alarms, 1)
    for metric, wanted, bound in (
        (metrics.SensitivityAtSpecificity(0.6, num_thresholds=11), recall, specificity),
        (metrics.SpecificityAtSensitivity(0.6, num_thresholds=11), specificity, recall),
        (metrics.PrecisionAtRecall(0.6, num_thresholds=11), precision, recall),
        (metrics.RecallAtPrecision(0.4, num_thresholds=11), recall, precision),
    ):
        metric.update_state(y_true, y_pred)
        assert float(metric.result()) == pytest.approx(wanted[bound >= metric.value].max()), metric


def test_only_one_class_or_the_top_of_each_row_counts(rng):
    y_true, y_pred, weight = rng.integers(0, 2, (20, 4)), rng.random((20, 4)), rng.random((20, 1))
    metric = metrics.Precision(class_id=2)
    metric.update_state(y_true, y_pred, weight)
    positive = (y_pred[:, 2] > 0.5) * weight[:, 0]
    assert float(metric.result()) == pytest.approx((positive * y_true[:, 2]).sum() / positive.sum())
    metric = metrics.Recall(top_k=2)
    metric.update_state(y_true, y_pred)
    top = y_pred >= np.sort(y_pred, axis=1)[:, -2:-1]
    assert float(metric.result()) == pytest.approx((top * y_true).sum() / y_true.sum())
    with pytest.raises(ValueError, match="class_id needs predictions of shape"):
        metrics.Recall(class_id=1).update_state(np.ones(3), np.ones(3))


def test_area_from_logits(rng):
    y_true, logits = rng.integers(0, 2, 40), rng.normal(size=40)
    one, other = metrics.AUC(from_logits=True), metrics.AUC()
    one.update_state(y_true, logits)
    other.update_state(y_true, 1 / (1 + np.exp(-logits)))
    assert float(one.result()) == pytest.approx(float(other.result()))


def test_defaults():
    assert metrics.TopKCategoricalAccuracy().k == metrics.SparseTopKCategoricalAccuracy().k == 5
    assert len(metrics.AUC().thresholds) == len(metrics.RecallAtPrecision(0.5).thresholds) == 200
    assert metrics.MeanSquaredError().values(np.ones(3), np.ones(3, np.float32)).dtype == np.float32


def test_a_prediction_at_the_threshold_is_negative():
    y = np.full((1, 1), 0.5)
    assert float(metrics.BinaryAccuracy()(np.ones((1, 1)), y)) == 0
    assert float(metrics.TruePositives()(np.ones((1, 1)), y)) == 0
    assert float(metrics.TruePositives(thresholds=[0.5, 0.4])(np.ones((1, 1)), y)[1]) == 1
    assert float(metrics.F1Score(average="micro", threshold=0.5)(np.ones((1, 1)), y)) == 0


def test_f_scores_by_hand(rng):
    labels, scores, weight = rng.integers(0, 2, (30, 3)), rng.random((30, 3)), rng.random(30)
    positive = scores > 0.4
    hits = ((positive * labels).T * weight).sum(axis=1)
    precision, recall = hits / (positive.T * weight).sum(axis=1), hits / (labels.T * weight).sum(axis=1)
    each = 5 * precision * recall / (4 * precision + recall)
    shares = (labels.T * weight).sum(axis=1) / (labels.T * weight).sum()
    for average, expected in ((None, each), ("macro", each.mean()), ("weighted", (each * shares).sum())):
        metric = metrics.FBetaScore(average=average, beta=2.0, threshold=0.4)
        assert float(metric.result()) == 0
        metric.update_state(labels, scores, weight)
        np.testing.assert_allclose(metric.result().numpy(), expected, rtol=1e-5)


def test_r2_scores_by_hand(rng):
    y_true, y_pred, weight = rng.normal(size=(20, 2)) * [1, 3], rng.normal(size=(20, 2)), rng.random(20)[:, None]
    centre = (y_true * weight).sum(axis=0) / weight.sum()
    spread = ((y_true - centre) ** 2 * weight).sum(axis=0)
    each = 1 - ((y_true - y_pred) ** 2 * weight).sum(axis=0) / spread
    for how, expected in (
        (None, each),
        ("uniform_average", each.mean()),
        ("variance_weighted_average", (each * spread).sum() / spread.sum()),
    ):
        metric = metrics.R2Score(class_aggregation=how)
        metric.update_state(y_true, y_pred, weight)
        np.testing.assert_allclose(metric.result().numpy(), expected, rtol=1e-9)
    constant = metrics.R2Score()
    assert float(constant(np.ones((3, 1)), np.zeros((3, 1)))) == 0


def test_nan_is_not_taken_for_success():
    nan = np.full((2, 3), np.nan)
    assert np.isnan(float(metrics.MeanSquaredError()(np.ones((2, 3)), nan)))
    assert float(metrics.BinaryAccuracy()(np.ones((2, 3)), nan)) == 0
    assert float(metrics.TopKCategoricalAccuracy()(np.eye(3)[:2], nan)) == 0
    assert float(metrics.TruePositives(thresholds=[0.2, 0.5])(np.ones((2, 3)), nan).sum()) == 0


def test_what_does_not_fit_is_named():
    y = np.ones((4, 3))
    for name in ("mse", "binary_accuracy", "categorical_accuracy", "precision", "auc", "f1_score", "r2_score"):
        with pytest.raises(ValueError, match=rf"{name}: expected labels of shape \(4, 3\), got \(4, 2\)"):
            metrics.get(name).update_state(y[:, :2], y)
    with pytest.raises(ValueError, match=r"expected labels of shape \(4,\), got \(3,\)"):
        metrics.SparseCategoricalAccuracy().update_state(np.zeros(3), y)
    with pytest.raises(ValueError, match=r"sample_weight to fit values of shape \(4, 3\), got shape \(2,\)"):
        metrics.Precision().update_state(y, y, np.ones(2))
    with pytest.raises(ValueError, match="sample_weight to fit values"):
        metrics.MeanSquaredError().update_state(y, y, np.ones(2))
    for wrong in (
        lambda: metrics.Precision(thresholds=1.5),
        lambda: metrics.BinaryAccuracy(threshold=2),
        lambda: metrics.AUC(curve="XYZ"),
        lambda: metrics.AUC(num_thresholds=1),
        lambda: metrics.F1Score(average="some"),
        lambda: metrics.FBetaScore(beta=0.0),
        lambda: metrics.RecallAtPrecision(1.5),
        lambda: metrics.R2Score(class_aggregation="some"),
    ):
        with pytest.raises(ValueError, match=r"must|got"):
            wrong()


def test_metrics_are_described_and_built_again(rng):
    for metric in (
        metrics.BinaryAccuracy(threshold=0.3, name="mine"),
        metrics.AUC(curve="PR", thresholds=[0.2, 0.6]),
        metrics.Precision(thresholds=[0.2, 0.6]),
        metrics.BinaryCrossentropy(from_logits=True),
        metrics.SensitivityAtSpecificity(0.4),
        metrics.MeanMetricWrapper(losses.mean_absolute_error),
        metrics.MeanMetricWrapper(losses.Huber(delta=0.2)),
    ):
        with known_objects({"mean_absolute_error": losses.mean_absolute_error}):
            again = metrics.get(json.loads(json.dumps(serialize(metric))))
        assert type(again) is type(metric)
        assert again.name == metric.name
        for y_true, y_pred in batches(rng):
            metric.update_state(y_true, y_pred), again.update_state(y_true, y_pred)
        np.testing.assert_array_equal(again.result().numpy(), metric.result().numpy())
