"""Functional models: graphs of layer calls, with any number of inputs and outputs."""

import json

import numpy as np
import pytest

from dlgpu import ops
from dlgpu.layers import Dense, Layer
from dlgpu.models import Functional, Input, Model, Sequential

A = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
B = np.linspace(2, 3, 6, dtype=np.float32).reshape(3, 2)


class Join(Layer):
    """The sum of its inputs."""

    def call(self, inputs):
        total = inputs[0]
        for other in inputs[1:]:
            total = total + other
        return total


class Halves(Layer):
    """Two outputs, in a tuple."""

    def call(self, inputs):
        middle = inputs.shape[-1] // 2
        return inputs[:, :middle], inputs[:, middle:]


class Twins(Layer):
    """A dictionary of outputs."""

    def call(self, inputs):
        return {"plus": inputs, "minus": -inputs}


def two_by_two(structure):
    a, b = Input((4,), name="a"), Input((2,), name="b")
    both = Join(name="join")([Dense(5, name="left")(a), Dense(5, name="right")(b)])
    outputs = Dense(1, name="head")(both), Dense(3, name="tail")(both)
    if structure == "list":
        return Model([a, b], list(outputs))
    return Model({"first": a, "second": b}, {"x": outputs[0], "y": outputs[1]})


def expected(model):
    left, right, head, tail = (model.get_layer(n) for n in ("left", "right", "head", "tail"))
    both = left(A) + right(B)
    return head(both).numpy(), tail(both).numpy()


def test_inputs_and_outputs_in_lists():
    model = two_by_two("list")
    assert isinstance(model, Functional)
    assert model.output_names == ["head", "tail"]
    for given in ([A, B], (A, B), {"a": A, "b": B}):
        for found, wanted in zip(model(given), expected(model)):
            np.testing.assert_array_equal(found.numpy(), wanted)


def test_inputs_and_outputs_in_dictionaries_go_by_their_keys():
    model = two_by_two("dictionary")
    assert model.output_names == ["x", "y"]
    outputs = model({"second": B, "first": A})
    for name, wanted in zip("xy", expected(model)):
        np.testing.assert_array_equal(outputs[name].numpy(), wanted)


def test_predict_keeps_the_structure():
    for structure, keys in (("list", (0, 1)), ("dictionary", "xy")):
        model = two_by_two(structure)
        given = [A, B] if structure == "list" else {"first": A, "second": B}
        found = model.predict(given, batch_size=2, verbose=0)
        for key, wanted in zip(keys, expected(model)):
            np.testing.assert_allclose(found[key], wanted, rtol=1e-5, atol=1e-6)


def test_a_shared_layer_counts_once_and_learns_from_all_its_calls():
    a, b = Input((4,)), Input((4,))
    shared = Dense(3, use_bias=False)
    model = Model([a, b], Join()([shared(a), shared(b)]))
    assert len(model.weights) == 1
    np.testing.assert_allclose(model([A, 2 * A]).numpy(), 3 * A @ shared.kernel.numpy(), rtol=1e-5, atol=1e-6)
    ops.sum(model([A, 2 * A])).backward()
    np.testing.assert_allclose(shared.kernel.grad.numpy()[:, 0], 3 * A.sum(axis=0), rtol=1e-5, atol=1e-6)


def test_layers_with_several_outputs():
    x = Input((4,))
    left, right = Halves()(x)
    twins = Twins()(right)
    model = Model(x, [left, twins["minus"]])
    found = model(A)
    np.testing.assert_array_equal(found[0].numpy(), A[:, :2])
    np.testing.assert_array_equal(found[1].numpy(), -A[:, 2:])
    assert model.compute_output_shape((None, 4)) == [(None, 2), (None, 2)]


@pytest.mark.parametrize("structure", ["list", "dictionary"])
def test_a_model_in_a_graph_keeps_its_structure(structure):
    inner = two_by_two(structure)
    a, b = Input((4,)), Input((2,))
    made = inner([a, b] if structure == "list" else {"first": a, "second": b})
    model = Model([a, b], made)
    found = model([A, B])
    for key, wanted in zip((0, 1) if structure == "list" else "xy", expected(inner)):
        np.testing.assert_array_equal(found[key].numpy(), wanted)


def test_one_output_in_a_list_stays_in_a_list():
    x = Input((4,))
    inner = Model([x], [Dense(3)(x)])
    y = Input((4,))
    outer = Model(y, inner([y])[0])
    np.testing.assert_array_equal(outer(A).numpy(), inner([A])[0].numpy())


def test_sequential_and_subclassed_models_stand_in_graphs():
    class Net(Model):
        def __init__(self):
            super().__init__()
            self.head = Dense(2)

        def call(self, inputs):
            return self.head(inputs)

    x = Input((4,))
    net = Net()
    model = Model(x, net(Sequential([Dense(5)])(x)))
    assert [w.shape for w in model.weights] == [(4, 5), (5,), (5, 2), (2,)]
    assert model(A).shape == (3, 2)


def test_part_of_a_graph_is_a_model_too():
    x = Input((4,))
    hidden = Dense(5)(x)
    whole = Model(x, Dense(2)(hidden))
    front, back = Model(x, hidden), Model(hidden, whole.outputs)
    np.testing.assert_array_equal(back(front(A)).numpy(), whole(A).numpy())
    assert len(back.weights) == 2


def test_an_input_can_be_an_output():
    x = Input((4,), name="x")
    model = Model(x, [x, Dense(2, name="head")(x)])
    np.testing.assert_array_equal(model(A)[0].numpy(), A)
    assert model.output_names == ["x", "head"]


def test_arguments_of_calls_are_kept():
    class Power(Layer):
        def call(self, inputs, exponent=1, plus=None):
            return inputs**exponent + plus

        def compute_output_shape(self, input_shape):
            return input_shape

    x = Input((4,))
    model = Model(x, Power()(x, exponent=2, plus=x))
    np.testing.assert_allclose(model(A).numpy(), A**2 + A, rtol=1e-6)
    again = Functional.from_config(json.loads(json.dumps(model.get_config())))
    np.testing.assert_allclose(again(A).numpy(), A**2 + A, rtol=1e-6)


def test_a_deep_graph_of_diamonds_is_sorted_at_once():
    x = y = Input((2,))
    for _ in range(400):
        y = Join()([y, Join()([y, x])])
    assert len(Model(x, y).layers) == 800


def test_a_functional_model_in_front_builds_a_sequential():
    x = Input((4,))
    model = Sequential([Model(x, Dense(5)(x)), Dense(2)])
    assert model.built


@pytest.mark.parametrize("structure", ["list", "dictionary"])
def test_a_configuration_makes_the_same_graph(structure):
    model = two_by_two(structure)
    again = Functional.from_config(json.loads(json.dumps(model.get_config())))
    again.set_weights(model.get_weights())
    given = [A, B] if structure == "list" else {"first": A, "second": B}
    assert again.name == model.name
    assert again.output_names == model.output_names
    assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]
    for found, wanted in zip(again.predict(given, verbose=0), model.predict(given, verbose=0)):
        np.testing.assert_array_equal(found, wanted)


def test_names_like_those_of_the_configuration_do_no_harm():
    x = Input((4,))
    model = Model({"input": x}, {"call": Dense(2)(x), "output": Dense(2)(x)})
    again = Functional.from_config(json.loads(json.dumps(model.get_config())))
    assert again({"input": A}).keys() == {"call", "output"}


def disconnected():
    x, y = Input((4,), name="x"), Input((4,), name="y")
    Model(x, Join()([Dense(2)(x), Dense(2)(y)]))


def same_names():
    x = Input((4,))
    Model(x, Dense(4, name="d")(Dense(4, name="d")(x)))


@pytest.mark.parametrize(
    ("mistake", "error", "message"),
    [
        (disconnected, ValueError, "the outputs also depend on 'y', which is not among the inputs"),
        (lambda: ops.tanh(Input((8,))), TypeError, "stands for an array to be, and takes part in layers only: use one"),
        (lambda: Input((8,)) + 1, TypeError, "in layers only"),
        (lambda: np.ones(8) * Input((8,)), TypeError, "in layers only"),
        (lambda: Input((8,))[0], TypeError, "in layers only"),
        (lambda: Dense(3)([Input((8,)), Input((8,))]), ValueError, "expected one array as inputs, got a list"),
        (same_names, ValueError, "two layers are named 'd'; names must differ"),
        (lambda: Model(A, A), TypeError, "expected symbols made from Input"),
        (lambda: two_by_two("list")(A), ValueError, "expected 2 inputs, got 1"),
        (lambda: two_by_two("list")({"a": A}), ValueError, "expected inputs a, b; b is missing"),
        (lambda: two_by_two("dictionary")({"a": A}), ValueError, "expected inputs first, second; first, second is"),
        (lambda: two_by_two("list")([B, A]), ValueError, r"shape \(batch, 4\) for 'a', got \(3, 2\)"),
        (lambda: Dense(3, name="d")(Input((None,))), ValueError, "Dense 'd': the last dimension .* must be known"),
    ],
)
def test_mistakes_are_named(mistake, error, message):
    with pytest.raises(error, match=message):
        mistake()


def test_the_only_output_in_a_dictionary_keeps_its_name():
    x = Input((4,))
    named, plain = Model(x, {"only": Dense(1, name="head")(x)}), Model(x, Dense(1)(x))
    plain.set_weights(named.get_weights())
    assert (named.output_names, plain.output_names) == (["only"], ["output"])
    y, weight = A[:, :1], np.float32([1, 2, 3])
    named.compile("sgd", {"only": "mse"}, {"only": 2}, metrics={"only": ["mae"]}, weighted_metrics={"only": ["mse"]})
    plain.compile("sgd", "mse", [2], metrics=["mae"], weighted_metrics=["mse"])
    for model, targets, weights in ((named, {"only": y}, {"only": weight}), (named, y, weight)):
        model.fit(A, targets, sample_weight=weights, validation_data=(A, targets, weights), shuffle=False, verbose=0)
        plain.fit(A, y, sample_weight=weight, validation_data=(A, y, weight), shuffle=False, verbose=0)
        assert model.history.history == plain.history.history
        assert model.evaluate(A, targets, sample_weight=weights) == plain.evaluate(A, y, sample_weight=weight)
        assert model.train_on_batch(A, targets) == plain.train_on_batch(A, y)
    found = named.predict(A)
    assert found.keys() == named.predict_on_batch(A).keys() == {"only"}
    np.testing.assert_array_equal(found["only"], plain.predict(A))
    with pytest.raises(ValueError, match="there is no output 'other'; the outputs are only"):
        named.fit(A, {"other": y})
