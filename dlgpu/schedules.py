"""Learning-rate schedules: functions of the optimizer's step count."""

import math
from collections.abc import Sequence
from itertools import pairwise

from dlgpu.saving.configurable import Configurable


class Schedule(Configurable):
    """A function of the number of finished optimizer steps to a learning rate.

    A subclass defines `__call__(step)` and is passed to an optimizer as its `learning_rate`.
    """

    def __call__(self, step: int) -> float:
        raise NotImplementedError(f"{type(self).__name__} does not define __call__(step)")


LearningRateSchedule = Schedule  # Keras's name for it


class ExponentialDecay(Schedule):
    """initial_learning_rate * decay_rate ** (step / decay_steps)

    Args:
        initial_learning_rate: at step 0.
        decay_steps: the steps in which the rate shrinks to decay_rate times itself.
        decay_rate: the factor.
        staircase: divide as integers, so that the rate falls in jumps.
    """

    def __init__(self, initial_learning_rate: float, decay_steps: int, decay_rate: float, staircase: bool = False):
        _require_positive(self, decay_steps=decay_steps)
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.decay_rate = decay_rate
        self.staircase = staircase

    def __call__(self, step: int) -> float:
        return self.initial_learning_rate * self.decay_rate ** self._fraction(step)

    def _fraction(self, step: int) -> float:
        return step // self.decay_steps if self.staircase else step / self.decay_steps


class InverseTimeDecay(ExponentialDecay):
    """initial_learning_rate / (1 + decay_rate * step / decay_steps)

    Args:
        initial_learning_rate: at step 0.
        decay_steps: the unit of time.
        decay_rate: how much the divisor grows in it.
        staircase: divide as integers, so that the rate falls in jumps.
    """

    def __call__(self, step: int) -> float:
        return self.initial_learning_rate / (1 + self.decay_rate * self._fraction(step))


class PiecewiseConstantDecay(Schedule):
    """values[i] while boundaries[i - 1] < step <= boundaries[i]

    Args:
        boundaries: increasing step counts.
        values: learning rates, one more than boundaries.
    """

    def __init__(self, boundaries: Sequence[float], values: Sequence[float]):
        if len(values) != len(boundaries) + 1:
            raise ValueError(
                f"PiecewiseConstantDecay: expected one value more than boundaries, got {len(values)} values for "
                f"{len(boundaries)} boundaries"
            )
        if any(a >= b for a, b in pairwise(boundaries)):
            raise ValueError(f"PiecewiseConstantDecay: boundaries must increase, got {list(boundaries)}")
        self.boundaries = list(boundaries)
        self.values = list(values)

    def __call__(self, step: int) -> float:
        return self.values[sum(step > boundary for boundary in self.boundaries)]


class PolynomialDecay(Schedule):
    """(initial_learning_rate - end_learning_rate) * (1 - step / decay_steps) ** power + end_learning_rate

    Args:
        initial_learning_rate: at step 0.
        decay_steps: the steps until the end.
        end_learning_rate: from then on.
        power: 1 for a straight line.
        cycle: instead of staying at the end, stretch decay_steps to its next multiple.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
    ):
        _require_positive(self, decay_steps=decay_steps)
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.end_learning_rate = end_learning_rate
        self.power = power
        self.cycle = cycle

    def __call__(self, step: int) -> float:
        length = self.decay_steps
        if self.cycle:
            length *= max(1, math.ceil(step / length))
        left = 1 - min(step, length) / length
        return (self.initial_learning_rate - self.end_learning_rate) * left**self.power + self.end_learning_rate


class CosineDecay(Schedule):
    """peak * ((1 - alpha) * (1 + cos(pi * (step - warmup_steps) / decay_steps)) / 2 + alpha)

    after a line from initial_learning_rate to the peak, warmup_target, in warmup_steps; without a warmup_target there
    is no warmup and the peak is initial_learning_rate (Loshchilov & Hutter, "SGDR", 2017).

    Args:
        initial_learning_rate: at step 0.
        decay_steps: the steps of the decay, after the warmup.
        alpha: the last learning rate as a fraction of the peak.
        warmup_target: the learning rate at the end of the warmup.
        warmup_steps: its length.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        alpha: float = 0.0,
        *,
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ):
        _require_positive(self, decay_steps=decay_steps)
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.alpha = alpha
        self.warmup_target = warmup_target
        self.warmup_steps = 0 if warmup_target is None else warmup_steps

    def __call__(self, step: int) -> float:
        peak = self.initial_learning_rate if self.warmup_target is None else self.warmup_target
        if step < self.warmup_steps:
            return self.initial_learning_rate + (peak - self.initial_learning_rate) * step / self.warmup_steps
        done = min((step - self.warmup_steps) / self.decay_steps, 1)
        return peak * ((1 - self.alpha) * 0.5 * (1 + math.cos(math.pi * done)) + self.alpha)


class CosineDecayRestarts(Schedule):
    """Cosine decay that starts again, each time from m_mul times the height and for t_mul times the steps.

    initial_learning_rate * ((1 - alpha) * m_mul**restarts * (1 + cos(pi * done)) / 2 + alpha), where `done` is the
    fraction of the present period (Loshchilov & Hutter, "SGDR", 2017).

    Args:
        initial_learning_rate: at step 0.
        first_decay_steps: the length of the first period.
        t_mul: at least 1.
        m_mul: the factor on the height.
        alpha: the lowest learning rate as a fraction of the initial one.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: int,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
    ):
        _require_positive(self, first_decay_steps=first_decay_steps)
        if t_mul < 1:
            raise ValueError(f"CosineDecayRestarts: t_mul must be at least 1, got {t_mul}")
        self.initial_learning_rate = initial_learning_rate
        self.first_decay_steps = first_decay_steps
        self.t_mul = t_mul
        self.m_mul = m_mul
        self.alpha = alpha

    def __call__(self, step: int) -> float:
        restarts, done = self._period(step)
        height = self.m_mul**restarts * 0.5 * (1 + math.cos(math.pi * done))
        return self.initial_learning_rate * ((1 - self.alpha) * height + self.alpha)

    def _period(self, step: float) -> tuple[int, float]:
        """How many periods are over, and the fraction that is done of the present one."""
        length: float = self.first_decay_steps
        if self.t_mul == 1:
            return int(step // length), step % length / length
        restarts = 0
        while step >= length:
            step -= length
            length *= self.t_mul
            restarts += 1
        return restarts, step / length


def _require_positive(schedule: Schedule, **arguments: float) -> None:
    for name, value in arguments.items():
        if value <= 0:
            raise ValueError(f"{type(schedule).__name__}: {name} must be positive, got {value}")
