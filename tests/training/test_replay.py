"""A step that is replayed gives the bits of one that runs as written, and is recorded anew where it would not."""

import copy
import tracemalloc
from itertools import chain
from queue import SimpleQueue

import numpy as np
import pytest

import dlgpu
from dlgpu import layers, ops
from dlgpu.backend.recorder import Memory, kept
from dlgpu.training import replay
from tests.training.changes import change_dropout, change_rate, change_weights, freeze
from tests.training.replayed import RNG, X, Y, assert_same_bits, dense_model, fit, on_the_cpu, replays

__all__ = ["on_the_cpu"]  # used by pytest

FUNCTIONAL = {"a": RNG.standard_normal((64, 4), np.float32), "b": RNG.integers(0, 5, (64, 3))}


def two_inputs(**compiled):
    a, b = layers.Input((4,), name="a"), layers.Input((3,), dtype="int64", name="b")
    embedded = layers.LSTM(5)(layers.Embedding(5, 4, mask_zero=True)(b))
    joined = layers.Concatenate()([layers.Dense(3, "tanh")(a), embedded])
    model = dlgpu.Model([a, b], [layers.Dense(2, "softmax", name="c")(joined), layers.Dense(1, name="d")(joined)])
    model.compile("rmsprop", loss={"c": "sparse_categorical_crossentropy", "d": "mse"}, **compiled)
    return model


@pytest.mark.parametrize(
    "more",
    [
        lambda: [],
        lambda: [layers.Dropout(0.4), layers.BatchNormalization()],
        lambda: [layers.GaussianNoise(0.1), layers.LayerNormalization()],
        lambda: [layers.Reshape((3, 3)), layers.SimpleRNN(4, return_sequences=True), layers.GRU(4)],
        lambda: [
            layers.Reshape((3, 3, 1)),
            layers.Conv2D(2, 2, activation="gelu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
        ],
    ],
)
def test_replayed_steps_give_the_bits_of_written_ones(more):
    model = assert_same_bits(lambda **c: dense_model(*more(), **c), fit)
    assert replays(model) == [True, True]  # whole batches, and the last one


def test_a_graph_with_dictionaries_masks_and_two_losses_is_replayed():
    y = {"c": RNG.integers(0, 2, 64), "d": RNG.standard_normal((64, 1))}
    model = assert_same_bits(two_inputs, lambda m: fit(m, FUNCTIONAL, y, batch_size=16))
    assert replays(model) == [True]


def test_sample_and_class_weights_are_replayed():
    weights = RNG.uniform(0, 2, 70).astype(np.float32)
    model = assert_same_bits(dense_model, lambda m: fit(m, sample_weight=weights, class_weight={0: 2.0}))
    assert replays(model) == [True, True]


def test_metrics_which_the_first_step_makes_are_no_reason_to_record_it_again(monkeypatch):
    made, recorded = [], replay.Replay.recorded
    monkeypatch.setattr(replay.Replay, "recorded", lambda *args: made.append(recorded(*args)) or made[-1])
    fit(dense_model())
    assert len(made) == 2  # whole batches, and the last one


def changed(how):
    """Training in which something changes between calls of fit: with known batches, and with new ones."""

    def train(model):
        first = fit(model)
        how(model)
        return first, fit(model), fit(model, batch_size=10)

    return train


def change_activation(model):
    model.layers[0].activation = dlgpu.activations.get("tanh")


@pytest.mark.parametrize("how", [change_weights, change_rate, freeze, change_dropout, change_activation])
def test_what_changes_between_epochs_is_honoured(how):
    assert_same_bits(lambda **c: dense_model(layers.Dropout(0.2), **c), changed(how))


def test_a_callback_may_change_the_learning_rate_and_freeze_a_layer():
    class Change(dlgpu.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.optimizer.learning_rate = 0.001 * (batch + 1)

        def on_epoch_end(self, epoch, logs=None):
            self.model.layers[1].trainable = bool(epoch % 2)

    assert_same_bits(lambda **c: dense_model(layers.Dense(4), **c), lambda m: fit(m, epochs=6, callbacks=[Change()]))


def test_a_penalty_that_comes_after_the_first_batch_is_honoured_from_the_second_epoch_on():
    penalty = dlgpu.regularizers.L2(0.1)

    class Penalize(dlgpu.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.layers[0].kernel.regularizer = penalty

    model = assert_same_bits(dense_model, lambda model: fit(model, callbacks=[Penalize()]))
    assert replays(model) == [True, True]


def test_run_eagerly_can_be_changed():
    calls = SimpleQueue()  # of which no look at settings knows the state

    class Counting(layers.Layer):
        def call(self, inputs):
            calls.put(None)
            return inputs

    model = dense_model(Counting())
    fit(model, X[:64], Y[:64], epochs=10)
    replayed = calls.qsize()
    model.run_eagerly = True
    fit(model, X[:64], Y[:64], epochs=10)
    assert replayed < 8  # the first look, the run as written, the recording and the trial
    assert calls.qsize() - replayed > 19


def test_a_layer_that_reads_values_runs_as_written():
    class Halve(layers.Layer):
        def call(self, inputs):
            return inputs * 0.5 if float(ops.sum(inputs)) > 20 else inputs

    model = assert_same_bits(lambda **c: dense_model(layers.Dropout(0.3), Halve(), **c), fit)
    assert replays(model) == [False, False]


def test_a_layer_that_counts_in_python_runs_as_written():
    class Fading(layers.Layer):
        def build(self, input_shape):
            self.counter = [0]

        def call(self, inputs):
            self.counter[0] += 1
            return inputs * (1 / self.counter[0])

    model = assert_same_bits(lambda **c: dense_model(Fading(), **c), fit)
    assert replays(model) == [False, False]


def test_numpy_code_in_a_layer_is_replayed():
    class Own(layers.Layer):
        def call(self, inputs):
            z = inputs.array
            order = np.argsort(-z, axis=1, kind="stable")
            rank = np.where(order > 4, np.tanh(z), z.clip(-1, 1).astype(np.float64).astype(np.float32))
            return inputs * np.concatenate([rank[:, :1], rank[:, 1:].copy()], axis=1)

    model = assert_same_bits(lambda **c: dense_model(Own(), **c), fit)
    assert replays(model) == [True, True]


def test_arrays_whose_shape_goes_by_values_are_not_replayed():
    class Positive(layers.Layer):
        def call(self, inputs):
            z = inputs.array
            return inputs + z[z > 0].sum()

    model = assert_same_bits(lambda **c: dense_model(Positive(), **c), fit)
    assert replays(model) == [False, False]


def test_what_is_hidden_from_the_recording_shows_when_the_batch_changes():
    class Hidden(layers.Layer):
        def call(self, inputs):
            return inputs * np.tanh(np.asarray(inputs.array))  # asarray drops what notes

    def train(model):
        return [fit(model, x, Y, batch_size=70, shuffle=False) for x in (X, X[::-1].copy())]

    assert_same_bits(lambda **c: dense_first(Hidden(), **c), train)


def dense_first(layer, **compiled):
    model = dlgpu.Sequential([layer, layers.Dense(1, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy", **compiled)
    return model


def test_a_frozen_weight_in_any_order_of_memory_is_replayed():
    def make(**compiled):
        model = dense_model(layers.Dense(9), **compiled)
        model.build((None, 6))
        model.layers[1].trainable = False
        model.layers[1].kernel.array = np.asfortranarray(model.layers[1].kernel.array)
        return model

    assert replays(assert_same_bits(make, fit)) == [True, True]


def test_a_step_that_fails_is_not_counted():
    model = dlgpu.Sequential([layers.Embedding(5, 2), layers.Flatten(), layers.Dense(1)])
    model.compile("adam", "mse")
    good, bad = np.zeros((4, 3), "int64"), np.full((4, 3), 9)
    batches = [*([(good + i, np.ones((4, 1)))] for i in range(4)), [(bad, np.ones((4, 1)))]]
    for steps in (2, 4):  # the bad batch meets the recording on trial, and trusted
        model.fit(chain(*batches[:steps]), verbose=0)
        done, weights = model.optimizer.iterations, [w.copy() for w in model.get_weights()]
        with pytest.raises(ValueError, match="indices"):
            model.train_on_batch(*batches[4][0])
        with pytest.raises(ValueError, match="indices"):
            model._step.train(dlgpu.data.Batch(*batches[4][0]))
        assert model.optimizer.iterations == done
        assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), weights))


def test_generators_of_batches_are_replayed():
    def train(model):
        return model.fit(((X[i : i + 20], Y[i : i + 20]) for i in range(50)), verbose=0).history

    assert replays(assert_same_bits(dense_model, train)) == [True]


PROGRAMS = {
    "fnn": ([layers.Dense(512, activation="relu"), layers.Dense(1, activation="sigmoid")], (64,)),
    "cnn": (
        [layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(), layers.Flatten(), layers.Dense(1)],
        (12, 12, 3),
    ),
    "rnn": ([layers.SimpleRNN(50), layers.Dense(1, activation="sigmoid")], (20, 8)),
    "lstm": ([layers.LSTM(50), layers.Dense(1)], (20, 8)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_steady_step_allocates_no_array(name):
    network, shape = PROGRAMS[name]
    x, y = RNG.standard_normal((192, *shape), np.float32), RNG.integers(0, 2, (192, 1)).astype(np.float32)
    model = dlgpu.Sequential(network)
    model.compile("adam", "binary_crossentropy" if name in ("fnn", "rnn") else "mse", metrics=["accuracy"])
    fit(model, x, y, batch_size=64)
    assert replays(model) == [True]
    step, batch = model._step, next(iter(dlgpu.data.ArrayData(x, y, batch_size=64).batches(np.arange(192))))
    step.train(batch)
    tracemalloc.start()
    step.train(batch)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 50 * 4  # the smallest of the layers' outputs; Python's own objects take 4 kB


def test_memory_is_used_again_within_a_step_and_between_trials():
    model = dlgpu.Sequential([*(layers.Dense(300, activation="tanh") for _ in range(8)), layers.Dense(1)])
    model.compile("sgd", "mse")
    x, y = RNG.standard_normal((64, 300), np.float32), RNG.standard_normal((64, 1), np.float32)
    fit(model, x, y, batch_size=64, epochs=2)
    memory = model._step.replays.repeater.memory

    def blocks():
        return {size: sum(block() is not None for block in free) for size, free in memory._free.items()}

    before = blocks()
    assert before[300 * 300 * 4] == 0  # kernels' gradients are made in the flat buffer, their own blocks are given back
    assert 8 <= before[64 * 300 * 4] < 8 + 8  # outputs live until they are needed, their gradients only for a moment
    fit(model, x, y, batch_size=64)
    assert replays(model) == [True]
    assert blocks() == before


def test_arrays_keep_their_memory_as_long_as_a_view_of_them_lives():
    memory = Memory()
    array = memory.empty((5, 7), np.float32)
    view, same = array[1:].T, kept(array)
    array[...] = 1
    del array
    memory.empty((5, 7), np.float32)[...] = 2
    assert (view == 1).all()
    del view
    memory.empty((5, 7), np.float32)[...] = 2
    assert (same == 2).all()


def test_a_copy_of_a_trained_model_trains_by_itself():
    model = dense_model()
    fit(model)
    twin = copy.deepcopy(model)
    before = [w.numpy().copy() for w in model.weights]
    dlgpu.set_random_seed(2)
    found = fit(twin)
    for w, e in zip(model.weights, before):
        assert w.numpy().tobytes() == e.tobytes()
    dlgpu.set_random_seed(2)
    assert fit(model) == found


def test_labels_and_indices_of_another_byte_order_mean_the_same():
    def make(**compiled):
        model = dlgpu.Sequential([layers.Embedding(9, 4), layers.Flatten(), layers.Dense(3, activation="softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy", **compiled)
        return model

    indices, labels = RNG.integers(0, 9, (64, 5)), RNG.integers(0, 3, 64)
    found = []
    for kind in "<>":
        dlgpu.set_random_seed(1)
        found.append(fit(make(), indices.astype(f"{kind}i4"), labels.astype(f"{kind}i8")))
    assert found[0] == found[1]


def test_a_trial_that_is_interrupted_leaves_the_model_as_it_was(monkeypatch):
    model = dense_model(layers.BatchNormalization())
    for _ in range(3):  # of which the first one makes the weights
        model.train_on_batch(X, Y)
    (found,) = model._step.replays._known.values()
    replay = found.recording.replay

    def interrupted():
        replay()
        raise KeyboardInterrupt

    before = model.get_weights(), model.optimizer.get_state()
    monkeypatch.setattr(found.recording, "replay", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.train_on_batch(X, Y)
    np.testing.assert_equal((model.get_weights(), model.optimizer.get_state()), before)
