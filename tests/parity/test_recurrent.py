"""Recurrent layers and their wrappers: outputs and all gradients are PyTorch's and Keras's."""

import keras
import numpy as np
import pytest
import torch

import dlgpu.layers
import dlgpu.models
from dlgpu.tensor import Tensor

BATCH, TIME, FEATURES, UNITS = 5, 9, 4, 6
MASKS = {
    "none": None,
    "right": np.arange(TIME) < np.array([[9], [4], [1], [6], [0]]),
    "left": np.arange(TIME) >= np.array([[0], [4], [8], [6], [9]]),
    "holes": np.random.default_rng(1).uniform(size=(BATCH, TIME)) < 0.6,
}
# name, arguments, number of states
LAYERS = [
    pytest.param("SimpleRNN", {}, 1, id="simple_rnn"),
    pytest.param("LSTM", {}, 2, id="lstm"),
    pytest.param("GRU", {}, 1, id="gru"),
    pytest.param("GRU", {"reset_after": False}, 1, id="gru_before"),
]


def agree(ours, theirs):
    """To 1e-5 of the largest value."""
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        a, b = np.asarray(a), b.detach().numpy()
        assert (a.dtype, a.shape) == (np.float32, b.shape)
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(1e-3, abs(b).max(initial=0)))


def listed(outputs):
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def gradients(call, x, weights, states, weigh):
    """Our outputs, and the gradients of their weighted sum by x, the weights and the states."""
    inputs = [Tensor(a, requires_grad=True) for a in (x, *states)]
    outputs = listed(call(*inputs))
    for w in weights:
        w.grad = None
    sum((o * f).sum() for o, f in zip(outputs, weigh)).backward()
    return outputs, [t.grad for t in (*inputs, *weights)]


def torch_gradients(call, x, weights, states, weigh):
    """The same of a PyTorch function."""
    inputs = [torch.tensor(a, requires_grad=True) for a in (x, *states)]
    outputs = listed(call(*inputs))
    for w in weights:
        w.grad = None
    sum((o * torch.tensor(f)).sum() for o, f in zip(outputs, weigh)).backward()
    return outputs, [t.grad for t in (*inputs, *weights)]


def compare(ours, theirs, rng, x, states=(), **arguments):
    """Both layers, with the same weights, on the same inputs: outputs and gradients."""
    first, second = listed(ours(x, **arguments)), listed(theirs(x, **arguments))
    assert [w.shape for w in ours.get_weights()] == [w.shape for w in theirs.get_weights()]
    ours.set_weights([normal(rng, *w.shape) * 0.5 for w in ours.get_weights()])
    theirs.set_weights(ours.get_weights())
    assert len(first) == len(second)
    weigh = [normal(rng, *o.shape) for o in first]

    def with_states(layer):
        return lambda x, *states: layer(x, **arguments, **({"initial_state": list(states)} if states else {}))

    one = gradients(with_states(ours), x, ours.trainable_weights, states, weigh)
    weights = [w.value for w in theirs.trainable_weights]
    other = torch_gradients(with_states(theirs), x, weights, states, weigh)
    for a, b in zip(one, other):
        agree(a, b)


@pytest.mark.parametrize(("name", "parts"), [("SimpleRNN", 1), ("LSTM", 4), ("GRU", 3)])
def test_pytorchs_outputs_and_gradients(name, parts, rng):
    cell = {"SimpleRNN": torch.nn.RNN}.get(name, getattr(torch.nn, name, None))(FEATURES, UNITS, batch_first=True)
    layer = getattr(dlgpu.layers, name)(UNITS, return_sequences=True, return_state=True)
    x, count = normal(rng, BATCH, TIME, FEATURES), 1 + (name == "LSTM")
    states, order = [normal(rng, BATCH, UNITS) for _ in range(count)], slice(None)
    if name == "GRU":  # PyTorch's parts are r, z, g
        order = np.r_[UNITS : 2 * UNITS, :UNITS, 2 * UNITS : 3 * UNITS]
    by_input, by_state, bias, state_bias = list(cell.parameters())
    if name != "GRU":  # which has two in Keras too
        torch.nn.init.zeros_(state_bias)

    def regated(kernel, recurrent_kernel, bias, state_bias):
        bias = torch.stack([bias[order], state_bias[order]]) if name == "GRU" else bias
        return [kernel[order].T, recurrent_kernel[order].T, bias]

    layer(x)
    layer.set_weights([w.detach().numpy() for w in regated(by_input, by_state, bias, state_bias)])
    weigh = [normal(rng, BATCH, TIME, UNITS), *(normal(rng, BATCH, UNITS) for _ in range(count))]

    def call(x, *states):
        states = tuple(s[None] for s in states)
        outputs, after = cell(x, states if count > 1 else states[0])
        return [outputs, *(s[0] for s in (after if count > 1 else [after]))]

    ours, grads = gradients(lambda x, *s: layer(x, initial_state=list(s)), x, layer.weights, states, weigh)
    theirs, torch_grads = torch_gradients(call, x, list(cell.parameters()), states, weigh)
    agree(ours, theirs)
    agree(grads, [*torch_grads[: 1 + count], *regated(*torch_grads[1 + count :])])


@pytest.mark.parametrize(("name", "arguments", "states"), LAYERS)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("how", ["sequences", "last", "backwards"])
def test_keras_outputs_states_and_gradients_under_masks(name, arguments, states, mask, how, rng):
    arguments = arguments | {"return_state": True, "return_sequences": how == "sequences"}
    arguments["go_backwards"] = how == "backwards"
    pair = [getattr(library, name)(UNITS, **arguments) for library in (dlgpu.layers, keras.layers)]
    given = [normal(rng, BATCH, UNITS) for _ in range(states)] if how != "last" else []
    compare(*pair, rng, normal(rng, BATCH, TIME, FEATURES), given, **masked(mask))


def masked(mask):
    return {} if MASKS[mask] is None else {"mask": MASKS[mask]}


@pytest.mark.parametrize(("name", "arguments", "states"), LAYERS)
def test_keras_states_between_batches(name, arguments, states, rng):
    ours, theirs = (
        getattr(library, name)(UNITS, stateful=True, **arguments) for library in (dlgpu.layers, keras.layers)
    )
    batches = [normal(rng, BATCH, TIME, FEATURES) for _ in range(4)]
    ours(batches[0]), theirs(batches[0])
    theirs.set_weights(ours.get_weights())
    for x in (None, *batches[:3], None, batches[3]):
        if x is None:
            ours.reset_state(), theirs.reset_state()
        else:
            agree([ours(x)], [theirs(x)])
    assert [w.shape for w in ours.weights] == [tuple(w.shape) for w in theirs.weights]


@pytest.mark.parametrize(
    "arguments", [{"activation": "relu", "recurrent_activation": "hard_sigmoid"}, {"use_bias": False}]
)
def test_keras_other_activations_and_no_bias(arguments, rng):
    for name in ("LSTM", "GRU"):
        pair = [getattr(library, name)(UNITS, **arguments) for library in (dlgpu.layers, keras.layers)]
        compare(*pair, rng, normal(rng, BATCH, TIME, FEATURES))


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave", None])
@pytest.mark.parametrize("mask", MASKS)
def test_keras_bidirectional(merge_mode, mask, rng):
    for name, sequences in (("SimpleRNN", True), ("LSTM", False), ("GRU", True)):
        inner = {"return_sequences": sequences, "return_state": merge_mode == "concat"}
        pair = [
            library.Bidirectional(getattr(library, name)(UNITS, **inner), merge_mode=merge_mode)
            for library in (dlgpu.layers, keras.layers)
        ]
        compare(*pair, rng, normal(rng, BATCH, TIME, FEATURES), **masked(mask))


def test_keras_time_distributed(rng):
    for inner in (
        lambda layers: layers.Dense(3, activation="tanh"),
        lambda layers: layers.LSTM(3),
        lambda layers: layers.BatchNormalization(),
    ):
        pair = [library.TimeDistributed(inner(library)) for library in (dlgpu.layers, keras.layers)]
        x = normal(rng, BATCH, 3, TIME, FEATURES)
        compare(*pair, rng, x, training=True)
        agree(pair[0].get_weights(), [torch.tensor(w) for w in pair[1].get_weights()])


def test_keras_masking_through_a_stack(rng):
    x = normal(rng, BATCH, TIME, FEATURES) * MASKS["holes"][..., None]

    def stack(layers, models):
        return models.Sequential(
            [
                layers.Masking(),
                layers.TimeDistributed(layers.Dense(FEATURES)),
                layers.Bidirectional(layers.GRU(3, return_sequences=True)),
                layers.LSTM(UNITS, return_sequences=True),
                layers.SimpleRNN(UNITS),
            ]
        )

    ours, theirs = stack(dlgpu.layers, dlgpu.models), stack(keras.layers, keras.models)
    ours(x), theirs(x)
    theirs.set_weights(ours.get_weights())
    agree([ours(x)], [theirs(x)])
