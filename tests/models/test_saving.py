"""Models and weights go to files and come back; what does not fit changes nothing."""

import copy
import json
import os
import pickle
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pytest

from dlgpu import losses, optimizers
from dlgpu.layers import (
    GRU,
    LSTM,
    Add,
    BatchNormalization,
    Bidirectional,
    Conv2D,
    Dense,
    Embedding,
    Flatten,
    GlobalMaxPooling2D,
    Layer,
    TimeDistributed,
)
from dlgpu.models import Input, Model, Sequential, load_model, save_model
from dlgpu.models.saving import weights_by_path
from dlgpu.ops.random import set_random_seed
from dlgpu.saving.files import read_archive, write_archive, write_safetensors
from dlgpu.tensor import Tensor

rng = np.random.default_rng(0)
X = rng.normal(size=(24, 4)).astype(np.float32)
Y = (X[:, :1] > 0).astype(np.float32)


def small(units=5, **compiled):
    model = Sequential([Dense(units, activation="tanh", input_dim=4), Dense(1, activation="sigmoid")])
    if compiled:
        model.compile(**compiled)
    return model


def convolutional():
    return Sequential(
        [Conv2D(3, 2, activation="relu", input_shape=(5, 5, 1)), BatchNormalization(), Flatten(), Dense(2)]
    )


def nested():
    inner = Sequential([Dense(5, input_dim=4), BatchNormalization()])
    x = Input((4,))
    return Model(x, Dense(2)(inner(x)))


def shared_between_models():
    shared = Dense(4, activation="tanh")
    x = Input((4,))
    left, right = Sequential([shared, Dense(2)]), Sequential([shared, Dense(2)])
    return Model(x, Add()([left(x), right(shared(x))]))


def graph():
    a, b = Input((4,), name="a"), Input((2, 2, 1), name="b")
    shared = Dense(3, activation="relu")
    joined = Add()([shared(a), Dense(3)(GlobalMaxPooling2D()(b))])
    return Model({"a": a, "b": b}, {"x": Dense(2)(joined), "y": Dense(1)(shared(a))})


def bidirectional():
    return Sequential(
        [
            Input((6,), dtype="int32"),
            Embedding(9, 4, mask_zero=True),
            Bidirectional(LSTM(3, return_sequences=True, recurrent_dropout=0.2)),
            TimeDistributed(Dense(2, activation="relu", kernel_regularizer="l2")),
            GRU(3, dropout=0.1),
        ]
    )


def encoder_and_decoder():
    source, target = Input((None, 2)), Input((5, 3))
    _, *state = LSTM(4, return_state=True)(source)
    return Model([source, target], LSTM(4, return_sequences=True)(target, initial_state=state))


EVERY_KIND = [small, convolutional, nested, shared_between_models, graph, bidirectional, encoder_and_decoder]


def inputs_for(make):
    images = rng.normal(size=(24, 5, 5, 1))
    return {
        convolutional: images,
        graph: {"a": X, "b": images[:, :2, :2]},
        bidirectional: rng.integers(0, 9, (24, 6)),
        encoder_and_decoder: [images[:, :3, :2, 0], images[:, :, :3, 0]],
    }.get(make, X)


def assert_same_outputs(one, two, x):
    first, second = (m.predict(x, verbose=0) for m in (one, two))
    for key in first if isinstance(first, dict) else [slice(None)]:
        np.testing.assert_array_equal(first[key], second[key])


@pytest.mark.parametrize("make", EVERY_KIND)
def test_a_saved_model_comes_back(tmp_path, make):
    model = make()
    x = inputs_for(make)
    for weight in model.weights:  # as after training: running means and the like are no longer what they began with
        weight.assign(rng.uniform(0.1, 1, weight.shape))
    model.save(tmp_path / "m.dlgpu")
    loaded = load_model(tmp_path / "m.dlgpu")
    assert loaded.name == model.name
    assert [w.path for w in loaded.weights] == [w.path for w in model.weights]
    assert_same_outputs(loaded, model, x)
    assert os.listdir(tmp_path) == ["m.dlgpu"]


def test_weights_go_from_one_model_to_another_of_the_process(tmp_path):
    for make in EVERY_KIND:
        model, other = make(), make()
        model.save_weights(tmp_path / "w.safetensors")
        other.load_weights(tmp_path / "w.safetensors")
        assert_same_outputs(other, model, inputs_for(make))


def test_weights_come_from_a_whole_model_too(tmp_path):
    model, other = small(), small()
    model.save(tmp_path / "m.dlgpu")
    other.load_weights(tmp_path / "m.dlgpu")
    assert_same_outputs(other, model, X)


def test_paths_name_classes_and_not_layers():
    for _ in range(2):
        assert list(weights_by_path(nested())) == [
            "sequential/dense/kernel",
            "sequential/dense/bias",
            "sequential/batch_normalization/gamma",
            "sequential/batch_normalization/beta",
            "sequential/batch_normalization/moving_mean",
            "sequential/batch_normalization/moving_variance",
            "dense/kernel",
            "dense/bias",
        ]
    assert list(weights_by_path(small())) == ["dense/kernel", "dense/bias", "dense_1/kernel", "dense_1/bias"]


def test_a_layer_in_two_attributes_is_one_layer_with_one_path():
    class Twice(Model):
        def __init__(self):
            super().__init__()
            self.first = Dense(4)
            self.all = [self.first, Dense(2)]

        def call(self, inputs):
            return self.all[1](self.first(inputs))

    model = Twice()
    model(X)
    assert (len(model.layers), len(model.weights)) == (2, 4)
    assert list(weights_by_path(model)) == ["dense/kernel", "dense/bias", "dense_1/kernel", "dense_1/bias"]


@pytest.mark.parametrize("make", EVERY_KIND)
def test_paths_are_unique_and_in_the_order_of_the_weights(make):
    model = make()
    assert [id(w) for w in weights_by_path(model).values()] == [id(w) for w in model.weights]


@pytest.mark.parametrize(
    "optimizer",
    [
        "adam",
        lambda: optimizers.SGD(optimizers.schedules.ExponentialDecay(0.1, 3, 0.9), momentum=0.9),
        lambda: optimizers.AdamW(0.01, clipnorm=1.0),
    ],
)
def test_training_goes_on_where_it_stopped(tmp_path, optimizer):
    model = small(
        optimizer=optimizer() if callable(optimizer) else optimizer, loss="binary_crossentropy", metrics=["accuracy"]
    )
    model.fit(X, Y, epochs=2, batch_size=8, verbose=0)
    if optimizer == "adam":
        model.optimizer.learning_rate = 0.02
    model.save(tmp_path / "m.dlgpu")
    load_model(tmp_path / "m.dlgpu").save(tmp_path / "again.dlgpu")  # nothing is lost on the way through
    loaded = load_model(tmp_path / "again.dlgpu")
    assert loaded.optimizer.iterations == 6
    assert loaded.optimizer.learning_rate == pytest.approx(model.optimizer.learning_rate)
    histories = [m.fit(X, Y, epochs=2, batch_size=8, shuffle=False, verbose=0).history for m in (model, loaded)]
    assert histories[0] == histories[1]
    for one, two in zip(model.get_weights(), loaded.get_weights()):
        np.testing.assert_array_equal(one, two)


def test_a_pickled_model_trains_on_where_it_stopped():
    model = small(optimizer="adam", loss=my_loss, metrics=["accuracy"])
    model.add(UserScale(2.0))
    model.fit(X, Y, batch_size=8, verbose=0)
    model.layers[0].trainable = False
    # in another process, whose own classes and functions are found by where they are defined
    code = "import pickle, sys; sys.stdout.buffer.write(pickle.dumps(pickle.load(sys.stdin.buffer)))"
    found = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(model), stdout=subprocess.PIPE, check=True)
    for other in (pickle.loads(found.stdout), copy.deepcopy(model)):
        assert other.optimizer.iterations == 3
        assert not other.layers[0].trainable
        before = [w.copy() for w in model.get_weights()]
        histories = [m.fit(X, Y, shuffle=False, verbose=0).history for m in (other, copy.deepcopy(model))]
        assert histories[0] == histories[1]
        assert all((one == two).all() for one, two in zip(before, model.get_weights()))


def test_tensors_and_layers_can_be_pickled():
    layer = Dense(2, activation="relu", input_dim=4)
    layer(X)
    found, tensor = pickle.loads(pickle.dumps((layer, Tensor([1.0], requires_grad=True))))
    np.testing.assert_array_equal(found(X).numpy(), layer(X).numpy())
    found(X).sum().backward()
    tensor.sum().backward()
    assert found.bias.grad is not None
    assert layer.bias.grad is None
    assert tensor.grad.item() == 1


def test_a_model_frozen_after_training_can_be_saved(tmp_path):
    model = small(optimizer="adam", loss="mse")
    model.fit(X, Y, verbose=0)
    for frozen in (model.layers[0], model):
        frozen.trainable = False
        model.save(tmp_path / "m.dlgpu")
        loaded = load_model(tmp_path / "m.dlgpu")
        assert loaded.optimizer.iterations == 1
        assert [w.requires_grad for w in loaded.weights] == [w.requires_grad for w in model.weights]


def test_losses_and_metrics_of_several_outputs_come_back(tmp_path):
    model = graph()
    model.compile(
        "sgd",
        loss={"x": losses.Huber(delta=0.5), "y": losses.mean_squared_error},
        loss_weights={"y": 0.25},
        metrics={"y": ["mae"]},
    )
    model.save(tmp_path / "m.dlgpu")
    x, y = inputs_for(graph), {"x": X[:, :2], "y": Y}
    results = [m.evaluate(x, y, verbose=0, return_dict=True) for m in (model, load_model(tmp_path / "m.dlgpu"))]
    assert results[0] == results[1]
    assert "y_mae" in results[0]


def test_compile_can_be_left_out(tmp_path):
    model = small(optimizer="adam", loss="mse")
    model.save(tmp_path / "m.dlgpu")
    with pytest.raises(ValueError, match="call compile"):
        load_model(tmp_path / "m.dlgpu", compile=False).fit(X, Y)


def my_loss(y_true, y_pred):
    return ((y_true - y_pred) ** 2).mean(axis=-1)


def test_a_function_of_the_users_comes_back_by_custom_objects(tmp_path):
    model = small(optimizer="adam", loss=my_loss)
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "m.dlgpu")
    with pytest.raises(ValueError, match=r"m\.dlgpu: Unknown function 'my_loss'.* custom_objects"):
        load_model(tmp_path / "m.dlgpu")
    assert load_model(tmp_path / "m.dlgpu", compile=False).built
    loaded = load_model(tmp_path / "m.dlgpu", custom_objects={"my_loss": my_loss})
    assert loaded.evaluate(X, Y, verbose=0) == model.evaluate(X, Y, verbose=0)


def test_a_loss_that_cannot_be_described_is_left_out_with_one_warning(tmp_path):
    model = small(optimizer="adam", loss=lambda y, p: (y - p) ** 2)
    with pytest.warns(UserWarning, match="saved without optimizer, loss and metrics: cannot describe") as caught:
        model.save(tmp_path / "m.dlgpu")
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same_outputs(load_model(tmp_path / "m.dlgpu", compile=False), model, X)
    with pytest.warns(UserWarning, match=r"m\.dlgpu was saved without .*; call compile before training") as caught:
        assert load_model(tmp_path / "m.dlgpu").optimizer is None
    assert caught[0].filename == __file__


def test_a_model_that_cannot_be_described_leaves_the_old_file(tmp_path):
    path = tmp_path / "m.dlgpu"
    small().save(path)
    before = path.read_bytes()
    with pytest.raises(TypeError, match="cannot describe <function"):
        Sequential([Dense(2, activation=lambda x: x, input_dim=4)]).save(path)
    assert path.read_bytes() == before


class UserScale(Layer):
    """A user's layer whose constructor knows nothing of names."""

    def __init__(self, start):
        super().__init__()
        self.start = start

    def build(self, input_shape):
        self.factor = self.add_weight((input_shape[-1],), "ones", "factor")

    def call(self, inputs):
        return inputs * self.factor * self.start


class UserNet(Model):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.embedding = Embedding(7, units)
        self.flatten = Flatten()
        self.scale = UserScale(2.0)

    def call(self, inputs):
        return self.scale(self.flatten(self.embedding(inputs["words"])))


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "scaled"])
@pytest.mark.parametrize("built", [False, True])
def test_a_model_that_was_compiled_and_not_trained_is_trained_after_loading(tmp_path, optimizer, built):
    model, x = Sequential([Dense(2)]), np.ones((8, 3), np.float32)
    model.compile(optimizers.LossScaleOptimizer("adam") if optimizer == "scaled" else optimizer, "mse")
    model.optimizer.learning_rate = 0.25
    if built:
        model(x)
    model.save(tmp_path / "m.dlgpu")
    loaded = load_model(tmp_path / "m.dlgpu")
    loaded.fit(x, x[:, :2], batch_size=4, verbose=0)
    assert (loaded.optimizer.iterations, loaded.optimizer.learning_rate) == (2, 0.25)


def test_users_layers_and_subclassed_models_come_back(tmp_path):
    x = {"words": rng.integers(0, 7, (3, 4))}
    model = UserNet(2, name="net")
    model.save(tmp_path / "unbuilt.dlgpu")
    assert not load_model(tmp_path / "unbuilt.dlgpu").built
    model(x)
    model.scale.factor.assign(rng.normal(size=8))
    model.save(tmp_path / "m.dlgpu")
    loaded = load_model(tmp_path / "m.dlgpu")
    assert loaded.name == "net"
    assert list(weights_by_path(loaded)) == ["embedding/embeddings", "user_scale/factor"]
    assert_same_outputs(loaded, model, x)


class Stack(Layer):
    """A user's layer whose constructor takes any number of layers."""

    def __init__(self, *inner, **options):
        super().__init__(**options)
        self.inner = inner

    def call(self, inputs):
        for layer in self.inner:
            inputs = layer(inputs)
        return inputs


def test_a_layer_of_any_number_of_arguments_comes_back(tmp_path):
    model = Sequential([Stack(Dense(3), UserScale(2.0), Dense(2), name="stack", trainable=False)])
    model(X)
    model.save(tmp_path / "m.dlgpu")
    for loaded in (load_model(tmp_path / "m.dlgpu"), pickle.loads(pickle.dumps(model))):
        assert_same_outputs(loaded, model, X)
        assert (loaded.layers[0].name, loaded.layers[0].trainable) == ("stack", False)


def test_a_class_that_is_not_there_is_named(tmp_path):
    kept = Layer.registry["UserScale"]
    try:
        Sequential([UserScale(1.0)]).save(tmp_path / "m.dlgpu")
        del Layer.registry["UserScale"]
        with pytest.raises(
            ValueError, match=r"m\.dlgpu: Unknown layer 'UserScale'.*A class of your own must be defined"
        ):
            load_model(tmp_path / "m.dlgpu")
        assert load_model(tmp_path / "m.dlgpu", custom_objects={"UserScale": kept}).layers[0].start == 1.0
    finally:
        Layer.registry["UserScale"] = kept


def scale_by(factor, kind=Layer):
    class Scale(kind):
        def call(self, *inputs):
            return factor * inputs[-1]

    return Scale


def loss_named_alike(factor):
    def my_loss(y_true, y_pred):
        return factor * (y_true - y_pred).mean(axis=-1)

    return my_loss


def test_two_classes_of_one_name_are_refused_and_not_mistaken_for_each_other(tmp_path):
    model = Sequential([scale_by(2)(), scale_by(3)(), Dense(1)])
    model(X)
    message = r"two definitions of the layer 'Scale', .*Scale'> and .*Scale'>, .*: give one of them another name, or"
    with pytest.raises(TypeError, match=message):
        model.save(tmp_path / "m.dlgpu")
    with pytest.raises(TypeError, match=message):
        pickle.dumps(model)
    assert os.listdir(tmp_path) == []


def test_two_losses_of_one_name_are_not_mistaken_for_each_other(tmp_path):
    model = graph()
    model.compile("sgd", loss={"x": my_loss, "y": loss_named_alike(3)})
    with pytest.warns(
        UserWarning, match="saved without optimizer, loss and metrics: two definitions of the function 'my_loss'"
    ):
        model.save(tmp_path / "m.dlgpu")


class Pinball(losses.Loss):
    def call(self, y_true, y_pred):
        return abs(y_true - y_pred)


def test_a_class_of_another_kind_may_have_the_same_name(tmp_path):
    model = Sequential([type("Pinball", (UserScale,), {"__module__": __name__})(2.0), Dense(1)])
    model.compile("sgd", Pinball())
    model(X)
    model.save(tmp_path / "m.dlgpu")
    loaded = load_model(tmp_path / "m.dlgpu")
    assert_same_outputs(loaded, model, X)
    assert type(loaded._step.objective.losses[0]) is Pinball


def refuses(model, path, message):
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        model.load_weights(path)
    for now, then in zip(model.get_weights(), before):
        np.testing.assert_array_equal(now, then)


def test_weights_that_do_not_fit_change_nothing(tmp_path):
    path = tmp_path / "w.safetensors"
    small(units=6).save_weights(path)
    refuses(small(), path, r"w.safetensors does not fit: the model has dense/kernel \(4, 5\), the file has .*\(4, 6\)")
    Sequential([Dense(5, input_dim=4)]).save_weights(path)
    refuses(small(), path, r"the model has dense_1/kernel \(5, 1\), the file has no such weight")
    Sequential([Dense(5, input_dim=4), Dense(1), Dense(2)]).save_weights(path)
    refuses(small(), path, r"the file has dense_2/\w+ .*, the model has no such weight")
    convolutional().save_weights(path)
    refuses(small(), path, r"the model has dense/kernel \(4, 5\), the file has dense/kernel \(48, 2\)")
    write_safetensors(path, {"model.embed.weight": np.zeros((2, 3))})
    refuses(small(), path, r"the file has model.embed.weight \(2, 3\)")


@pytest.mark.parametrize("name", ["w.safetensors", "m.dlgpu"])
def test_a_truncated_file_changes_nothing(tmp_path, name):
    path = tmp_path / name
    (small().save if name.endswith("dlgpu") else small().save_weights)(path)
    path.write_bytes(path.read_bytes()[:-40])
    refuses(small(), path, f"{name} is truncated")
    if name.endswith("dlgpu"):
        with pytest.raises(ValueError, match="truncated"):
            load_model(path)


def test_a_missing_file_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "m.dlgpu")
    with pytest.raises(FileNotFoundError):
        small().load_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda m, p: m.save(f"{p}/m.keras"), r"ends in \.dlgpu for a model, got '.*m\.keras'"),
        (lambda m, p: save_model(m, f"{p}/m"), r"ends in \.dlgpu"),
        (lambda m, p: m.save_weights(f"{p}/m.dlgpu"), r"ends in \.safetensors for weights, got .*save writes a whole"),
        (lambda m, p: m.load_weights(f"{p}/m.npz"), r"ends in \.safetensors"),
        (lambda m, p: Sequential([Dense(2)]).save_weights(f"{p}/m.safetensors"), "is not built yet"),
        (lambda m, p: Sequential([Dense(2)]).load_weights(f"{p}/good.safetensors"), "is not built yet"),
    ],
)
def test_mistakes_are_named(tmp_path, mistake, message):
    model = small()
    model.save_weights(tmp_path / "good.safetensors")
    with pytest.raises(ValueError, match=message):
        mistake(model, tmp_path)
    assert os.listdir(tmp_path) == ["good.safetensors"]


def test_a_file_of_a_newer_format_says_so(tmp_path):
    path = tmp_path / "m.dlgpu"
    small().save(path)
    members = read_archive(path)
    description = json.loads(members["model.json"]) | {"format": 99, "dlgpu": "9.9"}
    write_archive(path, members | {"model.json": json.dumps(description).encode()})
    with pytest.raises(ValueError, match=r"was written by dlgpu 9\.9"):
        load_model(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "")
    with pytest.raises(ValueError, match=r"is no \.dlgpu file: it holds word/document\.xml"):
        load_model(path)


def test_the_same_model_is_the_same_file(tmp_path):
    model = small(optimizer="adam", loss="mse")
    model.fit(X, Y, verbose=0)
    for name in "ab":
        model.save(tmp_path / f"{name}.dlgpu")
    assert (tmp_path / "a.dlgpu").read_bytes() == (tmp_path / "b.dlgpu").read_bytes()


def test_saving_draws_no_random_numbers(tmp_path):
    draws = []
    for save in (True, False):
        set_random_seed(3)
        model = small(optimizer="sgd", loss="mse")
        if save:
            model.save(tmp_path / "m.dlgpu")
        draws.append(Dense(2, input_dim=3)(X[:, :3]).numpy())
    np.testing.assert_array_equal(*draws)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: [],
        lambda d: {},
        lambda d: {**d, "model": "Dense"},
        lambda d: {**d, "model": {**d["model"], "config": [1]}},
        lambda d: {**d, "model": {**d["model"], "class": ["Dense"]}},
        lambda d: {**d, "model": {**d["model"], "class": "__class__"}},
        lambda d: {**d, "model": {"function": ["exec"]}},
        lambda d: {**d, "compile": {"a": 1}},
        lambda d: {**d, "compile": {**d["compile"], "optimizer": None}},
    ],
)
def test_a_description_that_makes_no_sense_is_refused(change, tmp_path):
    path, model = tmp_path / "m.dlgpu", Sequential([Dense(1, input_shape=(2,))])
    model.compile("adam", "mse")
    model.save(path)
    members = read_archive(path)
    write_archive(path, {**members, "model.json": json.dumps(change(json.loads(members["model.json"]))).encode()})
    with pytest.raises(ValueError, match=r"m\.dlgpu: "):
        load_model(path)


def test_a_loaded_model_predicts_the_same_bits(tmp_path, rng):
    x = rng.standard_normal((1, 4, 1)).astype("float32")
    model = Sequential([GRU(5, recurrent_activation="tanh", input_shape=(4, 1))])
    assert all(w.array.flags.c_contiguous for w in model.weights)
    model.compile("sgd", "mse")
    model.fit(x, np.ones((1, 5)), verbose=0)
    model.save(tmp_path / "m.dlgpu")
    np.testing.assert_array_equal(load_model(tmp_path / "m.dlgpu").predict(x, verbose=0), model.predict(x, verbose=0))


class Memory(Model):
    def __init__(self):
        super().__init__()
        self.recurrent = LSTM(3, stateful=True)

    def call(self, inputs):
        return self.recurrent(inputs)


def test_a_loaded_stateful_model_begins_with_zeros(tmp_path, rng):
    x = rng.standard_normal((4, 5, 2)).astype("float32")
    model = Memory()
    expected = model.predict(x, verbose=0)
    model.save(tmp_path / "m.dlgpu")
    np.testing.assert_array_equal(load_model(tmp_path / "m.dlgpu").predict(x, verbose=0), expected)
