"""A captured step gives the bits of one that runs as written, waits for nothing, and is captured anew where it must."""

import copy
import itertools
import warnings

import numpy as np
import pytest

import dlgpu
from dlgpu import layers, schedules
from dlgpu.backend.cuda import graph
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


@pytest.mark.parametrize("name", PROGRAMS)
def test_fifty_steps_of_each_program_with_dropout_and_a_schedule(name):
    shape, network = PROGRAMS[name]
    x, y = RNG.standard_normal((20, *shape), np.float32), RNG.integers(0, 2, (20, 1)).astype(np.float32)

    def make(**compiled):
        rate = schedules.ExponentialDecay(0.01, 3, 0.9)
        loss = "mse" if name == "lstm" else "binary_crossentropy"
        return model_of(*network(), optimizer=dlgpu.optimizers.Adam(rate, global_clipnorm=1.0), loss=loss, **compiled)

    model = assert_same_bits(make, lambda m: fit(m, x, y, batch_size=4, epochs=10))
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


def test_a_histogram_is_counted_within_the_graph():
    def make(**compiled):
        model = dlgpu.Sequential([layers.Dense(1, activation="sigmoid")])
        model.compile("adam", "binary_crossentropy", metrics=["AUC", "Precision"], **compiled)
        return model

    assert captured(assert_same_bits(make)) == [True, True]


def test_the_optimizers_phases_have_graphs_of_their_own():
    def make(**compiled):
        return dense_model(optimizer=dlgpu.optimizers.Adam(gradient_accumulation_steps=3, use_ema=True), **compiled)

    assert captured(assert_same_bits(make, lambda m: fit(m, X[:64], Y[:64], epochs=9))) == [False, True, True]
    # the phase in which the running means begin does not last long enough


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
    monkeypatch.setattr(graph, "SHARE", 0)
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
        self.counter = itertools.count(1)

    def call(self, inputs):
        return inputs * (1 / next(self.counter))


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
