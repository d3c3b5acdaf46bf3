"""fit, evaluate and predict: what they return, what they refuse, and what they leave behind."""

import os
import re
import signal
import warnings
from itertools import chain, islice, pairwise

import numpy as np
import pytest

import dlgpu
from dlgpu.callbacks import Callback, LambdaCallback
from dlgpu.data import Batch
from dlgpu.layers import LSTM, BatchNormalization, Dense, Dropout, Embedding, Flatten
from dlgpu.models import Input, Model, Sequential
from dlgpu.optimizers import SGD, Adam
from dlgpu.training import step


def classifier(units=8, **compiled):
    model = Sequential([Dense(units, activation="relu", input_shape=(4,)), Dense(1, activation="sigmoid")])
    compiled = {"loss": "binary_crossentropy", "optimizer": "adam", "metrics": ["accuracy"], **compiled}
    model.compile(**compiled)
    return model


@pytest.fixture
def separable(rng):
    x = rng.standard_normal((96, 4)).astype("float32")
    return x, (x[:, :1] > 0).astype("float32")


def test_training_lowers_the_loss_and_the_history_has_a_value_an_epoch(separable):
    x, y = separable
    history = classifier(optimizer=Adam(0.01)).fit(x, y, epochs=20, batch_size=16, verbose=0, validation_split=0.25)
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert all(len(values) == 20 for values in history.history.values())
    assert history.epoch == list(range(20))
    assert history.history["loss"][-1] < 0.7 * history.history["loss"][0]
    assert history.history["val_accuracy"][-1] > 0.8


def test_the_same_seed_gives_the_same_bits(separable):
    x, y = separable
    runs = []
    for _ in range(2):
        dlgpu.set_random_seed(7)
        model = Sequential([Dense(8, input_shape=(4,)), Dropout(0.5), Dense(1, activation="sigmoid")])
        model.compile("adam", "binary_crossentropy")
        losses = model.fit(x, y, epochs=3, verbose=0).history["loss"]
        runs.append((losses, model.get_weights()))
    assert runs[0][0] == runs[1][0]
    for a, b in zip(runs[0][1], runs[1][1]):
        np.testing.assert_array_equal(a, b)


def test_an_epoch_is_weighed_by_samples_not_by_batches(rng):
    x, y = rng.standard_normal((10, 4)), rng.standard_normal((10, 1))
    model = Sequential([Dense(1, input_shape=(4,))])
    model.compile(SGD(0.0), "mse", metrics=["mae"])
    whole = model.evaluate(x, y, batch_size=10, verbose=0)
    history = model.fit(x, y, batch_size=7, verbose=0, shuffle=False).history
    np.testing.assert_allclose([history["loss"][0], history["mae"][0]], whole, rtol=1e-6)
    np.testing.assert_allclose(model.evaluate(x, y, batch_size=3, verbose=0), whole, rtol=1e-6)


def test_every_sample_is_seen_once_an_epoch_in_a_new_order():
    seen = []

    class Watch(Model):
        def __init__(self):
            super().__init__()
            self.head = Dense(1)

        def call(self, inputs, training=False):
            if training:
                seen.append(inputs.numpy()[:, 0].astype(int).tolist())
            return self.head(inputs)

    model = Watch()
    model.compile("sgd", "mse")
    model.fit(np.arange(50, dtype="float32")[:, None] / 1, np.zeros((50, 1)), batch_size=16, epochs=2, verbose=0)
    first, second = (list(chain(*epoch)) for epoch in (seen[:4], seen[4:]))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert first != list(range(50))


def test_predict_returns_every_sample_in_order(separable):
    model, (x, _) = classifier(), separable
    whole = model(x).numpy()
    np.testing.assert_allclose(model.predict(x, batch_size=7, verbose=0), whole, rtol=1e-6)
    assert isinstance(model.predict(x, verbose=0), np.ndarray)


def test_predict_takes_many_samples_together_unless_something_counts_batches(rng):
    model = Sequential([Dense(1, input_shape=(64,))])
    x, seen = rng.standard_normal((10000, 64), np.float32), []
    call = model.call
    model.call = lambda inputs, *args, **more: (seen.append(len(inputs)), call(inputs, *args, **more))[1]
    found = model.predict(x, verbose=0)
    assert seen == [4096, 4096, 1808]
    for options, expected in [
        ({"batch_size": 5000}, [5000, 5000]),
        ({"callbacks": [Callback()]}, [32] * 312 + [16]),
        ({"steps": 2}, [32, 32]),
    ]:
        seen.clear()
        some = model.predict(x, verbose=0, **options)
        assert seen == expected
        np.testing.assert_allclose(some, found[: len(some)], rtol=1e-5, atol=1e-6)


def test_predict_and_evaluate_leave_dropout_off_and_statistics_alone(rng):
    model = Sequential([Dense(8, input_shape=(4,)), BatchNormalization(), Dropout(0.5), Dense(1)])
    model.compile("sgd", "mse")
    x, before = rng.standard_normal((20, 4)), model.get_weights()
    np.testing.assert_array_equal(model.predict(x, verbose=0), model.predict(x, verbose=0))
    model.evaluate(x, np.zeros((20, 1)), verbose=0)
    for a, b in zip(before, model.get_weights()):
        np.testing.assert_array_equal(a, b)


def test_sample_weights_and_class_weights_scale_the_loss(separable):
    x, y = separable
    one, other = classifier(optimizer=SGD(0.1)), classifier(optimizer=SGD(0.1))
    other.set_weights(one.get_weights())
    weights = np.where(y[:, 0] > 0, 3.0, 0.5)
    a = one.fit(x, y, sample_weight=weights, shuffle=False, epochs=2, verbose=0).history["loss"]
    b = other.fit(x, y, class_weight={0: 0.5, 1: 3.0}, shuffle=False, epochs=2, verbose=0).history["loss"]
    assert a == b
    third = classifier(optimizer=SGD(0.1))
    third.set_weights(other.get_weights())
    assert third.fit(x, y, shuffle=False, verbose=0).history["loss"] != a[1:]


def test_frozen_layers_stay_and_the_others_move(separable):
    x, y = separable
    model = classifier()
    model.layers[0].trainable = False
    before = model.get_weights()
    model.fit(x, y, verbose=0)
    after = model.get_weights()
    np.testing.assert_array_equal(before[0], after[0])
    assert not np.array_equal(before[2], after[2])
    model.layers[0].trainable = True
    model.fit(x, y, verbose=0)
    assert not np.array_equal(before[0], model.get_weights()[0])


def test_training_goes_on_where_it_stopped(separable):
    x, y = separable
    once, twice = classifier(), classifier()
    twice.set_weights(once.get_weights())
    a = once.fit(x, y, epochs=4, shuffle=False, verbose=0).history["loss"]
    b = twice.fit(x, y, epochs=2, shuffle=False, verbose=0).history["loss"]
    c = twice.fit(x, y, epochs=4, initial_epoch=2, shuffle=False, verbose=0)
    assert a == b + c.history["loss"]
    assert c.epoch == [2, 3]


def test_two_models_that_share_a_layer_train_the_same_weights(separable):
    x, y = separable
    shared = Dense(4, activation="relu", input_shape=(4,))
    first = Sequential([shared, Dense(1, activation="sigmoid")])
    second = Sequential([shared, Dense(1, activation="sigmoid")])
    for model in (first, second):
        model.compile("sgd", "binary_crossentropy")
    for model in (first, second, first):
        before = shared.get_weights()[0]
        model.fit(x, y, verbose=0)
        assert not np.array_equal(before, shared.get_weights()[0])
    np.testing.assert_array_equal(first.get_weights()[0], second.get_weights()[0])


def test_generators_train_as_arrays_do(separable):
    x, y = separable
    one, other = classifier(optimizer=SGD(0.1)), classifier(optimizer=SGD(0.1))
    other.set_weights(one.get_weights())

    def endless():
        while True:
            for start in range(0, 96, 32):
                yield x[start : start + 32], y[start : start + 32]

    a = one.fit(x, y, shuffle=False, epochs=3, verbose=0)
    b = other.fit(endless(), steps_per_epoch=3, epochs=3, verbose=0)
    assert a.history == b.history
    lists = [list(batch) for batch in islice(endless(), 3)]  # as PyTorch's DataLoader gives them
    assert one.evaluate(x, y, verbose=0) == one.evaluate((batch for batch in lists), verbose=0)


def test_a_generator_that_ends_too_soon_is_an_error(separable):
    x, y = separable
    with pytest.raises(ValueError, match="gave no batch"):
        classifier().fit(((x, y) for _ in range(1)), epochs=2, verbose=0)


def test_regularizers_join_the_loss(rng):
    x, y = rng.standard_normal((16, 4)), rng.standard_normal((16, 1))
    plain = Sequential([Dense(1, input_shape=(4,))])
    heavy = Sequential([Dense(1, input_shape=(4,), kernel_regularizer="l2")])
    heavy.set_weights(plain.get_weights())
    for model in (plain, heavy):
        model.compile(SGD(0.0), "mse")
    penalty = 0.01 * np.square(plain.get_weights()[0]).sum()
    np.testing.assert_allclose(heavy.evaluate(x, y, verbose=0), plain.evaluate(x, y, verbose=0) + penalty, rtol=1e-5)


def test_several_inputs_and_outputs(rng):
    a, b = Input((3,), name="a"), Input((2,), name="b")
    left, right = Dense(4, name="left")(a), Dense(4, name="right")(b)
    model = Model({"a": a, "b": b}, [Dense(1, name="price")(left), Dense(2, activation="softmax", name="kind")(right)])
    model.compile("adam", {"price": "mse", "kind": "sparse_categorical_crossentropy"}, metrics={"kind": ["accuracy"]})
    x = {"a": rng.standard_normal((20, 3)), "b": rng.standard_normal((20, 2))}
    y = {"price": rng.standard_normal((20, 1)), "kind": rng.integers(0, 2, 20)}
    history = model.fit(x, y, epochs=2, verbose=0).history
    assert set(history) == {"loss", "kind_accuracy"}
    price, kind = model.predict(x, verbose=0)
    assert price.shape == (20, 1)
    assert kind.shape == (20, 2)
    history = model.fit(x, [y["price"], y["kind"]], epochs=1, verbose=0).history
    assert len(history["loss"]) == 1


def test_a_step_on_one_batch_returns_its_own_loss(separable):
    x, y = separable
    model = classifier(optimizer=SGD(0.1))
    before = model.evaluate(x[:32], y[:32], verbose=0)
    assert model.train_on_batch(x[:32], y[:32]) == pytest.approx(before, rel=1e-6)
    assert model.test_on_batch(x[:32], y[:32]) != before
    assert model.predict_on_batch(x[:5]).shape == (5, 1)
    assert set(model.train_on_batch(x, y, return_dict=True)) == {"loss", "accuracy"}


@pytest.fixture
def ctrl_c():
    """Python's own handler: in a shell's background job there is none."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_stops_after_the_step_and_keeps_model_and_history(separable):
    x, y = separable
    model, steps = classifier(), []

    def press(batch, logs):
        steps.append(batch)
        if len(steps) == 7:  # in the third epoch of three steps
            os.kill(os.getpid(), signal.SIGINT)

    finished = []
    history = model.fit(
        x,
        y,
        epochs=50,
        verbose=0,
        callbacks=[
            LambdaCallback(on_train_batch_end=press, on_train_end=lambda logs: finished.append(model.get_weights()))
        ],
    )
    assert history.interrupted
    assert history.epoch == [0, 1]
    assert model.optimizer.iterations == len(steps) == 7
    assert len(finished) == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not model.fit(x, y, verbose=0).interrupted


@pytest.mark.usefixtures("ctrl_c")
def test_an_error_in_a_callback_still_ends_the_run(separable):
    x, y = separable
    ended = []

    class Fails(Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise RuntimeError("mine")

        def on_train_end(self, logs=None):
            ended.append(True)

    with pytest.raises(RuntimeError, match="mine"):
        classifier().fit(x, y, verbose=0, callbacks=[Fails()])
    assert ended == [True]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (
            np.zeros((8, 5)),
            np.zeros(8),
            ValueError,
            r"Dense 'narrow': expected inputs of shape \(batch, 4\), got \(8, 5\)",
        ),
        (np.zeros((8, 4)), np.zeros(9), ValueError, "x has 8 samples, but y has 9"),
        (np.zeros((0, 4)), np.zeros(0), ValueError, "x is empty"),
        (np.full((8, 4), np.nan), np.zeros(8), ValueError, "x: row 0 holds NaN"),
        (np.zeros((8, 4)), np.array([0] * 5 + [np.inf] * 3), ValueError, "y: row 5 holds infinity"),
        (np.array([["a"] * 4] * 8), np.zeros(8), TypeError, "x: expected numbers"),
        (np.zeros((8, 4), object), np.zeros(8), TypeError, "x: expected numbers"),
        (np.zeros((8, 4)), None, ValueError, "y: expected targets, got None"),
        (np.zeros((8, 4)), np.zeros((8, 3)), ValueError, r"\(8, 3\)"),
        (
            np.full((8, 4), 1e60),
            np.zeros(8),
            ValueError,
            r"x: row 0 holds 1e\+60; .* that float32 can hold: scale them",
        ),
        (np.array([[0.0] * 4, [-1e39, np.nan, 0, 0]]), np.zeros(2), ValueError, r"x: row 1 holds -1e\+39"),
        ((np.zeros((8, 4)), np.zeros(8)), None, ValueError, r"y: .* given apart, as in fit\(x, y\)"),
        (
            {"a": np.zeros((8, 4))},
            np.zeros(8),
            ValueError,
            "'narrow': expected one array .*, got a dictionary with 'a'",
        ),
        ([np.zeros((8, 4))] * 2, np.zeros(8), ValueError, "'narrow': expected one array as inputs, got a list"),
        ([np.zeros((8, 4)), np.zeros((5, 4))], np.zeros(8), ValueError, r"x\[0\] has 8 samples, but x\[1\] has 5"),
        ({"a": np.zeros((8, 4)), "b": np.ones((5, 4))}, None, ValueError, r"x\['a'\] has 8 .*, but x\['b'\] has 5"),
        ([np.zeros((8, 4)), np.full((8, 1), np.inf)], np.zeros(8), ValueError, r"x\[1\]: row 0 holds infinity"),
    ],
)
def test_bad_data_is_refused_before_anything_changes(x, y, error, message):
    model = Sequential([Dense(1, activation="sigmoid", input_shape=(4,), name="narrow")])
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    before = model.get_weights()
    with pytest.raises(error, match=message):
        model.fit(x, y, verbose=0)
    for a, b in zip(before, model.get_weights()):
        np.testing.assert_array_equal(a, b)
    assert model.optimizer.iterations == 0


def test_a_loss_that_is_not_finite_is_told_once_and_numpy_is_quiet(separable):
    x, y = separable

    class Batches:
        def __iter__(self):
            yield x, y
            yield np.full_like(x, np.nan), y

    diverging = Sequential([Dense(1)])
    diverging.compile(SGD(1e30), "mse")
    for model, data in ((classifier(), (Batches(),)), (diverging, (x, y))):
        with warnings.catch_warnings(record=True) as caught:
            losses = model.fit(*data, epochs=3, verbose=0).history["loss"]
            model.evaluate(*data, verbose=0)
            model.predict(x * 1e37, verbose=0)
        (warning,) = caught
        assert warning.filename == __file__
        assert str(warning.message).startswith(f"the loss of epoch 1 is {losses[0]}: lower the learning rate")


def test_numpys_errors_are_raised_where_they_are_asked_for(separable):
    def overflow(epoch, logs):
        np.float32(1e38) * np.float32(1e38)

    with np.errstate(over="raise"), pytest.raises(FloatingPointError, match="overflow"):
        classifier().fit(*separable, verbose=0, callbacks=[LambdaCallback(on_epoch_end=overflow)])


@pytest.mark.parametrize(
    ("argument", "value", "expected"),
    [
        ("epochs", "3", "an integer of at least 0"),
        ("epochs", 2.0, "an integer of at least 0"),
        ("initial_epoch", -1, "an integer of at least 0"),
        ("batch_size", 0, "a positive integer"),
        ("steps_per_epoch", 1.5, "a positive integer"),
        ("validation_steps", "all", "a positive integer"),
        ("validation_freq", 0, "a positive integer"),
        ("validation_split", "0.2", "a number between 0 and 1"),
    ],
)
def test_numbers_that_make_no_sense_are_named(argument, value, expected, separable):
    with pytest.raises(ValueError, match=f"^{argument}: expected {expected}, got {re.escape(repr(value))}"):
        classifier().fit(*separable, verbose=0, **{argument: value})
    with pytest.raises(ValueError, match=r"^steps: expected a positive integer"):
        classifier().evaluate(*separable, verbose=0, steps="3")


def test_what_is_wrong_with_validation_data_is_said_of_them(separable):
    x, y = separable
    for data, message in (((x[:, :1], y), "Dense .*expected inputs"), (x, "y: "), ((x, y[:-1]), "x has")):
        with pytest.raises(ValueError, match=f"^validation_data: {message}"):
            classifier().fit(x, y, verbose=0, validation_data=data)


@pytest.mark.parametrize("x", [{"a": np.zeros((8, 4))}, [np.zeros((8, 4))] * 2])
def test_a_model_that_is_not_built_refuses_several_inputs_too(x):
    model = Sequential([Dense(1, name="first")])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="Dense 'first': expected one array as inputs, got a "):
        model.fit(x, np.zeros((8, 1)), verbose=0)


def test_layers_that_are_made_in_call_are_spoken_of(separable):
    class Late(Model):
        def call(self, inputs):
            return Dense(1)(inputs)

    class Unready(Model):
        def __init__(self):
            self.units = 3

    model = Late()
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="no trainable weights: its layers must be made in __init__, not in call"):
        model.fit(*separable, verbose=0)
    with pytest.raises(AttributeError, match=r"Unready has no .*: its __init__ must call super\(\).__init__\(\) first"):
        Unready().compile("sgd", "mse")


def test_labels_out_of_range_are_named(rng):
    model = Sequential([Dense(3, activation="softmax", input_shape=(4,))])
    model.compile("adam", "sparse_categorical_crossentropy")
    labels = np.array([0, 1, 2, 3, 0])
    with pytest.raises(ValueError, match=r"row 3"):
        model.fit(rng.standard_normal((5, 4)), labels, verbose=0)


def test_names_that_are_not_known_name_the_nearest():
    model = Sequential([Dense(1, input_shape=(4,))])
    with pytest.raises(ValueError, match="Did you mean 'adam'"):
        model.compile("adm", "mse")
    with pytest.raises(ValueError, match="Did you mean 'binary_crossentropy'"):
        model.compile("adam", "binary_crossentrop")
    with pytest.raises(ValueError, match="Did you mean"):
        model.compile("adam", "mse", metrics=["mean_absolut_error"])


def test_training_without_compile_says_so():
    with pytest.raises(ValueError, match="call compile"):
        Sequential([Dense(1, input_shape=(4,))]).fit(np.zeros((4, 4)), np.zeros(4))


def test_integer_inputs_reach_an_embedding_as_integers(rng):
    model = Sequential([Embedding(10, 4), Flatten(), Dense(1, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy")
    x = rng.integers(0, 10, (32, 5))
    history = model.fit(x, rng.integers(0, 2, 32), epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert model.predict(x, verbose=0).shape == (32, 1)


def test_a_model_that_knows_its_shape_only_from_data_trains(separable):
    x, y = separable
    model = Sequential([Dense(8, activation="relu"), Dense(1, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy")
    model.fit(x, y, verbose=0)
    assert model.get_weights()[0].shape == (4, 8)


def test_float64_data_trains_in_float32(separable):
    x, y = separable
    model = classifier()
    model.fit(x.astype("float64"), y.astype("float64"), verbose=0)
    assert {w.dtype for w in model.get_weights()} == {np.dtype("float32")}
    assert model.predict(x.astype("float64"), verbose=0).dtype == np.float32


def test_a_metric_of_several_values_is_reported_as_an_array(rng):
    model = Sequential([Dense(3, activation="softmax", input_shape=(4,))])
    model.compile("sgd", "categorical_crossentropy", metrics=["f1_score"])
    labels = np.eye(3)[rng.integers(0, 3, 12)]
    history = model.fit(rng.standard_normal((12, 4)), labels, epochs=2, verbose=2).history
    assert [value.shape for value in history["f1_score"]] == [(3,), (3,)]


def test_stateful_layers_train_and_go_on_from_batch_to_batch(rng):
    x, y = rng.standard_normal((64, 5, 3)), rng.standard_normal((64, 2))
    model = Sequential([LSTM(4, stateful=True, input_shape=(5, 3)), Dense(2)])
    model.compile(SGD(0.0), "mse")
    model.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    layer = model.layers[0]
    after_fit = layer.states[0].numpy().copy()
    layer.reset_state()
    for start in range(0, 64, 16):
        model(x[start : start + 16])
    np.testing.assert_array_equal(after_fit, layer.states[0].numpy())
    before = layer.states[0].numpy().copy()
    assert layer.compute_output_shape((None, 5, 3)) == (None, 4)
    with pytest.raises(ValueError, match="labels"):
        model.evaluate(x[:16], y[:16, :1], verbose=0)
    np.testing.assert_array_equal(before, layer.states[0].numpy())


def test_a_model_that_refused_its_first_data_takes_other_data(rng):
    model = Sequential([Dense(4), LSTM(3), Dense(2)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="LSTM"):
        model.fit(rng.standard_normal((8, 3)), rng.standard_normal((8, 2)), verbose=0)
    assert not model.built
    assert model.input_shape is None
    assert not any(layer.weights for layer in model.layers)
    model.fit(rng.standard_normal((8, 5, 7)), rng.standard_normal((8, 2)), verbose=0)


def test_runs_in_a_callback_leave_the_sums_and_the_history_of_the_run_around_them(separable):
    x, y = separable

    class Inner(Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if self.params["epochs"] == 2:
                self.model.fit(x[:4], y[:4], epochs=3, verbose=0)

        def on_train_batch_end(self, batch, logs=None):
            self.model.predict(x[:5], verbose=0)
            self.model.evaluate(x[:5], y[:5], verbose=0)
            self.model.test_on_batch(x[:5], y[:5])

    model = classifier(optimizer=SGD(0.0))
    expected = model.fit(x, y, epochs=2, verbose=0, shuffle=False).history
    found = model.fit(x, y, epochs=2, verbose=0, shuffle=False, callbacks=[Inner()])
    assert found.history == expected
    assert model.history is found


@pytest.mark.parametrize("one_hot", [False, True])
def test_class_weights_of_sequences_go_by_each_step(one_hot, rng):
    x, labels = rng.standard_normal((6, 4, 3)), rng.integers(0, 2, (6, 4, 1))
    loss = "categorical_crossentropy" if one_hot else "sparse_categorical_crossentropy"
    model = Sequential([Dense(2, activation="softmax", input_shape=(4, 3))])
    model.compile(SGD(0.0), loss)
    y, weights = np.eye(2)[labels[..., 0]] if one_hot else labels, rng.random((6, 1))
    found = model.train_on_batch(x, y, sample_weight=weights, class_weight={0: 1.0, 1: 3.0})
    expected = model.train_on_batch(x, y, sample_weight=weights * np.where(labels[..., 0] == 1, 3.0, 1.0))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("class_weight", [[1, 2], "balanced", {0: float("nan")}])
def test_class_weights_that_are_none_are_refused(class_weight, separable):
    with pytest.raises(ValueError, match="class_weight: expected a dictionary of classes and finite factors"):
        classifier().fit(*separable, class_weight=class_weight, verbose=0)


def test_class_weights_of_labels_that_are_no_classes_are_refused(rng):
    model = Sequential([Dense(3, activation="sigmoid", input_shape=(4,))])
    model.compile("sgd", "binary_crossentropy")
    with pytest.raises(ValueError, match="one-hot"):
        model.fit(rng.random((5, 4)), np.ones((5, 3)), class_weight={0: 1, 1: 2}, verbose=0)


def test_targets_and_weights_of_outputs_are_matched_by_name(rng):
    inputs = Input((4,))
    model = Model(inputs, [Dense(1, name="a")(inputs), Dense(1, name="b")(inputs)])
    model.compile("sgd", {"a": "mse", "b": "mse"})
    x, y = rng.random((5, 4)), rng.random((5, 1))
    with pytest.raises(ValueError, match="y: there is no output 'c'; the outputs are a, b"):
        model.fit(x, {"a": y, "c": y}, verbose=0)
    with pytest.raises(ValueError, match="sample_weight: there is no output 'c'"):
        model.fit(x, [y, y], sample_weight={"c": y[:, 0]}, verbose=0)
    for only_a in ({"a": y}, [y, None]):
        with pytest.raises(ValueError, match="y: expected targets, got None for 'b'"):
            model.fit(x, only_a, verbose=0)
    with pytest.raises(ValueError, match="y: expected targets, got None"):
        model.fit(iter([x]), verbose=0)


def test_lists_of_numbers_are_data(separable):
    x, y = separable
    expected = classifier().fit(x, y[:, 0], verbose=0).history.keys()
    for labels in (y[:, 0].tolist(), list(y[:, 0]), y.tolist()):
        assert classifier().fit(x.tolist(), labels, verbose=0).history.keys() == expected


def test_the_loss_of_many_samples_is_summed_without_loss():
    model = Sequential([Dense(1, input_shape=(1,), kernel_initializer="zeros")])
    model.compile("sgd", "mse")
    objective = model._step.objective
    objective.loss_sum, objective.samples = model.device.asarray(np.array(2.0**24)), 2**24
    model._step.evaluate(Batch(np.zeros((1, 1), "float32"), np.ones((1, 1), "float32")))
    assert float(objective.loss_sum) == 2**24 + 1


def test_a_metric_asked_for_with_and_without_weights_has_two_names(separable):
    x, y = separable
    model = classifier(metrics=["accuracy"], weighted_metrics=["accuracy", "mae"])
    found = model.evaluate(x, y, sample_weight=y[:, 0], verbose=0, return_dict=True)
    assert list(found) == ["loss", "accuracy", "weighted_accuracy", "mae"]


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.ones((8, 4)), np.full((8, 1), 7), "labels from 0 to 1; row 0 holds 7"),
        (np.ones((8, 4)), np.ones((8, 2)), r"labels of shape \(batch, 1\)"),
        (np.full((8, 4), np.nan), np.ones((8, 1)), "x: row 0 holds NaN"),
    ],
)
def test_a_generators_first_batch_is_looked_at_before_anything_changes(x, y, message):
    model = classifier()
    before = model.get_weights()
    for run in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=message):
            run(iter([(x, y)]), verbose=0)
    for a, b in zip(before, model.get_weights()):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_train_batch_begin"])
def test_a_model_trains_on_when_a_callback_has_trained_a_layer_that_it_shares(hook, separable):
    x, y = separable
    shared = Dense(3, input_shape=(4,))
    one, other = Sequential([shared, Dense(1)]), Sequential([shared, Dense(1)])
    for model in (one, other):
        model.compile(SGD(0.1), "mse")

    class Inner(Callback):
        def on_train_batch_end(self, batch, logs=None):
            assert not np.array_equal(shared.kernel.numpy(), self.before)

    inner = Inner()

    def train_other(number, logs):
        other.train_on_batch(x[:8], y[:8])
        inner.before = shared.kernel.numpy().copy()

    one.fit(x, y, batch_size=96, epochs=2, verbose=0, callbacks=[LambdaCallback(**{hook: train_other}), inner])


def test_layers_that_a_callback_freezes_or_thaws_between_epochs_stay_or_move(separable):
    x, y = separable
    model = Sequential([Dense(3, input_shape=(4,)), Dense(1)])
    model.compile(SGD(0.1, momentum=0.9), "mse")
    seen = []

    def turn(epoch, logs):
        seen.append(model.layers[0].kernel.numpy().copy())
        model.layers[0].trainable = epoch != 1

    model.fit(x, y, epochs=3, verbose=0, callbacks=[LambdaCallback(on_epoch_begin=turn)])
    seen.append(model.layers[0].kernel.numpy())
    assert [np.array_equal(a, b) for a, b in pairwise(seen)] == [False, True, False]


def test_a_model_with_steps_of_its_own_is_trained_and_evaluated_by_them(separable):
    class Mine(Model):
        def __init__(self):
            super().__init__()
            self.head = Dense(1, activation="sigmoid")

        def call(self, inputs):
            return self.head(inputs)

        def train_step(self, data):
            x, y, _ = data
            loss, gradients = dlgpu.value_and_grad(lambda weights: ((self(x, training=True) - y) ** 2).mean())(
                self.trainable_weights
            )
            self.optimizer.apply_gradients(zip(gradients, self.trainable_weights))
            return {"mine": loss}

        def test_step(self, data):
            return {"mine": 5.0}

    model = Mine()
    model.compile(SGD(1.0))
    history = model.fit(*separable, epochs=5, verbose=0, validation_data=separable)
    assert set(history.history) == {"mine", "val_mine"}
    assert history.history["mine"][-1] < history.history["mine"][0]
    assert history.history["val_mine"] == [5.0] * 5
    assert model.optimizer.iterations == 15
    assert model.evaluate(*separable, verbose=0) == 5.0


def test_weights_of_two_dtypes_get_their_gradients_from_one_walk_back(monkeypatch):
    walks, pull_back = [], step.pull_back
    monkeypatch.setattr(step, "pull_back", lambda *args, **kwargs: walks.append(kwargs) or pull_back(*args, **kwargs))
    model = Sequential([Dense(4, dtype="float64"), Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    model.train_on_batch(np.ones((8, 3)), np.zeros((8, 1)))
    assert walks == [{"once": True}]
