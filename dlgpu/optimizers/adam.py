"""Adam and its kin: steps from running means of the gradients and of their squares."""

import math
from typing import Any

from dlgpu.backend.reference import update as kernels
from dlgpu.optimizers.base import Optimizer
from dlgpu.optimizers.weight_decay import decaying


class Adam(Optimizer):
    """values -= rate * momentum / (sqrt(velocity) + epsilon)  (Kingma & Ba, 2015)

    momentum += (1 - beta_1) * (gradients - momentum)
    velocity += (1 - beta_2) * (gradients**2 - velocity)
    rate = learning_rate * sqrt(1 - beta_2**t) / (1 - beta_1**t),  t the number of the step, from 1

    Args:
        learning_rate: a number, a Schedule, or a function without arguments.
        beta_1, beta_2: how much of the running means is kept at each step, in [0, 1).
        epsilon: the paper's "epsilon hat".
        amsgrad: divide by the largest `velocity` so far (Reddi, Kale & Kumar, 2018).
        **kwargs: see Optimizer.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, **kwargs)
        self.beta_1 = self.fraction("beta_1", beta_1, below_one=True)
        self.beta_2 = self.fraction("beta_2", beta_2, below_one=True)
        self.epsilon = self.positive("epsilon", epsilon)
        self.amsgrad = amsgrad

    def slot_starts(self) -> dict[str, float]:
        return dict.fromkeys(["momentum", "velocity"] + ["velocity_hat"] * self.amsgrad, 0.0)

    def scalars(self, step: int) -> tuple[float, ...]:
        return step, 0

    @decaying
    def update(self, values: Any, gradients: Any, slots: dict[str, Any], scalars: Any) -> None:
        momentum, velocity, peak = slots["momentum"], slots["velocity"], slots.get("velocity_hat")
        numbers = self.decay, self.beta_1, self.beta_2, self.epsilon
        kernels.adam_step(values, gradients, momentum, velocity, peak, scalars, *numbers)


class AdamW(Adam):
    """Adam with weight decay apart from the gradients: values -= weight_decay * learning_rate * values, before.

    (Loshchilov & Hutter, "Decoupled weight decay regularization", 2019)

    Args:
        learning_rate: a number, a Schedule, or a function without arguments.
        weight_decay: at least 0.
        **kwargs: see Adam and Optimizer.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay=weight_decay, **kwargs)
        if weight_decay is None:
            self.fail("weight_decay must be a number of at least 0, got None")


class Nadam(Optimizer):
    """values -= learning_rate * step / (sqrt(velocity / (1 - beta_2**t)) + epsilon)  (Dozat, 2016)

    step = u[t + 1] * momentum / (1 - u[1] ... u[t + 1]) + (1 - u[t]) * gradients / (1 - u[1] ... u[t])
    u[t] = beta_1 * (1 - 0.96**t / 2), and momentum and velocity as for Adam

    Args:
        learning_rate: a number, a Schedule, or a function without arguments.
        beta_1, beta_2: how much of the running means is kept at each step, in [0, 1).
        epsilon: added to the root.
        **kwargs: see Optimizer.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, **kwargs)
        self.beta_1 = self.fraction("beta_1", beta_1, below_one=True)
        self.beta_2 = self.fraction("beta_2", beta_2, below_one=True)
        self.epsilon = self.positive("epsilon", epsilon)

    def slot_starts(self) -> dict[str, float]:
        return {"momentum": 0.0, "velocity": 0.0}

    def scalars(self, step: int) -> tuple[float, ...]:
        return step, math.prod(kernels.nadam_momentum(self.beta_1, t) for t in range(1, step + 1)), 0

    @decaying
    def update(self, values: Any, gradients: Any, slots: dict[str, Any], scalars: Any) -> None:
        momentum, velocity = slots["momentum"], slots["velocity"]
        numbers = self.decay, self.beta_1, self.beta_2, self.epsilon
        kernels.nadam_step(values, gradients, momentum, velocity, scalars, *numbers)
