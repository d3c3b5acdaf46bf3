"""Optimizers: their equations, clipping, decay, what they keep, and what they refuse."""

import json
import math

import numpy as np
import pytest

import dlgpu
from dlgpu import optimizers
from dlgpu.backend.devices import to_host
from dlgpu.optimizers import SGD, Adagrad, Adam, AdamW, Nadam, Optimizer, RMSprop
from dlgpu.parameters import Parameter, flatten
from dlgpu.saving.configurable import deserialize, serialize
from dlgpu.schedules import ExponentialDecay, PiecewiseConstantDecay
from dlgpu.tensor import Tensor

SHAPES = [(3, 5), (), (65,), (2, 0)]


def here(values, dtype=None):
    return dlgpu.current_device().asarray(values, dtype)


def parameters(dtypes=(np.float64,) * 4):
    random = np.random.default_rng(0)
    return [
        Parameter(here(random.normal(size=s), t), name, f"layer/{name}")
        for s, t, name in zip(SHAPES, dtypes, ["kernel", "scale", "bias", "empty"])
    ]


def gradients(step):
    random = np.random.default_rng([1, step])
    return [random.normal(size=s) * 10.0 ** random.integers(-3, 2) for s in SHAPES]


def train(optimizer, ps, steps):
    for step in steps:
        optimizer.apply_gradients(zip(gradients(step), ps))
    return [p.numpy().copy() for p in ps]


# The equations again, for one array of float64, as generators of the change at each step.


def sgd(g, rate=0.01, momentum=0.0, nesterov=False):
    velocity = 0
    while True:
        velocity = momentum * velocity - rate * g()
        yield momentum * velocity - rate * g.now if nesterov else velocity


def rmsprop(g, rate=0.001, rho=0.9, momentum=0.0, centered=False):
    square = mean = velocity = 0
    while True:
        square = rho * square + (1 - rho) * g() ** 2
        mean = rho * mean + (1 - rho) * g.now
        variance = square - mean**2 if centered else square
        velocity = momentum * velocity + rate * g.now / np.sqrt(variance + 1e-7)
        yield -velocity


def adagrad(g, rate=0.001, start=0.1):
    total = start
    while True:
        total = total + g() ** 2
        yield -rate * g.now / np.sqrt(total + 1e-7)


def adam(g, rate=0.001, beta_1=0.9, beta_2=0.999, amsgrad=False):
    mean = square = peak = t = 0
    while True:
        t += 1
        mean = beta_1 * mean + (1 - beta_1) * g()
        square = beta_2 * square + (1 - beta_2) * g.now**2
        peak = np.maximum(peak, square) if amsgrad else square
        # the epsilon is "hat": beside the uncorrected root
        yield -rate * math.sqrt(1 - beta_2**t) / (1 - beta_1**t) * mean / (np.sqrt(peak) + 1e-7)


def nadam(g, rate=0.001, beta_1=0.9, beta_2=0.999):
    mean = square = t = 0
    u = [None]
    while True:
        t += 1
        u = [beta_1 * (1 - 0.5 * 0.96**i) for i in range(1, t + 2)]
        mean = beta_1 * mean + (1 - beta_1) * g()
        square = beta_2 * square + (1 - beta_2) * g.now**2
        step = u[t] * mean / (1 - math.prod(u)) + (1 - u[t - 1]) * g.now / (1 - math.prod(u[:-1]))
        yield -rate * step / (np.sqrt(square / (1 - beta_2**t)) + 1e-7)


class Source:
    """The gradients of one parameter, one after the other."""

    def __init__(self, position):
        self.position, self.step = position, 0

    def __call__(self):
        self.now = gradients(self.step)[self.position]
        self.step += 1
        return self.now


EQUATIONS = [
    (SGD(), sgd, {}),
    (SGD(0.1, 0.9), sgd, {"rate": 0.1, "momentum": 0.9}),
    (SGD(0.1, 0.9, nesterov=True), sgd, {"rate": 0.1, "momentum": 0.9, "nesterov": True}),
    (RMSprop(), rmsprop, {}),
    (RMSprop(0.1, 0.7, 0.5), rmsprop, {"rate": 0.1, "rho": 0.7, "momentum": 0.5}),
    (RMSprop(centered=True), rmsprop, {"centered": True}),
    (RMSprop(momentum=0.5, centered=True), rmsprop, {"momentum": 0.5, "centered": True}),
    (Adagrad(), adagrad, {}),
    (Adagrad(0.1, 0.0), adagrad, {"rate": 0.1, "start": 0.0}),
    (Adam(), adam, {}),
    (Adam(0.1, 0.8, 0.9), adam, {"rate": 0.1, "beta_1": 0.8, "beta_2": 0.9}),
    (Adam(beta_2=0.5, amsgrad=True), adam, {"beta_2": 0.5, "amsgrad": True}),
    (AdamW(weight_decay=0.0), adam, {}),
    (Nadam(), nadam, {}),
    (Nadam(0.1, 0.8, 0.9), nadam, {"rate": 0.1, "beta_1": 0.8, "beta_2": 0.9}),
]


@pytest.mark.parametrize(("optimizer", "equation", "arguments"), EQUATIONS)
def test_steps_follow_the_equations(optimizer, equation, arguments):
    before = [p.numpy().copy() for p in parameters()]
    after = train(optimizer, parameters(), range(6))
    for position, (a, b) in enumerate(zip(after, before)):
        changes = equation(Source(position), **arguments)
        expected = b + sum(next(changes) for _ in range(6))
        np.testing.assert_allclose(a, expected, rtol=1e-12, atol=1e-13)
    assert optimizer.iterations == 6


EVERY = ["sgd", "rmsprop", "adam", "adamw", "adagrad", "nadam"]


@pytest.mark.parametrize("name", EVERY)
def test_every_optimizer_finds_the_bottom_of_a_bowl_in_float32(name):
    optimizer = optimizers.get(name)
    optimizer.learning_rate = 0.5 if name == "adagrad" else 0.1
    weight = Parameter(here([1.0, -2.0, 3.0], np.float32), "weight")
    for _ in range(400):
        optimizer.apply_gradients([((weight - 0.5) * 0.5, weight)])
    np.testing.assert_allclose(weight.numpy(), 0.5, atol=0.1)
    assert weight.dtype == np.float32


@pytest.mark.parametrize("name", EVERY)
def test_the_gaps_of_the_buffer_stay_zero(name):
    ps = parameters()
    flats = flatten(ps)
    optimizer = optimizers.get(name)
    flats[0].set_gradients([Tensor(g) for g in gradients(0)])
    optimizer.apply(flats)
    gaps = np.ones(flats[0].values.size, bool)
    for where in flats[0].slices:
        gaps[where] = False
    assert gaps.any()
    assert not to_host(flats[0].values)[gaps].any()


def test_parameters_of_two_dtypes_are_trained_together():
    mixed = (np.float32, np.float64, np.float32, np.float64)
    after = train(Adam(0.1, global_clipnorm=0.5), parameters(mixed), range(5))
    alike = train(Adam(0.1, global_clipnorm=0.5), parameters(), range(5))
    for a, b, dtype in zip(after, alike, mixed):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


# -- clipping: SGD with a rate of 1 shows the gradients that it was given


def seen(grads, **clipping):
    ps = [Parameter(here(np.zeros_like(g)), "w") for g in grads]
    SGD(1.0, **clipping).apply_gradients(zip(grads, ps))
    return [-p.numpy() for p in ps]


def test_clipnorm_limits_each_gradient():
    long, short = np.array([3.0, -4.0]), np.array([0.3, 0.4])
    a, b = seen([long, short], clipnorm=1.0)
    np.testing.assert_allclose(a, [0.6, -0.8], rtol=1e-12)
    np.testing.assert_array_equal(b, short)


def test_global_clipnorm_keeps_the_direction_of_all():
    a, b = seen([np.array([3.0, 0.0], np.float32), np.array([[-4.0]])], global_clipnorm=1.0)
    np.testing.assert_allclose(a, [0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(b, [[-0.8]], rtol=1e-12)
    a, b = seen([np.array([3.0]), np.array([4.0])], global_clipnorm=5.5)
    assert (a[0], b[0]) == (3, 4)


def test_clipvalue_limits_each_value():
    np.testing.assert_array_equal(seen([np.array([3.0, -4.0, 0.1])], clipvalue=0.5)[0], [0.5, -0.5, 0.1])


@pytest.mark.parametrize("how", ["clipnorm", "global_clipnorm"])
def test_huge_gradients_are_clipped_and_zero_ones_stay_zero(how):
    huge, zero = np.array([3e30, -4e30], np.float32), np.zeros(3, np.float32)
    np.testing.assert_allclose(seen([huge], **{how: 1.0})[0], [0.6, -0.8], rtol=1e-6)
    np.testing.assert_array_equal(seen([zero], **{how: 1.0})[0], 0)


@pytest.mark.parametrize("how", ["clipnorm", "global_clipnorm", "clipvalue"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_clipping_does_not_hide_nan(how, bad):
    (a,) = seen([np.array([bad, 1.0])], **{how: 1.0})
    assert not np.isfinite(a[0]) or (how == "clipvalue" and bad == np.inf)


# -- weight decay


def test_weight_decay_is_apart_from_the_gradients():
    ps = parameters()
    before = [p.numpy().copy() for p in ps]
    optimizer = AdamW(0.5, weight_decay=0.1)
    optimizer.apply_gradients([(np.zeros(p.shape), p) for p in ps])
    for p, b in zip(ps, before):
        np.testing.assert_allclose(p.numpy(), b * (1 - 0.5 * 0.1), rtol=1e-15)


def test_parameters_can_be_spared_from_weight_decay():
    ps = parameters()
    before = [p.numpy().copy() for p in ps]
    optimizer = SGD(0.5, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_list=[ps[1]], var_names=["bias"])
    optimizer.apply_gradients([(np.zeros(p.shape), p) for p in ps])
    assert [bool((p.numpy() == b).all()) for p, b in zip(ps, before)] == [False, True, True, True]  # the last is empty


# -- the learning rate


def test_a_schedule_is_read_at_each_step_and_a_number_replaces_it():
    optimizer = SGD(PiecewiseConstantDecay([0, 1], [1.0, 0.5, 0.25]))
    weight = Parameter(np.zeros(1), "w")
    moved = []
    for step in range(4):
        if step == 3:
            optimizer.learning_rate = 2
        before = weight.numpy()[0]
        assert optimizer.learning_rate == [1, 0.5, 0.25, 2][step]
        optimizer.apply_gradients([(np.ones(1), weight)])
        moved.append(before - weight.numpy()[0])
    assert moved == [1, 0.5, 0.25, 2]
    assert type(optimizer.learning_rate) is float


def test_a_function_gives_the_learning_rate():
    assert SGD(lambda: 0.25).learning_rate == 0.25


# -- what is kept


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("make", [lambda: SGD(0.1, 0.9), lambda: Adam(amsgrad=True), Nadam, Adagrad, SGD])
def test_training_goes_on_from_a_state_with_the_same_bits(make, built):
    ps, optimizer = parameters(), make()
    train(optimizer, ps, range(4))
    optimizer.learning_rate = 0.03
    state, values = optimizer.get_state(), [p.numpy().copy() for p in ps]
    expected = train(optimizer, ps, range(4, 7))

    others, other = parameters(), make()
    if built:
        train(other, others, [9])
    for p, v in zip(others, values):
        p.assign(v)
    other.set_state(state)
    assert other.iterations == 4
    assert other.get_state().keys() == state.keys()
    for a, b in zip(train(other, others, range(4, 7)), expected):
        np.testing.assert_array_equal(a, b)

    for p, v in zip(ps, values):
        p.assign(v)
    optimizer.set_state(state)  # back to where it was
    for a, b in zip(train(optimizer, ps, range(4, 7)), expected):
        np.testing.assert_array_equal(a, b)


def test_accumulated_gradients_and_means_of_values_go_on_from_a_state_too():
    def make():
        return SGD(0.1, gradient_accumulation_steps=3, use_ema=True, ema_momentum=0.5)

    ps, optimizer = parameters(), make()
    train(optimizer, ps, range(4))
    assert optimizer.iterations == 1
    others, other = parameters(), make()
    for p, v in zip(others, ps):
        p.assign(v)
    other.set_state(optimizer.get_state())
    train(other, others, range(4, 8)), train(optimizer, ps, range(4, 8))
    trained = [p.numpy().copy() for p in ps]
    other.finalize(), optimizer.finalize()
    for a, b in zip(ps, others):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert (ps[0].numpy() != trained[0]).all()


def test_values_wait_for_all_accumulated_gradients_and_take_their_mean():
    p = Parameter(np.zeros(2), "p")
    optimizer = SGD(1.0, gradient_accumulation_steps=2)
    optimizer.apply_gradients([(np.array([1.0, 2.0]), p)])
    np.testing.assert_array_equal(p.numpy(), [0, 0])
    optimizer.apply_gradients([(np.array([3.0, 6.0]), p)])
    np.testing.assert_array_equal(p.numpy(), [-2, -4])
    assert optimizer.iterations == 1


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("gradient_accumulation_steps", 1),
        ("ema_overwrite_frequency", 0),
        ("ema_momentum", 1.1),
        ("loss_scale_factor", 0),
    ],
)
def test_arguments_of_means_and_accumulation_out_of_range_are_named(argument, value):
    with pytest.raises(ValueError, match=f"SGD: {argument} must be"):
        SGD(use_ema=True, **{argument: value})


def test_a_state_holds_arrays_of_the_parameters_shapes():
    ps, optimizer = parameters(), Adam()
    train(optimizer, ps, range(2))
    state = optimizer.get_state()
    assert state["iterations"] == 2
    assert {k: v.shape for k, v in state.items() if k.endswith("velocity")} == {
        f"{i}/velocity": s for i, s in enumerate(SHAPES)
    }


def test_a_state_that_does_not_fit_changes_nothing():
    optimizer = Adam()
    train(optimizer, parameters(), range(2))
    state = optimizer.get_state()
    for bad in [
        {k: v for k, v in state.items() if k != "2/velocity"},
        {**state, "9/velocity": np.zeros(3)},
        {**state, "2/velocity": np.zeros(64)},
        {k: v for k, v in state.items() if k != "iterations"},
    ]:
        with pytest.raises(ValueError, match="Adam: "):
            optimizer.set_state({**bad, "0/momentum": np.full((3, 5), 7.0)})
    for key, value in optimizer.get_state().items():
        np.testing.assert_array_equal(value, state[key])


def test_a_state_that_does_not_fit_is_found_when_the_parameters_come():
    optimizer = Adam()
    optimizer.set_state(SGD().get_state())
    with pytest.raises(ValueError, match="the state has 0 slots, but these parameters need 8"):
        train(optimizer, parameters(), [0])


def test_momenta_stay_with_their_parameters_when_buffers_change():
    whole, moved = parameters(), parameters()
    steady, changing = Adam(0.1), Adam(0.1)
    train(steady, whole, range(3))
    train(changing, moved, range(3))
    changing.build(flatten(moved[::-1]))  # other buffers, in another order
    flats = flatten(moved)
    changing.build(flats)
    changing.build(list(flats))
    for a, b in zip(train(changing, moved, range(3, 6)), train(steady, whole, range(3, 6))):
        np.testing.assert_array_equal(a, b)


def test_freezing_one_parameter_keeps_the_momenta_of_the_others():
    ps, fewer = parameters(), parameters()
    steady, frozen = Adam(0.1), Adam(0.1)
    train(steady, ps, range(3))
    train(frozen, fewer, range(3))
    grads = gradients(3)
    steady.apply_gradients(zip(grads, ps))
    frozen.apply_gradients(list(zip(grads, fewer))[2:])
    np.testing.assert_array_equal(fewer[2].numpy(), ps[2].numpy())


def test_another_models_parameters_are_refused():
    optimizer = Adam()
    train(optimizer, parameters(), [0])
    with pytest.raises(ValueError, match=r"Adam: has trained layer/kernel .* new one"):
        train(optimizer, parameters(), [0])


@pytest.mark.parametrize("optimizer", [Adam(0.01, clipnorm=1), SGD(ExponentialDecay(0.1, 5, 0.9), 0.9, True)])
def test_an_optimizer_is_described_as_json_and_built_again(optimizer):
    again = deserialize(json.loads(json.dumps(serialize(optimizer))))
    assert type(again) is type(optimizer)
    for a, b in zip(train(again, parameters(), range(3)), train(optimizer, parameters(), range(3))):
        np.testing.assert_array_equal(a, b)


def test_the_description_holds_the_learning_rate_of_now():
    optimizer = SGD(ExponentialDecay(0.1, 5, 0.9))
    optimizer.learning_rate = 0.5
    assert deserialize(serialize(optimizer)).learning_rate == 0.5


# -- hand-written loops, and nonsense


def test_a_missing_gradient_counts_as_zero():
    ps = parameters()
    before = ps[0].numpy().copy()
    SGD(1.0).apply_gradients([(None, ps[0]), (Tensor(np.ones(())), ps[1])])
    np.testing.assert_array_equal(ps[0].numpy(), before)


def test_parameters_that_moved_to_another_buffer_are_still_trained():
    ps, optimizer = parameters(), SGD(1.0)
    train(optimizer, ps, [0])
    flatten(ps)
    before = ps[1].numpy().copy()
    train(optimizer, ps, [1])
    np.testing.assert_allclose(ps[1].numpy(), before - gradients(1)[1], rtol=1e-14)


def weight():
    return Parameter(here(np.zeros(3), np.float32), "kernel", "dense/kernel")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Adam(-0.1), "Adam: learning_rate must be a number of at least 0.* got -0.1"),
        (lambda: Adam(float("nan")), "learning_rate .* got nan"),
        (lambda: Adam("0.1"), "learning_rate .* got '0.1'"),
        (lambda: Adam(None), "learning_rate .* got None"),
        (lambda: Adam(clipnorm=1.0, global_clipnorm=1.0), "only one of clipnorm, clipvalue and global_clipnorm"),
        (lambda: Adam(clipvalue=0), "clipvalue must be positive, got 0"),
        (lambda: Adam(weight_decay=-1), "weight_decay must be at least 0, got -1"),
        (lambda: AdamW(weight_decay=None), "AdamW: weight_decay"),
        (lambda: Adam(beta_1=1.0), r"beta_1 must be in \[0, 1\), got 1.0"),
        (lambda: Adam(epsilon=0), "epsilon must be positive"),
        (lambda: SGD(momentum=1.5), r"momentum must be in \[0, 1\]"),
        (lambda: Adagrad(initial_accumulator_value=-1), "initial_accumulator_value"),
        (lambda: SGD().apply_gradients([(None, weight())]), "no gradients"),
        (lambda: SGD().apply_gradients([]), "no gradients"),
        (lambda: SGD().apply_gradients([(np.zeros(2), weight())]), r"shape \(3,\) for dense/kernel, got \(2,\)"),
        (lambda: SGD().apply_gradients([(np.zeros(3), w := weight()), (np.zeros(3), w)]), "occurs twice"),
        (lambda: optimizers.get("addam"), "Did you mean 'adam'"),
    ],
)
def test_nonsense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("name", "expected"), [("adam", Adam), ("RMSprop", RMSprop), ("rmsprop", RMSprop), ("AdamW", AdamW), ("SGD", SGD)]
)
def test_optimizers_go_by_keras_names(name, expected):
    assert type(optimizers.get(name)) is expected


def test_an_optimizer_of_ones_own():
    class SignDescent(Optimizer):
        def update(self, values, gradients, slots, scalars):
            values -= scalars[0] * np.sign(gradients)

    w = weight()
    optimizers.get("sign_descent").apply_gradients([(np.array([1, -5, 0], np.float32), w)])
    np.testing.assert_allclose(w.numpy(), [-0.001, 0.001, 0])
    assert w.dtype == np.float32


def test_an_optimizer_of_ones_own_counts_its_steps_and_is_decayed():
    class Slower(Optimizer):
        "values -= learning_rate / t * gradients"

        def scalars(self, step):
            return (step,)

        def update(self, values, gradients, slots, scalars):
            scalars[1] += 1
            values -= scalars[0] / scalars[1] * gradients

    ps, optimizer = parameters(), Slower(0.1, weight_decay=0.5)
    expected = [p.numpy().copy() for p in ps]
    for step in range(4):
        if step == 3:
            optimizer.set_state(optimizer.get_state())
        train(optimizer, ps, [step])
        expected = [e * 0.95 - 0.1 / (step + 1) * g for e, g in zip(expected, gradients(step))]
    for p, e in zip(ps, expected):
        np.testing.assert_allclose(p.numpy(), e, rtol=1e-13, atol=1e-13)


def test_weight_decay_is_done_where_a_subclass_replaces_an_update_that_did_it():
    class Still(AdamW):
        def update(self, values, gradients, slots, scalars):
            pass

    class Twice(AdamW):
        def update(self, values, gradients, slots, scalars):
            super().update(values, gradients, slots, scalars)
            super().update(values, gradients, slots, scalars)

    for cls in Still, Twice:
        w = Parameter(np.ones(3), "w")
        cls(0.5, weight_decay=0.1).apply_gradients([(np.zeros(3), w)])
        np.testing.assert_allclose(w.numpy(), 0.95, rtol=1e-15)


class Watched(np.ndarray):
    """An array that counts how often it is written to."""

    writes = 0

    def __setitem__(self, key, value):
        self.writes += 1
        super().__setitem__(key, value)


def test_the_device_hears_of_the_learning_rate_only_when_it_changes():
    with dlgpu.device("cpu"):  # a view that counts its writes is NumPy's
        optimizer, w = SGD(PiecewiseConstantDecay([3], [1.0, 0.5])), weight()
    optimizer.apply_gradients([(np.ones(3), w)])
    (kept,) = optimizer.kept
    kept.scalars = watched = kept.scalars.view(Watched)
    heard = []
    for step in range(7):
        if step == 5:
            optimizer.learning_rate = 0.25
        optimizer.apply_gradients([(np.ones(3), w)])
        heard.append((watched.writes, float(watched[0])))
    assert heard == [(0, 1), (0, 1), (0, 1), (1, 0.5), (1, 0.5), (2, 0.25), (2, 0.25)]


def test_a_state_is_restored_into_the_same_arrays():
    ps, optimizer = parameters(), Nadam()
    train(optimizer, ps, range(2))
    (kept,) = optimizer.kept
    before = [kept.scalars, *kept.slots.values()]
    state = optimizer.get_state()
    train(optimizer, ps, [2])
    optimizer.set_state(state)
    assert all(a is b for a, b in zip(before, [kept.scalars, *kept.slots.values()]))
    assert optimizer.kept == [kept]
    product = 0.9**2 * (1 - 0.96 / 2) * (1 - 0.96**2 / 2)
    np.testing.assert_allclose(to_host(kept.scalars)[1:], [2, product, 0], rtol=1e-15)
