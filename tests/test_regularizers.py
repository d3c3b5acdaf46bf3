"""Regularizers: the value of each penalty and its derivatives."""

import json

import numpy as np
import pytest

from dlgpu import regularizers
from dlgpu.layers import Dense
from dlgpu.models import Sequential
from dlgpu.regularizers import L1, L1L2, L2, OrthogonalRegularizer
from dlgpu.saving.configurable import deserialize, serialize
from dlgpu.tensor import Tensor
from dlgpu.testing import gradcheck

WEIGHT = np.array([[1.0, -2.0, 0.5], [3.0, 0.25, -1.0]])


def cosines(matrix):
    unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    pairs = np.abs(unit @ unit.T)[np.triu_indices(len(matrix), 1)]
    return pairs.mean()


@pytest.mark.parametrize(
    ("regularizer", "expected"),
    [
        (L1(), 0.01 * 7.75),
        (L1(0.3), 0.3 * 7.75),
        (L2(), 0.01 * (WEIGHT**2).sum()),
        (L2(0.3), 0.3 * (WEIGHT**2).sum()),
        (L1L2(), 0.0),
        (L1L2(0.1), 0.1 * 7.75),
        (L1L2(0.1, 0.2), 0.1 * 7.75 + 0.2 * (WEIGHT**2).sum()),
        (OrthogonalRegularizer(), 0.01 * cosines(WEIGHT)),
        (OrthogonalRegularizer(0.5, "columns"), 0.5 * cosines(WEIGHT.T)),
    ],
)
def test_penalties_and_their_derivatives(regularizer, expected):
    assert float(regularizer(Tensor(WEIGHT))) == pytest.approx(expected, rel=1e-12)
    assert regularizer(Tensor(WEIGHT.astype(np.float32))).dtype == np.float32
    gradcheck(regularizer, WEIGHT)
    again = deserialize(json.loads(json.dumps(serialize(regularizer))))
    assert float(again(Tensor(WEIGHT))) == float(regularizer(Tensor(WEIGHT)))


def test_orthogonal_rows_and_rows_of_zeros_cost_nothing():
    assert float(OrthogonalRegularizer()(Tensor(np.eye(4)))) == 0
    assert float(OrthogonalRegularizer()(Tensor(np.zeros((3, 2))))) == 0
    assert float(OrthogonalRegularizer()(Tensor(np.ones((1, 2))))) == 0


def test_a_layer_adds_its_penalties_to_the_loss():
    layer = Dense(3, kernel_initializer="ones", kernel_regularizer="l2", bias_regularizer=lambda w: w.sum() + 5)
    layer(np.ones((1, 2), np.float32))
    assert [float(loss) for loss in layer.losses] == pytest.approx([0.06, 5.0])


def test_a_layer_adds_the_penalty_of_its_outputs_to_the_loss_for_each_sample(rng):
    x, y = rng.normal(size=(10, 3)).astype(np.float32), np.zeros((10, 4), np.float32)
    model = Sequential([Dense(4, input_shape=(3,), activity_regularizer=regularizers.l1(0.5))])
    model.compile("sgd", "mse")
    output = model.predict(x, verbose=0)
    expected = np.square(output).mean() + 0.5 * np.abs(output).sum() / 10
    assert model.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-5)
    again = deserialize(serialize(model)).layers[0].activity_regularizer
    assert again.l1 == 0.5
    loss = model.train_on_batch(x, y)
    assert model.evaluate(x, y, verbose=0) < loss


@pytest.mark.parametrize(
    ("name", "expected"), [("l1", L1), ("L2", L2), ("l1_l2", L1L2), ("orthogonal_regularizer", OrthogonalRegularizer)]
)
def test_regularizers_go_by_keras_names(name, expected):
    assert type(regularizers.get(name)) is expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: L1(-1), "L1: l1 must be a number of at least 0, got -1"),
        (lambda: L2(float("nan")), "L2: l2 .* got nan"),
        (lambda: L1L2(l2="x"), "L1L2: l2 .* got 'x'"),
        (lambda: OrthogonalRegularizer(mode="diagonals"), "mode must be"),
        (lambda: OrthogonalRegularizer()(Tensor(np.ones(3))), r"expected a matrix, got a weight of shape \(3,\)"),
        (lambda: regularizers.get("l3"), "Unknown regularizer 'l3'"),
    ],
)
def test_nonsense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
