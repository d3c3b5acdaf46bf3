"""Adagrad: steps divided by the root of the sum of all squared gradients."""

from typing import Any

from dlgpu.backend.reference import update as kernels
from dlgpu.optimizers.base import Optimizer
from dlgpu.optimizers.weight_decay import decaying


class Adagrad(Optimizer):
    """values -= learning_rate * gradients / sqrt(accumulator + epsilon)  (Duchi, Hazan & Singer, 2011)

    accumulator += gradients**2

    Args:
        learning_rate: a number, a Schedule, or a function without arguments.
        initial_accumulator_value: where the sums begin, at least 0.
        epsilon: under the root, for gradients near 0.
        **kwargs: see Optimizer.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, **kwargs)
        self.initial_accumulator_value = self.require(
            "initial_accumulator_value", initial_accumulator_value, lambda x: x >= 0, "a number of at least 0"
        )
        self.epsilon = self.positive("epsilon", epsilon)

    def slot_starts(self) -> dict[str, float]:
        return {"accumulator": self.initial_accumulator_value}

    @decaying
    def update(self, values: Any, gradients: Any, slots: dict[str, Any], scalars: Any) -> None:
        kernels.adagrad_step(values, gradients, slots["accumulator"], scalars, self.decay, self.epsilon)
