"""Sequential: built at once where the input shape is known, else by the first data."""

import numpy as np
import pytest

from dlgpu.layers import Activation, Dense, Layer
from dlgpu.models import Input, Sequential

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


def test_each_layer_feeds_the_next():
    model = Sequential([Dense(5, activation="relu", input_shape=(4,)), Dense(2)])
    first, second = model.layers
    expected = np.maximum(X @ first.kernel.numpy() + first.bias.numpy(), 0) @ second.kernel.numpy()
    np.testing.assert_allclose(model(X).numpy(), expected + second.bias.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [Dense(5, input_dim=4), Dense(2)],
        lambda: [Dense(5, input_shape=(4,)), Dense(2)],
        lambda: [Input((4,)), Dense(5), Dense(2)],
        lambda: [Input(shape=(4,)), Activation("tanh"), Dense(5), Dense(2)],
    ],
)
def test_the_input_shape_builds_the_model_at_once(layers):
    model = Sequential(layers())
    assert model.built
    assert model.input_shape == (4,)
    assert model.output_shape == (None, 2)
    assert [w.shape for w in model.weights] == [(4, 5), (5,), (5, 2), (2,)]


def test_without_an_input_shape_the_first_data_build_the_model():
    model = Sequential([Dense(5), Dense(2)])
    assert not model.built
    assert model.weights == []
    with pytest.raises(ValueError, match="is not built yet and has no weights"):
        model.get_weights()
    with pytest.raises(AttributeError, match="is not built yet"):
        _ = model.layers[0].kernel
    assert model(X).shape == (3, 2)
    assert [w.shape for w in model.weights] == [(4, 5), (5,), (5, 2), (2,)]
    assert model.input_shape == (4,)


def test_build_makes_the_weights_for_a_shape():
    model = Sequential([Dense(5), Dense(2)])
    model.build((None, 4))
    assert model.count_params() == 37


def test_layers_can_be_added_after_the_model_is_built():
    model = Sequential([Dense(5)])
    model(X)
    model.add(Dense(2))
    assert model.output_shape == (None, 2)
    assert model(X).shape == (3, 2)


def test_pop_takes_the_last_layer_off():
    model = Sequential([Dense(5, input_dim=4), Dense(2)])
    kept = model.layers[0].kernel
    assert model.pop().units == 2
    assert model.output_shape == (None, 5)
    model.add(Dense(3))
    assert model(X).shape == (3, 3)
    assert model.layers[0].kernel is kept


def test_an_emptied_model_takes_another_input_shape():
    model = Sequential([Dense(5, input_dim=4)])
    model.pop()
    model.add(Dense(5, input_dim=7))
    assert model.weights[0].shape == (7, 5)
    model.pop()
    with pytest.raises(ValueError, match="no layer to take off"):
        model.pop()


def test_a_model_in_a_model_is_a_layer():
    inner = Sequential([Dense(5, input_dim=4), Dense(3)])
    model = Sequential([inner, Dense(2)])
    assert model.built
    assert len(model.weights) == 6
    np.testing.assert_array_equal(model(X).numpy(), model.layers[1](inner(X)).numpy())


def test_layers_that_do_not_state_their_output_shape_are_tried():
    class Pairs(Layer):
        def call(self, inputs):
            return inputs[:, ::2]

    model = Sequential([Pairs(input_shape=(5,)), Dense(2)])
    assert model.layers[1].kernel.shape == (3, 2)


def test_a_layer_that_cannot_be_added_leaves_the_model_as_it_was():
    class Broken(Layer):
        def build(self, input_shape):
            self.fail("cannot be built")

    model = Sequential([Dense(5, input_dim=4)])
    with pytest.raises(ValueError, match="cannot be built"):
        model.add(Broken())
    assert len(model.layers) == 1
    assert model(X).shape == (3, 5)


@pytest.mark.parametrize(
    ("mistake", "error", "message"),
    [
        (lambda m: m.add("dense"), TypeError, "expected a layer, got 'dense'"),
        (lambda m: m.add(Dense), TypeError, "expected a layer, got <class"),
        (lambda m: Sequential(Dense(3)), TypeError, "expected a list of layers, got <Dense"),
        (lambda m: m.add(Input((3,))), ValueError, "an Input can only stand in front"),
        (lambda m: m.add(Dense(1, name="head")), ValueError, "a layer named 'head' already; names must differ"),
        (lambda m: m.add(m.layers[0]), ValueError, "names must differ"),
        (lambda m: m(np.zeros((3, 5))), ValueError, r"Dense 'head': expected .*\(batch, 4\), got \(3, 5\)"),
        (lambda m: m.get_layer("tail"), ValueError, "no layer is named 'tail'; there are head"),
        (lambda m: Sequential()(X), ValueError, "has no layers; add some"),
        (lambda m: m.fit(X, X), ValueError, "call compile"),
    ],
)
def test_mistakes_are_named(mistake, error, message):
    model = Sequential([Dense(2, input_dim=4, name="head")])
    with pytest.raises(error, match=message):
        mistake(model)


@pytest.mark.parametrize("built", [True, False])
def test_a_configuration_makes_the_same_model(built):
    model = Sequential([Dense(5, "relu", input_shape=(4,) if built else None), Dense(2, name="head")], name="net")
    again = Sequential.from_config(model.get_config())
    assert again.name == "net"
    assert again.built == built
    assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]
    model(X)
    again(X)
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(again(X).numpy(), model(X).numpy())
