"""Learning-rate schedules at the points that their descriptions name."""

import json
import math

import pytest

from dlgpu import optimizers, schedules
from dlgpu.saving.configurable import deserialize, serialize
from dlgpu.schedules import (
    CosineDecay,
    CosineDecayRestarts,
    ExponentialDecay,
    InverseTimeDecay,
    PiecewiseConstantDecay,
    PolynomialDecay,
    Schedule,
)


@pytest.mark.parametrize(
    ("schedule", "points"),
    [
        (ExponentialDecay(0.1, 10, 0.5), {0: 0.1, 10: 0.05, 5: 0.1 * math.sqrt(0.5)}),
        (ExponentialDecay(0.1, 10, 0.5, staircase=True), {9: 0.1, 10: 0.05, 25: 0.025}),
        (InverseTimeDecay(0.1, 10, 1.0), {0: 0.1, 5: 0.1 / 1.5, 10: 0.05}),
        (InverseTimeDecay(0.1, 10, 1.0, staircase=True), {9: 0.1, 10: 0.05}),
        (PiecewiseConstantDecay([2, 4], [1.0, 0.5, 0.1]), {0: 1, 2: 1, 3: 0.5, 4: 0.5, 5: 0.1, 99: 0.1}),
        (PolynomialDecay(1.0, 10, 0.2, power=2.0), {0: 1, 5: 0.2 + 0.8 / 4, 10: 0.2, 50: 0.2}),
        (PolynomialDecay(1.0, 10, 0.0, cycle=True), {0: 1, 10: 0, 11: 1 - 11 / 20, 20: 0, 21: 1 - 21 / 30}),
        (CosineDecay(1.0, 10, alpha=0.1), {0: 1, 5: 0.55, 10: 0.1, 99: 0.1}),
        (CosineDecay(0.0, 10, warmup_target=1.0, warmup_steps=4), {0: 0, 2: 0.5, 4: 1, 9: 0.5, 14: 0, 30: 0}),
        (CosineDecay(0.3, 10, warmup_steps=4), {0: 0.3, 5: 0.15}),
        (CosineDecayRestarts(1.0, 10), {0: 1, 5: 0.5, 10: 1, 20: 0.5, 30: 1, 50: 0.5, 70: 1}),
        (CosineDecayRestarts(1.0, 10, t_mul=1.0, m_mul=0.5), {9.999: 0, 10: 0.5, 15: 0.25, 20: 0.25, 1000: 2.0**-100}),
        (CosineDecayRestarts(1.0, 6, t_mul=1.5, alpha=0.1), {6: 1, 15: 1, 3: 0.55}),
    ],
)
def test_schedules_pass_through_their_points(schedule, points):
    for step, rate in points.items():
        assert schedule(step) == pytest.approx(rate, abs=1e-6), step
    again = deserialize(json.loads(json.dumps(serialize(schedule))))
    assert [again(step) for step in range(40)] == [schedule(step) for step in range(40)]


def test_rates_are_plain_floats():
    assert type(ExponentialDecay(0.1, 10, 0.5)(3)) is float


def test_schedules_are_found_where_keras_has_them():
    assert optimizers.schedules.CosineDecay is CosineDecay
    assert optimizers.schedules.LearningRateSchedule is Schedule


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ExponentialDecay(0.1, 0, 0.5), "ExponentialDecay: decay_steps must be positive, got 0"),
        (lambda: CosineDecayRestarts(0.1, -1), "first_decay_steps must be positive"),
        (lambda: CosineDecayRestarts(0.1, 10, t_mul=0.5), "t_mul must be at least 1, got 0.5"),
        (lambda: PiecewiseConstantDecay([1], [1.0]), "1 values for 1 boundaries"),
        (lambda: PiecewiseConstantDecay([2, 1], [1.0, 2.0, 3.0]), "must increase"),
    ],
)
def test_nonsense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_schedule_without_a_rule_says_so():
    class Empty(schedules.Schedule):
        pass

    with pytest.raises(NotImplementedError, match="Empty"):
        Empty()(0)
