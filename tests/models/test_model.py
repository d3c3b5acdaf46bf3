"""What all models can do, however they are made."""

import numpy as np
import pytest

import dlgpu
from dlgpu.layers import Dense, Layer
from dlgpu.models import Input, Model, Sequential

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


class Net(Model):
    def __init__(self, units, depth=2, **kwargs):
        super().__init__(**kwargs)
        self.hidden = [Dense(units, activation="tanh") for _ in range(depth)]
        self.head = Dense(1, name="head")

    def call(self, inputs):
        for layer in self.hidden:
            inputs = layer(inputs)
        return self.head(inputs)


def sequential():
    return Sequential([Dense(5, activation="tanh", input_dim=4), Dense(1, name="head")])


def functional():
    x = Input((4,))
    return Model(inputs=x, outputs=Dense(1, name="head")(Dense(5, activation="tanh")(x)))


def subclassed():
    model = Net(5, depth=1)
    model(X)
    return model


every_kind = pytest.mark.parametrize("make", [sequential, functional, subclassed])


@every_kind
def test_weights_go_from_model_to_model(make):
    model, other = sequential(), make()
    other.set_weights(model.get_weights())
    np.testing.assert_array_equal(other(X).numpy(), model(X).numpy())
    assert other.count_params() == 31


@every_kind
def test_get_weights_returns_copies(make):
    model = make()
    model.get_weights()[0][:] = 7
    assert not (model.get_weights()[0] == 7).any()


@every_kind
def test_weights_that_do_not_fit_change_nothing(make):
    model = make()
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"expected an array of shape \(1,\) for head/bias, got \(2,\)"):
        model.set_weights([w + 1 for w in before[:3]] + [np.zeros(2)])
    with pytest.raises(ValueError, match="expected 4 weight arrays, got 3"):
        model.set_weights(before[:3])
    for now, then in zip(model.get_weights(), before):
        np.testing.assert_array_equal(now, then)


@every_kind
def test_frozen_layers_are_not_trained(make):
    model = make()
    model.layers[0].trainable = False
    model.compile("sgd", "mse")
    before = model.get_weights()
    model.fit(X, X[:, :1], verbose=0)
    changed = [not np.array_equal(now, then) for now, then in zip(model.get_weights(), before)]
    assert changed == [False, False, True, True]
    assert [w.path for w in model.trainable_weights] == ["head/kernel", "head/bias"]
    model.trainable = False
    assert model.trainable_weights == []
    assert len(model.non_trainable_weights) == 4
    with pytest.raises(ValueError, match="no trainable weights: is every layer frozen"):
        model.fit(X, X[:, :1], verbose=0)
    model.trainable = True
    assert len(model.trainable_weights) == 4


@every_kind
def test_a_model_on_its_own_device_stays_there(make):
    model = make()
    arrays = [w.array for w in model.weights]
    assert model.device == dlgpu.current_device()
    assert model.to(model.device) is model
    assert all(w.array is a for w, a in zip(model.weights, arrays))
    with pytest.raises(dlgpu.DeviceError, match="Unknown device 'tpu'"):
        model.to("tpu")


@every_kind
def test_layers_are_found_by_name_and_place(make):
    model = make()
    assert model.get_layer("head") is model.layers[1] is model.get_layer(index=1)


def test_a_subclass_is_built_by_its_first_data():
    model = Net(5, depth=2)
    assert not model.built
    model(X)
    assert [w.shape for w in model.weights] == [(4, 5), (5,), (5, 5), (5,), (5, 1), (1,)]


def test_a_subclass_trains():
    model = Net(8)
    model.compile("adam", "mse")
    history = model.fit(X, X[:, :1], epochs=20, verbose=0).history["loss"]
    assert history[-1] < history[0]


def test_a_subclass_is_described_by_its_arguments():
    again = Net.from_config(Net(5, depth=3, name="net").get_config())
    assert (again.name, len(again.hidden)) == ("net", 3)


def test_names_given_to_layers_are_not_made_again():
    name = f"{Dense(1).name}x"
    Dense(1, name=name)
    number = int(Dense(1).name.rsplit("_", 1)[1])
    Dense(1, name=f"dense_{number + 1}")
    assert Dense(1).name == f"dense_{number + 2}"


def test_a_users_layer_keeps_its_name_though_its_constructor_takes_none():
    class Scale(Layer):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

    layer = Scale(2.0)
    layer.name, layer.trainable = "mine", False
    again = Scale.from_config(layer.get_config())
    assert (again.name, again.trainable, again.factor) == ("mine", False, 2.0)


def lines(model):
    printed = []
    model.summary(print_fn=printed.append)
    return "\n".join(printed).split("\n")


def test_the_summary_lists_layers_shapes_and_numbers_of_parameters():
    model = Sequential([Dense(1000, input_dim=4, name="wide"), Dense(1, name="head")], name="net")
    model.layers[1].trainable = False
    assert lines(model) == [
        "Model: net",
        "--------------------------------------",
        "Layer (type)  Output shape  Parameters",
        "--------------------------------------",
        "wide (Dense)  (None, 1000)       5,000",
        "head (Dense)  (None, 1)          1,001",
        "--------------------------------------",
        "Parameters: 6,001 (5,000 trainable, 1,001 not trainable)",
    ]


def test_the_summary_of_a_graph_has_every_output_of_a_shared_layer():
    a, b = Input((4,)), Input((4,))
    shared = Dense(3, name="shared")
    text = lines(Model([a, b], [shared(a), shared(b)]))
    assert text[4].split("  ")[0] == "shared (Dense)"
    assert "[(None, 3), (None, 3)]" in text[4]
    assert text[-1].startswith("Parameters: 15 ")


def test_the_summary_of_a_model_that_is_not_built_says_so():
    text = lines(Sequential([Dense(3)]))
    assert text[4].split() == [text[4].split()[0], "(Dense)", "?", "not", "built"]
    assert text[-1] == "Parameters: unknown until the layers have seen the shape of the data"


def test_initial_weights_have_the_layers_dtype_and_shape():
    layer = Dense(3, kernel_initializer=lambda shape, dtype: np.ones(shape), input_shape=(2,))
    assert layer(np.ones((1, 2), "float32")).dtype == layer.kernel.dtype == np.float32
    with pytest.raises(ValueError, match=r"kernel of shape \(2, 3\), got \(3, 2\)"):
        Dense(3, kernel_initializer=lambda shape, dtype: np.ones(shape[::-1]))(np.ones((1, 2)))
