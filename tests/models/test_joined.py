"""A convolution and the max-pooling after it run in one pass where nobody can tell, and nowhere else."""

import copy
import json

import numpy as np
import pytest

import dlgpu
from dlgpu import layers
from dlgpu.layers import (
    Activation,
    AveragePooling2D,
    Conv1D,
    Conv2D,
    Dense,
    Flatten,
    MaxPooling1D,
    MaxPooling2D,
    Reshape,
    TimeDistributed,
)
from dlgpu.models import Input, Model, Sequential
from dlgpu.tensor import Tensor
from tests.training.replayed import replays

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((8, 7, 8, 3), np.float32), RNG.standard_normal((8, 1)).astype(np.float32)


@pytest.fixture
def joined(monkeypatch):
    """A convolution with the layer that it joined, for each such call."""
    found, call = [], Conv2D.call

    def noting(self, inputs, following=None):
        if following is not None:
            found.append((self.name, following.name))
        return call(self, inputs, following)

    monkeypatch.setattr(Conv2D, "call", noting)
    return found


class Own(Conv2D):
    """With a call of its own."""

    def call(self, inputs):
        return super().call(inputs) * 2


class Same(Conv2D):
    """A subclass all the same."""


class Above(MaxPooling2D):
    """Of what is above 1."""

    def call(self, inputs):
        return super().call(inputs - 1) + 1


def conv(*args, kind=Conv2D, **options):
    return kind(*(args or (4, 3)), **{"activation": "relu", "name": "conv"} | options)


def pool(*args, kind=MaxPooling2D, **options):
    return kind(*(args or (2,)), **{"name": "pool"} | options)


def one_by_one(model, x):
    """What the layers of a Sequential give when each is called by itself."""
    for layer in model.layers:
        x = layer(x)
    return x


@pytest.mark.parametrize(
    "pair",
    [
        lambda: [conv(), pool()],
        lambda: [conv(), pool((2, 2), strides=2)],
        lambda: [conv(activation=None, use_bias=False), pool()],
        lambda: [conv(5, (2, 3), padding="same", strides=(2, 1), activation="gelu"), pool()],
        lambda: [conv(6, 2, groups=3, dilation_rate=2, activation=dlgpu.activations.tanh), pool()],
        lambda: [conv(kernel_regularizer="l2", trainable=False), pool()],
        lambda: [conv(dtype="mixed_bfloat16"), pool(dtype="mixed_bfloat16")],
    ],
)
def test_they_are_joined_and_give_what_they_give_one_by_one(pair, joined):
    model = Sequential(pair())
    found = []
    for run in (model, lambda x: one_by_one(model, x)):
        x = Tensor(X, requires_grad=True)
        out = run(x)
        (out * out).astype("float32").sum().backward()
        found.append([out.numpy(), *(t.grad.numpy().copy() for t in (x, *model.trainable_weights))])
        for w in model.weights:
            w.grad = None
    assert joined == [("conv", "pool")]
    for f, w in zip(*found):
        assert (f.shape, f.dtype, f.tobytes()) == (w.shape, w.dtype, w.tobytes())


@pytest.mark.parametrize(
    "pair",
    [
        lambda: [conv(), Activation("relu"), pool()],
        lambda: [conv(), pool(3)],
        lambda: [conv(), pool(2, strides=1)],
        lambda: [conv(), pool((2, 1))],
        lambda: [conv(), pool(padding="same")],
        lambda: [conv(), pool(kind=AveragePooling2D)],
        lambda: [conv(), pool(kind=Above)],
        lambda: [conv(kind=Own), pool()],
        lambda: [conv(kind=Same), pool()],
        lambda: [conv(3, kind=layers.DepthwiseConv2D), pool()],
        lambda: [conv(4, 3, kind=layers.SeparableConv2D), pool()],
        lambda: [conv(4, 3, kind=layers.Conv2DTranspose), pool()],
        lambda: [Reshape((7, 24)), conv(4, 3, kind=Conv1D), pool(kind=MaxPooling1D)],
        lambda: [conv(activation=lambda z: z * z), pool()],
        lambda: [conv(activation=layers.PReLU(shared_axes=(1, 2))), pool()],
        lambda: [conv(activation="softmax"), pool()],
        lambda: [conv(activity_regularizer="l2"), pool()],
        lambda: [conv(), pool(activity_regularizer="l2")],
        lambda: [conv(), pool(dtype="float64")],
        lambda: [conv(dtype="mixed_float16"), pool()],
        lambda: [dlgpu.checkpointed(conv()), pool()],
        lambda: [conv(), dlgpu.checkpointed(pool())],
        lambda: [Reshape((1, 7, 8, 3)), TimeDistributed(conv()), TimeDistributed(pool())],
        lambda: [Sequential([conv()]), pool()],
        lambda: [conv(), Sequential([pool()])],
    ],
)
def test_what_is_unusual_runs_one_by_one(pair, joined):
    model = Sequential(pair())
    with model.penalties() as penalties:
        out = model(X)
    with model.penalties() as expected:
        wanted = one_by_one(model, X)
    assert joined == []
    np.testing.assert_array_equal(out.numpy(), wanted.numpy())
    assert [p.numpy() for p in penalties] == [p.numpy() for p in expected]


def test_what_is_changed_after_the_model_was_built_counts(joined):
    model = Sequential([conv(), pool()])
    model(X)
    del joined[:]
    first, second = model.layers
    first.call = lambda inputs, call=first.call: call(inputs) - 1
    np.testing.assert_array_equal(model(X).numpy(), one_by_one(model, X).numpy())
    del first.call
    second.strides = (1, 1)
    assert model(X).shape == (8, 4, 5, 4)
    model.pop()
    assert model(X).shape == (8, 5, 6, 4)
    assert joined == []
    model.add(pool())
    model.add(pool(name="another"))  # of what is pooled
    assert model(X).shape == (8, 1, 1, 4)
    assert joined == [("conv", "pool")]


def test_layers_that_are_not_built_are_built_one_by_one(joined):
    model = Sequential([conv(), pool()])
    assert model.call(Tensor(X)).shape == (8, 2, 3, 4)
    assert joined == []
    assert [layer.built for layer in model.layers] == [True, True]


def graph(use, taken=lambda h: h):
    """A functional model of a convolution and max-pooling; `use` makes its outputs of both."""
    inputs = Input((7, 8, 3))
    between = conv()(inputs)
    after = pool()(taken(between))
    return Model(inputs, use(between, after))


def test_in_a_graph_they_are_joined_where_nothing_else_takes_what_is_between(joined):
    model = graph(lambda between, after: Dense(1)(Flatten()(after)))
    wanted = one_by_one(model, X).numpy()
    assert joined == []
    again = [model, copy.deepcopy(model), type(model).from_config(json.loads(json.dumps(model.get_config())))]
    for other in again:
        other.set_weights(model.get_weights())
        np.testing.assert_array_equal(other(X).numpy(), wanted)
    assert joined == [("conv", "pool")] * 3


@pytest.mark.parametrize(
    ("use", "taken"),
    [
        (lambda between, after: [between, after], lambda h: h),
        (lambda between, after: {"a": after, "b": between}, lambda h: h),
        (lambda between, after: [after, Flatten()(between)], lambda h: h),
        (lambda between, after: [after, pool(name="other")(between)], lambda h: h),
        (lambda between, after: layers.Add()([between, between]), lambda h: h),
        (lambda between, after: after, lambda h: layers.Add()([h, h])),
    ],
)
def test_in_a_graph_what_others_take_is_there(use, taken, joined):
    model = graph(use, taken)
    outputs = model(X)
    for out in outputs.values() if isinstance(outputs, dict) else outputs if isinstance(outputs, list) else [outputs]:
        assert out.numpy().any()
    assert joined == []


def test_another_model_that_ends_between_them_gets_what_is_there(joined):
    inputs = Input((7, 8, 3))
    between = conv()(inputs)
    after = pool()(between)
    whole, first, second = Model(inputs, after), Model(inputs, between), Model(between, after)
    assert first(X).shape == (8, 5, 6, 4)
    wanted = second(first(X)).numpy()
    assert joined == []
    np.testing.assert_array_equal(whole(X).numpy(), wanted)
    assert joined == [("conv", "pool")]


def test_a_convolution_that_is_used_twice_is_joined_by_its_uses(joined):
    a, b, layer = Input((7, 8, 3)), Input((7, 8, 3)), conv()
    model = Model([a, b], [pool()(layer(a)), Flatten()(layer(b))])
    small, large = model([X, X])
    assert joined == [("conv", "pool")]
    np.testing.assert_array_equal(small.numpy(), layers.MaxPooling2D()(large.reshape(8, 5, 6, 4)).numpy())


def test_arguments_of_a_call_keep_layers_apart(joined):
    inputs = Input((7, 8, 3))
    Model(inputs, pool()(conv()(inputs), training=True))(X)
    Model(inputs, pool()(conv()(inputs, training=True)))(X)
    assert joined == []


@pytest.mark.parametrize("shape", [(8, 2, 8, 3), (8, 3, 8, 3), (8, 7, 8, 2), (8, 7, 8)])
def test_errors_name_the_layer_that_does_not_fit(shape):
    model, x = Sequential([conv(name="front"), pool(name="back")]), np.ones(shape, np.float32)
    model.build((None, 7, 8, 3))
    with pytest.raises(ValueError) as expected:
        one_by_one(model, x)
    with pytest.raises(ValueError) as found:
        model(x)
    assert str(found.value) == str(expected.value)
    assert str(found.value).startswith(("Conv2D 'front': ", "MaxPooling2D 'back': "))


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_training_gives_the_same_bits_whether_joined_replayed_or_neither(policy, wrap, monkeypatch):
    def trained(eagerly):
        dlgpu.set_random_seed(1)
        block = [conv(dtype=policy, activation="tanh"), pool(dtype=policy), Flatten()]
        model = Sequential([dlgpu.checkpointed(Sequential(block)) if wrap else Sequential(block), Dense(1)])
        model.compile("adam", "mse", run_eagerly=eagerly)
        history = model.fit(X, Y, batch_size=4, epochs=4, verbose=0).history
        return history, [w.tobytes() for w in model.get_weights()], model

    with dlgpu.device("cpu"):
        history, weights, model = trained(False)
        assert replays(model) == [True]
        assert trained(True)[:2] == (history, weights)
        monkeypatch.setattr(Conv2D, "joins", lambda self, following: False)
        assert trained(True)[:2] == (history, weights)
