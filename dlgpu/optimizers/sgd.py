"""SGD: gradient descent, with momentum if wanted."""

from typing import Any

from dlgpu.backend.reference import update as kernels
from dlgpu.optimizers.base import Optimizer
from dlgpu.optimizers.weight_decay import decaying


class SGD(Optimizer):
    """values -= learning_rate * gradients; with momentum

    velocity = momentum * velocity - learning_rate * gradients
    values += velocity, or for Nesterov's  momentum * velocity - learning_rate * gradients

    Args:
        learning_rate: a number, a Schedule, or a function without arguments.
        momentum: in [0, 1].
        nesterov: look one step ahead along the velocity.
        **kwargs: see Optimizer.
    """

    def __init__(self, learning_rate: Any = 0.01, momentum: float = 0.0, nesterov: bool = False, **kwargs: Any):
        super().__init__(learning_rate, **kwargs)
        self.momentum = self.fraction("momentum", momentum)
        self.nesterov = nesterov

    def slot_starts(self) -> dict[str, float]:
        return {"momentum": 0.0} if self.momentum else {}

    @decaying
    def update(self, values: Any, gradients: Any, slots: dict[str, Any], scalars: Any) -> None:
        velocity = slots.get("momentum")
        kernels.sgd_step(values, gradients, velocity, scalars, self.decay, self.momentum, self.nesterov)
