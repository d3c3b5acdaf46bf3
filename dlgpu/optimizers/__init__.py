"""Optimizers, with Keras's names, arguments and defaults."""

from typing import Any

from dlgpu import schedules
from dlgpu.optimizers.adagrad import Adagrad
from dlgpu.optimizers.adam import Adam, AdamW, Nadam
from dlgpu.optimizers.base import Optimizer
from dlgpu.optimizers.loss_scale import LossScaleOptimizer
from dlgpu.optimizers.rmsprop import RMSprop
from dlgpu.optimizers.sgd import SGD

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "LossScaleOptimizer", "Nadam", "Optimizer", "RMSprop", "get", "schedules"]


def get(identifier: Any) -> Any:
    """The optimizer that `identifier` means: an Optimizer, its class, a name, a configuration, or None.

    Raises:
        ValueError: an unknown name; the message names the nearest known one.
    """
    return Optimizer.get(identifier)
