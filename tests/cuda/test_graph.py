"""A captured step gives the bits of one that runs as written, waits for nothing, and is captured anew where it must."""

import copy
import functools
import signal
import warnings
from queue import SimpleQueue

import numpy as np
import pytest

import dlgpu
from dlgpu import layers, schedules
from dlgpu.backend.cuda import graph, persistence, recurrent, resident
from dlgpu.training import groups, replay
from dlgpu.training.replay import Replay
from tests.training.changes import change_dropout, change_rate, change_weights, freeze

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((70, 6), np.float32), RNG.integers(0, 2, (70, 1)).astype(np.float32)


def model_of(*network, optimizer="adam", loss="binary_crossentropy", **compiled):
    model = dlgpu.Sequential(list(network))
    model.compile(optimizer=optimizer, loss=loss, metrics=["mae"], **compiled)
    return model


def dense_model(*more, **compiled):
    return model_of(layers.Dense(5, activation="relu"), *more, layers.Dense(1, activation="sigmoid"), **compiled)


def fit(model, x=X, y=Y, epochs=4, **more):
    return model.fit(x, y, epochs=epochs, verbose=0, **more).history


def captured(model):
    """For each layout of a batch: whether its step is captured."""
    return [type(found) is Replay and found.tried for found in model._step.replays._known.values()]


def assert_same_bits(make, train=fit):
    """Train with steps captured and as written; returns the model of which steps were captured."""
    found = []
    for eagerly in (False, True):
        dlgpu.set_random_seed(1)
        model = make(run_eagerly=eagerly)
        result = train(model)
        found.append((result, [w.numpy() for w in model.weights], dlgpu.ops.random.default_generator().state, model))
    (result, weights, state, model), (written, expected, written_state, _) = found
    assert result == written
    assert state == written_state
    for w, e in zip(weights, expected):
        assert w.tobytes() == e.tobytes()
    return model


def told(caught):
    return [str(w.message) for w in caught if "cannot be captured" in str(w.message)]


PROGRAMS = {
    "fnn": ((20,), lambda: [layers.Dense(8, activation="relu"), layers.Dropout(0.3), layers.Dense(1, "sigmoid")]),
    "cnn": (
        (8, 8, 3),
        lambda: [
            layers.Conv2D(4, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(6, activation="relu"),
            layers.Dense(1, activation="sigmoid"),
        ],
    ),
    "rnn": ((5, 3), lambda: [layers.SimpleRNN(6, dropout=0.2), layers.Dropout(0.3), layers.Dense(1, "sigmoid")]),
    "lstm": ((5, 3), lambda: [layers.LSTM(6), layers.Dropout(0.3), layers.Dense(1)]),
}


def program(name, **compiled):
    optimizer = dlgpu.optimizers.Adam(schedules.ExponentialDecay(0.01, 3, 0.9), global_clipnorm=1.0)
    loss = "mse" if name == "lstm" else "binary_crossentropy"
    return model_of(*PROGRAMS[name][1](), optimizer=optimizer, loss=loss, **compiled)


def program_data(name):
    shape = PROGRAMS[name][0]
    rng = np.random.default_rng(1)
    return rng.standard_normal((20, *shape), np.float32), rng.integers(0, 2, (20, 1)).astype(np.float32)


@pytest.mark.parametrize("name", PROGRAMS)
def test_fifty_steps_of_each_program_with_dropout_and_a_schedule(name):
    model = assert_same_bits(functools.partial(program, name), lambda m: fit(m, *program_data(name), 10, batch_size=4))
    assert captured(model) == [True]
    assert model.optimizer.iterations == 50


def change_seed(model):
    dlgpu.set_random_seed(5)


def replace_a_frozen_weight(model):
    model.layers[0].trainable = False
    fit(model)
    model.layers[0].kernel.array = model.layers[0].kernel.array * 2


def go_to_the_host_and_back(model):
    model.to("cpu")
    model.to("cuda")


@pytest.mark.parametrize(
    "how",
    [
        change_weights,
        change_rate,
        freeze,
        change_dropout,
        change_seed,
        replace_a_frozen_weight,
        go_to_the_host_and_back,
    ],
)
def test_what_changes_between_epochs_is_honoured(how):
    def train(model):
        first = fit(model)
        how(model)
        return first, fit(model), fit(model, batch_size=10)

    model = assert_same_bits(lambda **c: dense_model(layers.Dropout(0.2), **c), train)
    assert all(captured(model))


def test_a_callback_may_change_the_learning_rate_and_read_the_loss_at_every_step():
    class Change(dlgpu.callbacks.Callback):
        def __init__(self):
            self.seen = []

        def on_train_batch_end(self, batch, logs=None):
            self.seen.append(logs["loss"])
            self.model.optimizer.learning_rate = 0.001 * (batch + 1)

        def on_epoch_end(self, epoch, logs=None):
            self.model.layers[1].trainable = bool(epoch % 2)

    def train(model):
        change = Change()
        return fit(model, epochs=6, callbacks=[change]), change.seen

    assert_same_bits(lambda **c: dense_model(layers.Dense(4), **c), train)


def test_the_states_of_a_stateful_layer_go_on_from_batch_to_batch():
    x, y = RNG.standard_normal((24, 5, 3), np.float32), RNG.standard_normal((24, 1), np.float32)

    def make(**compiled):
        return model_of(layers.GRU(4, stateful=True), layers.Dense(1), loss="mse", **compiled)

    def train(model):
        found = fit(model, x, y, batch_size=8)
        model.layers[0].reset_state()
        return found, fit(model, x, y, batch_size=8)

    assert captured(assert_same_bits(make, train)) == [True]


@pytest.mark.parametrize("blocks", [((64, 8, 4),), ()])
@pytest.mark.parametrize(
    "layer",
    [layers.SimpleRNN, layers.LSTM, layers.GRU, functools.partial(layers.GRU, reset_after=False)],
    ids=["simple", "lstm", "gru", "gru before"],
)
def test_recurrent_layers_beyond_one_block_are_captured(layer, blocks, monkeypatch):
    """With 64 threads in a block some share the units; where no block holds weights each step is a product."""
    monkeypatch.setattr(persistence, "BLOCKS", {4: blocks})
    persistence.layout.cache_clear()
    x, y = RNG.standard_normal((24, 5, 3), np.float32), RNG.standard_normal((24, 1), np.float32)

    def make(**compiled):
        return model_of(layer(20), layers.Dense(1), loss="mse", **compiled)

    model = assert_same_bits(make, lambda m: fit(m, x, y, batch_size=8))
    persistence.layout.cache_clear()
    assert captured(model) == [True]


@pytest.mark.parametrize("layer", [layers.LSTM, layers.GRU])
def test_recurrent_layers_on_tensor_cores_are_captured(layer, monkeypatch):
    monkeypatch.setattr(persistence, "LARGE", 0)
    monkeypatch.setattr(persistence, "FEWEST", 1)
    monkeypatch.setattr(recurrent, "layout", None)  # the other ways ask for it
    x, y = RNG.standard_normal((24, 5, 3), np.float32), RNG.standard_normal((24, 1), np.float32)

    def make(**compiled):
        return model_of(layer(10), layers.Dense(1), loss="mse", **compiled)

    dlgpu.allow_tf32()
    try:
        model = assert_same_bits(make, lambda m: fit(m, x, y, batch_size=8))
    finally:
        dlgpu.allow_tf32(False)
    assert captured(model) == [True]


def test_a_histogram_is_counted_within_the_graph():
    def make(**compiled):
        model = dlgpu.Sequential([layers.Dense(1, activation="sigmoid")])
        model.compile("adam", "binary_crossentropy", metrics=["AUC", "Precision"], **compiled)
        return model

    assert captured(assert_same_bits(make)) == [True, True]


def test_the_optimizers_phases_have_graphs_of_their_own():
    def make(**compiled):
        return dense_model(optimizer=dlgpu.optimizers.Adam(gradient_accumulation_steps=3, use_ema=True), **compiled)

    assert captured(assert_same_bits(make, lambda m: fit(m, X[:64], Y[:64], epochs=9))) == [False, False, True, True]
    # the phases in which the running means begin, with an update and without one, do not last long enough


def test_generators_of_random_numbers_go_on_as_they_would():
    class Own(layers.Layer):
        def build(self, input_shape):
            self.noise = layers.GaussianNoise(0.1, seed=3)

        def call(self, inputs, training=False):
            return self.noise(inputs, training=training)

    def train(model):
        found = fit(model, batch_size=14), dlgpu.ops.random.default_generator().uniform(3).tolist()
        found = *found, fit(model, batch_size=14)
        # a shuffle takes 35 blocks and a step 36: the low half overflows between the draws of the second step
        dlgpu.ops.random.default_generator().state = 7, 2**64 - 35 - 50
        return (
            *found,
            fit(model, batch_size=14, epochs=1),
            dlgpu.ops.random.default_generator().state,
            fit(model, batch_size=14),
        )

    model = assert_same_bits(lambda **c: dense_model(Own(), layers.Dropout(0.5), layers.Dropout(0.5), **c), train)
    assert all(captured(model))


def test_blocks_that_are_computed_again_are_captured():
    def make(**compiled):
        inner = [layers.Dense(6, "gelu"), layers.BatchNormalization(), layers.Dropout(0.4), layers.Dense(6, "tanh")]
        return dense_model(dlgpu.checkpointed(dlgpu.Sequential(inner)), layers.GaussianNoise(0.1), **compiled)

    model = assert_same_bits(make)
    assert all(captured(model))


# -- where batches come from


def test_data_that_are_too_large_to_stay_on_the_device_are_sent(monkeypatch):
    monkeypatch.setattr(resident, "SHARE", 0)
    model = assert_same_bits(lambda **c: dense_model(layers.Dropout(0.2), **c))
    assert captured(model) == [True, True]
    assert not model._step.replays.repeater.resident.fits


def test_a_graph_takes_any_data_of_its_layout(cupy):
    weights = RNG.uniform(0, 2, 70).astype(np.float32)
    doubles, there = X.astype(np.float64) * 3, cupy.asarray(X[::-1].copy())

    def train(model):
        found = [fit(model, shuffle=shuffle) for shuffle in (True, False, True)]
        found += [fit(model, X * 2, Y, epochs=2), fit(model, there, cupy.asarray(Y)), fit(model, X[:50], Y[:50])]
        found.append(model.fit(((X[i : i + 32], Y[i : i + 32]) for i in range(9)), verbose=0).history)
        found.append(model.fit(((there[i : i + 32], Y[i : i + 32]) for i in range(9)), verbose=0).history)
        found += [model.train_on_batch(X[:32], Y[:32]) for _ in range(4)]
        return [*found, fit(model, doubles), fit(model, sample_weight=weights)]

    assert all(captured(assert_same_bits(dense_model, train)))


@pytest.mark.parametrize("shuffle", [True, False])
def test_what_changes_in_the_data_between_runs_is_honoured(shuffle):
    def train(model):
        x = X.copy()
        data = dlgpu.data.ArrayData(x, Y, batch_size=16)
        first = fit(model, data, None, shuffle=shuffle)
        x[:] = -x
        return first, fit(model, data, None, shuffle=shuffle)

    assert captured(assert_same_bits(dense_model, train)) == [True, True]


def test_dictionaries_integers_and_odd_widths_are_gathered():
    def make(**compiled):
        a, b = layers.Input((3,), name="a"), layers.Input((5,), dtype="uint8", name="b")
        joined = layers.Concatenate()([layers.Dense(3, "tanh")(a), layers.Flatten()(layers.Embedding(9, 2)(b))])
        model = dlgpu.Model([a, b], [layers.Dense(2, "softmax", name="c")(joined), layers.Dense(1, name="d")(joined)])
        model.compile("rmsprop", loss={"c": "sparse_categorical_crossentropy", "d": "mse"}, **compiled)
        return model

    x = {"b": RNG.integers(0, 9, (40, 5)).astype(np.uint8), "a": RNG.standard_normal((40, 3), np.float32)}
    y = {"d": RNG.standard_normal((40, 1), np.float32), "c": RNG.integers(0, 2, 40).astype(np.int16)}
    assert captured(assert_same_bits(make, lambda m: fit(m, x, y, batch_size=8))) == [True]


def test_an_embedding_of_many_indices_is_captured():
    x, y = RNG.integers(0, 50, (8, 9000)), RNG.standard_normal((8, 1), np.float32)

    def make(**compiled):
        network = layers.Embedding(50, 2), layers.GlobalAveragePooling1D(), layers.Dense(1)
        return model_of(*network, loss="mse", **compiled)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert captured(assert_same_bits(make, lambda m: fit(m, x, y, batch_size=2, epochs=2))) == [True]


# -- several steps by one launch


@pytest.fixture
def soon(monkeypatch):
    """Several steps are done at once as early as that is possible, however long they take."""
    monkeypatch.setattr(replay, "MANY", 2)
    monkeypatch.setattr(groups, "LOOK", 1e9)


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


def test_an_interrupt_ends_the_run_after_whole_steps(soon):
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


@pytest.mark.parametrize("after", [True, False])
def test_after_a_launch_that_was_interrupted_come_the_right_batches_and_random_numbers(after, monkeypatch):
    def make(**compiled):
        return dense_model(layers.Dropout(0.3), optimizer="sgd", **compiled)

    model, other = make(), make(run_eagerly=True)
    for each in (model, other):
        fit(each, batch_size=10, shuffle=False)
    (found,) = model._step.replays._known.values()
    graph_of_one = found.recording.graph

    class Interrupted:
        def launch(self):
            if after:
                graph_of_one.launch()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(found.recording, "graph", Interrupted())
        with pytest.raises(KeyboardInterrupt):
            fit(model, batch_size=10, shuffle=False)
    other.set_weights(model.get_weights())
    state, results = dlgpu.ops.random.default_generator().state, []
    for each in (model, other):
        dlgpu.ops.random.default_generator().state = state
        results.append(fit(each, batch_size=10, shuffle=False))
    assert results[0] == results[1]


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


# -- what cannot be captured


class Reading(layers.Layer):
    def call(self, inputs):
        return inputs * 0.5 if float(dlgpu.ops.sum(inputs)) > 20 else inputs


class Copying(layers.Layer):
    def call(self, inputs):
        return inputs * dlgpu.Tensor(np.linspace(0, 1, inputs.shape[-1], dtype=np.float32), device="cuda")


class Shrinking(layers.Layer):
    def call(self, inputs):
        z = inputs.array
        return inputs + z[z > 0].sum()


class Counting(layers.Layer):
    steps = 0

    def call(self, inputs):
        self.steps += 1
        return inputs * (1 / self.steps)


class Hidden(layers.Layer):
    def build(self, input_shape):
        self.calls = SimpleQueue()  # of which no look at settings knows the length

    def call(self, inputs):
        self.calls.put(None)
        return inputs * (1 / self.calls.qsize())


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (Reading, "RuntimeError"),
        (Copying, "copies values from the host"),
        (Shrinking, "RuntimeError"),
        (Counting, "changes while it runs"),
        (Hidden, "does not do the same each time"),
    ],
)
def test_what_cannot_be_captured_runs_as_written_and_says_so_once(layer, why):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        def make(run_eagerly):
            if run_eagerly:
                assert len(told(caught)) == 1
            return dense_model(layers.Dropout(0.3), layer(), run_eagerly=run_eagerly)

        model = assert_same_bits(make)
    assert not any(captured(model))
    assert len(told(caught)) == 1
    assert why in told(caught)[0]


def test_a_train_step_of_ones_own_that_does_all_itself_says_so_once():
    class Own(dlgpu.Sequential):
        def train_step(self, data):
            x, y, _ = data

            def loss_of(_):
                return dlgpu.losses.mean_squared_error(dlgpu.Tensor(y, device="cuda"), self(x, training=True)).mean()

            loss, gradients = dlgpu.value_and_grad(loss_of)(self.trainable_weights)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_weights))
            return {"loss": loss.numpy()}

    model = Own([layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="cannot be captured.*own train_step does not call that of") as caught:
        [fit(model) for _ in range(2)]
    assert len(caught) == 1


def test_a_train_step_of_ones_own_may_read_what_the_captured_step_gave():
    class Own(dlgpu.Sequential):
        def train_step(self, data):
            return {"loss": 2 * float(super().train_step(data)["loss"])}

    def make(**compiled):
        model = Own([layers.Dense(4), layers.Dense(1, "sigmoid")])
        model.compile("adam", "binary_crossentropy", **compiled)
        return model

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert captured(assert_same_bits(make)) == [True, True]


def test_more_shapes_than_there_may_be_graphs_run_as_written(monkeypatch):
    monkeypatch.setattr(graph.Repeater, "most", 2)
    batches = [(X[:n], Y[:n]) for n in (4, 5, 6, 7) for _ in range(4)]
    with pytest.warns(UserWarning, match="more than 2 different shapes") as caught:
        model = assert_same_bits(dense_model, lambda m: m.fit(iter(batches), verbose=0).history)
    assert len(told(caught)) == 1
    assert captured(model) == [True, True, False, False]


def test_a_step_that_fails_is_not_counted_and_leaves_the_device_as_it_was(cupy):
    class Failing(layers.Layer):
        fail_at = None

        def call(self, inputs):
            if self.fail_at == "now":
                raise ValueError("the layer fails")
            return inputs

    model = dense_model(Failing())
    fit(model, X[:32], Y[:32], epochs=1)
    weights, done = model.get_weights(), model.optimizer.iterations
    model.layers[1].fail_at = "now"
    for _ in range(3):
        with pytest.raises(ValueError, match="the layer fails"):
            model._step.train(dlgpu.data.Batch(X[:32], Y[:32]))
    assert model.optimizer.iterations == done
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), weights))
    assert cupy.asarray(X).shape == X.shape  # copies from the host are allowed again


def test_copies_of_a_model_have_graphs_of_their_own():
    model = dense_model()
    fit(model)
    twin, before = copy.deepcopy(model), model.get_weights()
    dlgpu.set_random_seed(2)
    found = fit(twin)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), before))
    dlgpu.set_random_seed(2)
    assert fit(model) == found
