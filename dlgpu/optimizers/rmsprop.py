"""RMSprop: steps divided by the root of a running mean of squared gradients."""

from typing import Any

from dlgpu.backend.reference import update as kernels
from dlgpu.optimizers.base import Optimizer
from dlgpu.optimizers.weight_decay import decaying


class RMSprop(Optimizer):
    """values -= learning_rate * gradients / sqrt(velocity + epsilon)  (Hinton, Coursera lecture 6e, 2012)

    velocity = rho * velocity + (1 - rho) * gradients**2

    Args:
        learning_rate: a number, a Schedule, or a function without arguments.
        rho: how much of the running mean is kept at each step, in [0, 1].
        momentum: accumulate the steps, and keep this much of the sum at each, in [0, 1].
        epsilon: under the root, for gradients near 0.
        centered: subtract the square of the gradients' running mean from `velocity`, which makes it a variance.
        **kwargs: see Optimizer.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, **kwargs)
        self.rho = self.fraction("rho", rho)
        self.momentum = self.fraction("momentum", momentum)
        self.epsilon = self.positive("epsilon", epsilon)
        self.centered = centered

    def slot_starts(self) -> dict[str, float]:
        names = ["velocity"] + ["momentum"] * bool(self.momentum) + ["average_gradient"] * self.centered
        return dict.fromkeys(names, 0.0)

    @decaying
    def update(self, values: Any, gradients: Any, slots: dict[str, Any], scalars: Any) -> None:
        square, mean, velocity = slots["velocity"], slots.get("average_gradient"), slots.get("momentum")
        numbers = self.decay, self.rho, self.momentum, self.epsilon
        kernels.rmsprop_step(values, gradients, square, mean, velocity, scalars, *numbers)
