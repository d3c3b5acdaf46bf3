"""A captured step gives the bits of one that runs as written, waits for nothing, and is captured anew where it must."""

import copy
import functools
import warnings

import numpy as np
import pytest

import dlgpu
from dlgpu import layers
from dlgpu.backend.cuda import persistence, recurrent, resident
from tests.cuda.captured import (
    PROGRAMS,
    RNG,
    X,
    Y,
    assert_same_bits,
    captured,
    dense_model,
    fit,
    model_of,
    program,
    program_data,
)
from tests.training.changes import change_dropout, change_rate, change_weights, freeze


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
