"""Several steps by one launch give the bits of single ones, and what the host has to do between them is done."""

import functools
import signal

import numpy as np
import pytest

import dlgpu
from dlgpu import layers, schedules
from dlgpu.backend.cuda import graph, resident
from dlgpu.training import groups, replay
from dlgpu.training.replay import Replay
from tests.cuda.captured import PROGRAMS, RNG, X, Y, assert_same_bits, dense_model, fit, program, program_data


@pytest.fixture
def soon(monkeypatch):
    """Several steps are done at once as early as that is possible, however long they take."""
    monkeypatch.setattr(replay, "MANY", 2)
    monkeypatch.setattr(groups, "LOOK", 1e9)


@pytest.fixture
def ctrl_c():
    """Ctrl-C is Python's, also where the tests' parent ignores it, as in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def counts(model):
    """For each layout of a batch: how many steps its graphs do, of those that passed their trial."""
    replays = [found for found in model._step.replays._known.values() if type(found) is Replay]
    return [[1, *(count for (count, *_), graph in found.groups._graphs.items() if graph)] for found in replays]


@pytest.mark.parametrize("shuffle", [True, False])
def test_several_steps_by_one_launch_give_the_bits_of_single_ones(shuffle, soon):
    weights = RNG.uniform(0, 2, 70).astype(np.float32)

    def train(model):
        found = fit(model, batch_size=3, epochs=4, shuffle=shuffle, sample_weight=weights)
        model.optimizer.learning_rate = 0.02
        return found, fit(model, batch_size=3, epochs=2, sample_weight=weights)

    model = assert_same_bits(lambda **c: dense_model(layers.Dropout(0.3), layers.GaussianNoise(0.1), **c), train)
    assert counts(model) == [[1, 11], [1]]  # twice 11 full batches, and a last one of one sample
    assert model.optimizer.iterations == 6 * 24


def test_an_epoch_of_some_steps_goes_on_where_the_last_one_ended(soon):
    model = assert_same_bits(dense_model, lambda m: fit(m, batch_size=8, steps_per_epoch=5, epochs=8))
    assert counts(model) == [[1, 5], [1]]


def test_an_order_that_is_drawn_within_an_epoch_is_drawn_after_the_steps_before_it(soon):
    def train(model):
        return fit(model, batch_size=5, steps_per_epoch=21, epochs=6)  # a pass has 14

    model = assert_same_bits(lambda **c: dense_model(layers.Dropout(0.3), **c), train)
    assert max(counts(model)[0]) > 1


def test_gradient_clipping_and_a_loss_scale_go_on_within_one_launch(soon):
    def make(**compiled):
        inner = dlgpu.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=0.5)
        optimizer = dlgpu.optimizers.LossScaleOptimizer(inner, 2.0**120, dynamic_growth_steps=3)  # overflows first
        return dense_model(optimizer=optimizer, **compiled)

    assert counts(assert_same_bits(make, lambda m: fit(m, batch_size=10, epochs=5))) == [[1, 7]]


DECAY = schedules.ExponentialDecay(0.01, 3, 0.9)


@pytest.mark.parametrize("name", PROGRAMS)
def test_fifty_steps_of_each_program_in_a_few_launches(name, soon):
    model = assert_same_bits(functools.partial(program, name), lambda m: fit(m, *program_data(name), 10, batch_size=4))
    assert counts(model) == [[1, 5]]
    assert model.optimizer.iterations == 50


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (lambda: dlgpu.optimizers.AdamW(schedules.CosineDecayRestarts(0.01, 7, 1.0), 0.1), [[1, 7]]),
        (lambda: dlgpu.optimizers.SGD(DECAY, momentum=0.9, use_ema=True, ema_momentum=0.5), [[1, 7]]),
        (lambda: dlgpu.optimizers.Adam(gradient_accumulation_steps=2), [[1], [1, 6]]),
        (lambda: dlgpu.optimizers.RMSprop(DECAY, gradient_accumulation_steps=3, global_clipnorm=0.1), [[1], [1, 6]]),
        (lambda: dlgpu.optimizers.SGD(0.1, use_ema=True, ema_overwrite_frequency=3), [[1], [1, 6]]),
        (lambda: dlgpu.optimizers.LossScaleOptimizer(dlgpu.optimizers.SGD(DECAY), 2.0**120, 3), [[1, 7]]),
    ],
    ids=["restarts", "mean", "accumulation", "accumulation and schedule", "overwriting", "loss scale"],
)
def test_what_the_host_knows_before_does_not_part_steps(optimizer, expected, soon):
    def train(model):
        found = fit(model, batch_size=10, epochs=9), model.optimizer.learning_rate, model.optimizer.get_state()
        return [*found[:2], {key: value.tolist() for key, value in found[2].items()}]

    def make(**compiled):
        return dense_model(layers.Dropout(0.3), optimizer=optimizer(), **compiled)

    assert sorted(counts(assert_same_bits(make, train))) == expected


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"gradient_accumulation_steps": 30}, [15, 15]),
        ({"use_ema": True, "ema_overwrite_frequency": 40}, [10, 15]),
        ({"use_ema": True, "gradient_accumulation_steps": 5, "ema_overwrite_frequency": 7}, [5, 15]),
    ],
)
def test_a_long_cycle_has_few_graphs(more, expected, soon):
    x, y = np.repeat(X, 3, axis=0), np.repeat(Y, 3, axis=0)

    def make(**compiled):
        return dense_model(optimizer=dlgpu.optimizers.SGD(DECAY, **more), **compiled)

    model = assert_same_bits(make, lambda m: fit(m, x, y, batch_size=2, epochs=4))  # 105 steps each
    assert sorted(count for found in counts(model) for count in found[1:]) == expected


def test_groups_begin_where_a_cycle_does_and_end_no_later():
    def of(done, most=48, **more):
        found, optimizer = groups.Groups(None, 16), dlgpu.optimizers.SGD(**more)
        found.seconds = 1e-6
        optimizer.count(done)
        return found.size(optimizer, most)

    assert [of(n, gradient_accumulation_steps=5) for n in range(6)] == [15, 1, 1, 1, 1, 15]
    assert [of(n, use_ema=True) for n in range(3)] == [16, 16, 16]
    assert [of(n, use_ema=True, ema_overwrite_frequency=40) for n in (0, 1, 16, 32, 33, 40)] == [16, 1, 16, 8, 1, 16]
    assert of(0, gradient_accumulation_steps=5, use_ema=True, ema_overwrite_frequency=7) == 15
    assert of(30, gradient_accumulation_steps=5, use_ema=True, ema_overwrite_frequency=7) == 5
    assert of(0, 3, gradient_accumulation_steps=5) == 3


def test_parameters_of_two_dtypes_have_one_schedule(soon):
    def make(**compiled):
        return dense_model(layers.Dense(3, dtype="float64"), optimizer=dlgpu.optimizers.Adam(DECAY), **compiled)

    model = assert_same_bits(make, lambda m: fit(m, batch_size=10))
    assert counts(model) == [[1, 7]]
    assert len(model.optimizer.kept) == 2


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda asked: dlgpu.optimizers.Adam(lambda: asked.append(1) or 0.1 / len(asked)),
        lambda asked: dlgpu.optimizers.LossScaleOptimizer(dlgpu.optimizers.Adam(gradient_accumulation_steps=2)),
        lambda asked: dlgpu.optimizers.LossScaleOptimizer(dlgpu.optimizers.Adam(use_ema=True)),
    ],
    ids=["function", "accumulation by finite steps", "mean of finite steps"],
)
def test_steps_before_which_the_host_must_be_asked_are_launched_one_by_one(optimizer, soon):
    asked = [], []

    def make(run_eagerly):
        return dense_model(optimizer=optimizer(asked[run_eagerly]), run_eagerly=run_eagerly)

    model = assert_same_bits(make, lambda m: fit(m, batch_size=10))
    assert all(found == [1] for found in counts(model))
    assert len(asked[0]) == len(asked[1])


def test_learning_rates_that_change_between_epochs_are_those_of_the_steps(soon):
    def train(model):
        plateau = dlgpu.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.5, patience=1, min_delta=1.0)
        found = [fit(model, batch_size=10, epochs=6, callbacks=plateau)]
        by_epoch = dlgpu.callbacks.LearningRateScheduler(lambda epoch, rate: 0.01 / (epoch + 1))
        found.append(fit(model, batch_size=10, callbacks=by_epoch))
        for rate in (schedules.PiecewiseConstantDecay([80], [0.1, 0.01]), 0.002, DECAY):
            model.optimizer.learning_rate = rate
            found.append((fit(model, batch_size=10, epochs=2), model.optimizer.learning_rate))
        return found

    model = assert_same_bits(lambda **c: dense_model(layers.Dropout(0.2), **c), train)
    assert counts(model) == [[1, 7]]


def test_an_optimizer_that_is_saved_and_loaded_goes_on_at_its_step(soon):
    def train(model):
        found = [fit(model, batch_size=10)]
        state, weights = model.optimizer.get_state(), model.get_weights()
        for _ in range(2):
            found.append(fit(model, batch_size=10, epochs=3, shuffle=False))
            model.optimizer.set_state(state)
            model.set_weights(weights)
        assert found[-1] == found[-2]
        return found

    def make(**compiled):
        rate = schedules.CosineDecay(0.001, 50, warmup_target=0.02, warmup_steps=30)
        optimizer = dlgpu.optimizers.Adam(rate, gradient_accumulation_steps=2, use_ema=True)
        return dense_model(optimizer=optimizer, **compiled)

    assert any(len(found) > 1 for found in counts(assert_same_bits(make, train)))


def test_a_schedule_that_fails_ends_training_at_its_step(soon):
    class Failing(schedules.Schedule):
        def __call__(self, step):
            if step == 38:
                raise ValueError("the schedule fails")
            return 0.1 / (step + 1)

    def train(model):
        with pytest.raises(ValueError, match="the schedule fails"):
            fit(model, batch_size=10, epochs=9)
        return model.optimizer.iterations

    model = assert_same_bits(lambda **c: dense_model(optimizer=dlgpu.optimizers.Adam(Failing()), **c), train)
    assert counts(model) == [[1, 7]]
    assert model.optimizer.iterations == 38


@pytest.mark.parametrize("after", [True, False])
def test_after_several_steps_that_were_interrupted_come_the_right_learning_rates(after, soon):
    def make(**compiled):
        return dense_model(layers.Dropout(0.3), optimizer=dlgpu.optimizers.SGD(DECAY), **compiled)

    model, other = make(), make(run_eagerly=True)
    for each in (model, other):
        fit(each, batch_size=10)
    (found,) = model._step.replays._known.values()
    ((phases, whole),) = found.groups._graphs.items()

    class Interrupted:
        def launch(self):
            if after:
                whole.launch()
            raise KeyboardInterrupt

    found.groups._graphs[phases] = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        fit(model, batch_size=10)
    found.groups._graphs[phases] = whole
    assert model.optimizer.iterations == other.optimizer.iterations
    other.set_weights(model.get_weights())
    state, results = dlgpu.ops.random.default_generator().state, []
    for each in (model, other):
        dlgpu.ops.random.default_generator().state = state
        results.append(fit(each, batch_size=10, steps_per_epoch=9))
    assert results[0] == results[1]
    assert [w.tobytes() for w in model.get_weights()] == [w.tobytes() for w in other.get_weights()]


def test_data_that_are_sent_are_launched_one_by_one(soon, monkeypatch):
    monkeypatch.setattr(resident, "SHARE", 0)
    assert counts(assert_same_bits(dense_model, lambda m: fit(m, batch_size=10))) == [[1]]


def test_a_callback_that_looks_at_every_batch_sees_every_batch_and_is_named_once(soon):
    class Watch(dlgpu.callbacks.Callback):
        def __init__(self):
            self.seen = []

        def on_train_batch_end(self, batch, logs=None):
            self.seen.append((batch, logs["loss"]))

    def train(model):
        watch = Watch()
        return fit(model, batch_size=10, callbacks=watch), watch.seen

    with pytest.warns(UserWarning, match="one by one, which is slower: Watch looks at every batch") as caught:
        assert counts(assert_same_bits(dense_model, train)) == [[1]]
    assert len(caught) == 1


def test_the_progress_bar_counts_all_steps(soon, capfd):
    dense_model().fit(X, Y, batch_size=3, epochs=5)
    assert " 120/120 " in capfd.readouterr().err.replace("\r", "\n").strip().splitlines()[-1]


def test_an_interrupt_ends_the_run_after_whole_steps(soon, ctrl_c):
    model = dense_model()
    fit(model, batch_size=10)
    done, launch = model.optimizer.iterations, graph.Captured._launch

    def interrupted(*args):
        signal.raise_signal(signal.SIGINT)
        return launch(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph.Captured, "_launch", interrupted)
        history = model.fit(X, Y, batch_size=10, verbose=0)
    assert history.interrupted
    assert model.optimizer.iterations == done + 7


def test_a_trial_of_several_steps_that_is_interrupted_leaves_the_model_as_it_was(soon, monkeypatch):
    model, states, launch = dense_model(layers.Dropout(0.3)), [], graph.Captured._launch

    def now():
        return model.get_weights(), model.optimizer.get_state()

    def interrupted(self, graph, count):
        states.append(now())
        launch(self, graph, count)
        if count > 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(graph.Captured, "_launch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(model, batch_size=10)
    weights, state = states[-1]
    assert all(map(np.array_equal, model.get_weights(), weights))
    assert int(state["iterations"]) - 7 == model.optimizer.iterations  # they were counted then


def test_several_steps_that_do_not_give_the_same_bits_are_not_done_at_once(soon, monkeypatch):
    gather = graph.Captured._gather
    monkeypatch.setattr(graph.Captured, "_gather", lambda self: None if self.graph else gather(self))
    model = assert_same_bits(dense_model, lambda m: fit(m, batch_size=10))
    (found,) = model._step.replays._known.values()
    assert [(count, graph) for (count, *_), graph in found.groups._graphs.items()] == [(7, None)]


def test_steps_are_as_many_as_are_done_before_the_host_looks():
    found, optimizer = groups.Groups(None, 16), dlgpu.optimizers.SGD()
    assert found.size(optimizer, 100) == 1  # it is not known yet how long they take
    for seconds, count in ((1e-6, 14), (groups.LOOK / 10, 10), (groups.LOOK / 1.5, 1), (1.0, 1)):
        found.seconds = seconds
        assert found.size(optimizer, 100) == count
