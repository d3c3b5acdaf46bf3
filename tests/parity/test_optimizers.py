"""Optimizers and schedules against Keras and, where the formula is the same, PyTorch: 20 steps on fixed gradients."""

import keras
import numpy as np
import pytest
import torch

from dlgpu import optimizers, schedules
from dlgpu.parameters import Parameter

SHAPES = [(20, 7), (7,), (3, 3, 2, 4), ()]
STEPS = 20


def problem():
    """Initial values, and gradients for each step, of very different sizes; some exactly zero."""
    random = np.random.default_rng(0)
    scales = [1, 10, 1e-3, 1]
    values = [random.normal(size=shape).astype(np.float32) for shape in SHAPES]
    steps = [[(random.normal(size=s) * c).astype(np.float32) for s, c in zip(SHAPES, scales)] for _ in range(STEPS)]
    for gradients in steps:
        gradients[0][:3] = 0
    return values, steps


def run_dlgpu(optimizer):
    values, steps = problem()
    parameters = [Parameter(v.copy(), f"v{i}") for i, v in enumerate(values)]
    for gradients in steps:
        optimizer.apply_gradients(zip(gradients, parameters))
    return [p.numpy() for p in parameters]


def run_keras(optimizer):
    values, steps = problem()
    variables = [keras.Variable(v, name=f"v{i}") for i, v in enumerate(values)]
    for gradients in steps:
        optimizer.apply([torch.tensor(g) for g in gradients], variables)
    return [keras.ops.convert_to_numpy(v) for v in variables]


def run_torch(make):
    values, steps = problem()
    parameters = [torch.nn.Parameter(torch.tensor(v)) for v in values]
    optimizer = make(parameters)
    for gradients in steps:
        for p, g in zip(parameters, gradients):
            p.grad = torch.tensor(g)
        optimizer.step()
    return [p.detach().numpy() for p in parameters]


def assert_equal(ours, theirs):
    for a, b in zip(ours, theirs):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


CASES = [
    ("SGD", {"learning_rate": 0.1}),
    ("SGD", {"learning_rate": 0.1, "momentum": 0.9}),
    ("SGD", {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("SGD", {"learning_rate": 0.1, "clipnorm": 0.5}),
    ("SGD", {"learning_rate": 0.1, "global_clipnorm": 2.0}),
    ("SGD", {"learning_rate": 0.1, "clipvalue": 0.3}),
    ("RMSprop", {}),
    ("RMSprop", {"learning_rate": 0.01, "momentum": 0.9, "rho": 0.8}),
    ("RMSprop", {"centered": True, "epsilon": 1e-3}),
    ("RMSprop", {"momentum": 0.5, "centered": True, "weight_decay": 0.1}),
    ("Adam", {}),
    ("Adam", {"learning_rate": 0.01, "beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-3}),
    ("Adam", {"amsgrad": True, "clipnorm": 1.0}),
    ("Adam", {"weight_decay": 0.1, "global_clipnorm": 1.0}),
    ("AdamW", {}),
    ("AdamW", {"learning_rate": 0.01, "weight_decay": 0.1, "amsgrad": True}),
    ("Adagrad", {}),
    ("Adagrad", {"learning_rate": 0.1, "initial_accumulator_value": 0.5, "weight_decay": 0.01}),
    ("Adagrad", {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 6}),
    ("SGD", {"learning_rate": 0.1, "momentum": 0.9, "gradient_accumulation_steps": 3, "clipvalue": 0.5}),
    ("Adam", {"gradient_accumulation_steps": 2, "use_ema": True, "ema_overwrite_frequency": 4, "weight_decay": 0.1}),
    ("RMSprop", {"loss_scale_factor": 8.0}),
    ("Nadam", {}),
    ("Nadam", {"learning_rate": 0.01, "beta_1": 0.8, "clipvalue": 0.5}),
]


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_parameters_after_20_steps_equal_kerass(name, arguments):
    ours = run_dlgpu(getattr(optimizers, name)(**arguments))
    assert_equal(ours, run_keras(getattr(keras.optimizers, name)(**arguments)))
    values, _ = problem()
    assert all((a != v).any() for a, v in zip(ours, values))


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adam", "AdamW", "Adagrad", "Nadam"])
def test_default_arguments_are_kerass(name):
    ours, theirs = getattr(optimizers, name)(), getattr(keras.optimizers, name)()
    config = theirs.get_config()
    for argument in config.keys() - {"name", "learning_rate"}:
        assert getattr(ours, argument) == config[argument], argument
    assert ours.learning_rate == pytest.approx(config["learning_rate"])


def test_exclusion_from_weight_decay_is_kerass():
    pair = [module.AdamW(0.01, weight_decay=0.3) for module in (optimizers, keras.optimizers)]
    for optimizer in pair:
        optimizer.exclude_from_weight_decay(var_names=["v1", "3"])
    assert_equal(run_dlgpu(pair[0]), run_keras(pair[1]))


def test_a_schedule_sets_the_rate_of_each_step_as_in_keras():
    pair = [
        module.SGD(module.schedules.PolynomialDecay(0.5, 10, 0.01, power=2.0), momentum=0.5)
        for module in (optimizers, keras.optimizers)
    ]
    assert_equal(run_dlgpu(pair[0]), run_keras(pair[1]))


SCHEDULES = [
    ("ExponentialDecay", (0.1, 7, 0.9), {}),
    ("ExponentialDecay", (0.1, 7, 0.9), {"staircase": True}),
    ("InverseTimeDecay", (0.1, 7, 0.5), {}),
    ("InverseTimeDecay", (0.1, 7, 0.5), {"staircase": True}),
    ("PiecewiseConstantDecay", ([3, 10, 20], [1.0, 0.5, 0.25, 0.1]), {}),
    ("PolynomialDecay", (0.1, 8), {}),
    ("PolynomialDecay", (0.1, 8, 0.01, 2.0), {"cycle": True}),
    ("CosineDecay", (0.1, 15), {}),
    ("CosineDecay", (0.01, 15, 0.1), {"warmup_target": 0.2, "warmup_steps": 5}),
    ("CosineDecayRestarts", (0.1, 5), {}),
    ("CosineDecayRestarts", (0.1, 5, 1.0, 0.8, 0.1), {}),
    ("CosineDecayRestarts", (0.1, 7, 1.5, 0.5), {}),  # no restart after a whole number of steps, where Keras rounds
]


@pytest.mark.parametrize(("name", "args", "kwargs"), SCHEDULES)
def test_schedules_equal_kerass(name, args, kwargs):
    ours = getattr(schedules, name)(*args, **kwargs)
    theirs = getattr(keras.optimizers.schedules, name)(*args, **kwargs)
    for step in range(40):
        assert ours(step) == pytest.approx(float(theirs(torch.tensor(step))), rel=1e-5, abs=1e-7), step


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (optimizers.SGD(0.1), lambda p: torch.optim.SGD(p, 0.1)),
        (optimizers.SGD(0.1, momentum=0.9), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
        (optimizers.SGD(0.1, 0.9, nesterov=True), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True)),
        (
            # PyTorch's epsilon is in another place: too small to matter
            optimizers.AdamW(0.01, weight_decay=0.1, epsilon=1e-12),
            lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1, eps=1e-12),
        ),
        (
            optimizers.Nadam(0.01),
            lambda p: torch.optim.NAdam(p, 0.01, eps=1e-7, momentum_decay=1.0),
        ),
    ],
    ids=["SGD", "momentum", "nesterov", "AdamW", "Nadam"],
)
def test_parameters_after_20_steps_equal_pytorchs(ours, theirs):
    assert_equal(run_dlgpu(ours), run_torch(theirs))
