"""Every public layer, loss, metric and optimizer has its comparison: a class that is added without one fails here."""

import inspect

import pytest

from dlgpu import layers, losses, metrics, optimizers
from tests.parity import test_losses, test_metrics, test_optimizers, test_training
from tests.parity.layer_cases import CASES, NOISE

BASES = {"Layer", "Loss", "FunctionLoss", "PresetLoss", "Metric", "MeanMetricWrapper", "Optimizer"}
ELSEWHERE = {"LossScaleOptimizer"}  # in test_mixed_precision.py, around another optimizer
TABLES = [
    pytest.param(layers, [CASES | NOISE], id="layers"),
    pytest.param(losses, [test_losses.KERAS, test_training.LOSSES], id="losses"),
    pytest.param(metrics, [[name for name, *_ in test_metrics.CASES + test_metrics.VALUES]], id="metrics"),
    pytest.param(optimizers, [[name for name, _ in test_optimizers.CASES], test_training.OPTIMIZERS], id="optimizers"),
]


@pytest.mark.parametrize(("package", "tables"), TABLES)
def test_every_class_is_compared(package, tables):
    classes = {c.__name__ for c in vars(package).values() if inspect.isclass(c) and c.__module__.startswith("dlgpu.")}
    for table in tables:
        assert classes - BASES - ELSEWHERE == set(table)
