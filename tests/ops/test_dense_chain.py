"""Dense layers in a row: what a later one hands back may skip the gradient by the hidden output, and nobody notices."""

import numpy as np
import pytest

import dlgpu
from dlgpu import Tensor, autograd, layers, ops
from dlgpu.backend.devices import current_device
from dlgpu.backend.reference import activation as kernels
from dlgpu.ops.activation import COMPOSITES, dense
from dlgpu.ops.differentiation import pull_back
from dlgpu.testing import gradcheck

RNG = np.random.default_rng(3)
SHAPES = {"kernel": (5, 8), "bias": (8,), "next": (8, 6), "next bias": (6,)}
NAMES = ["relu", "gelu_tanh", "tanh", "linear"]


@pytest.fixture(params=["here", "emulator"], autouse=True)
def device(request):
    if request.param == "here":
        yield
    else:
        with dlgpu.device("emulator"):
            yield


def tensor(*shape, dtype=np.float64):
    return Tensor(RNG.standard_normal(shape).astype(dtype), device=current_device(), requires_grad=True)


def weights():
    return {key: tensor(*shape) for key, shape in SHAPES.items()}


def fused(w, x, name):
    hidden = dense(x, w["kernel"], w["bias"], name)
    return hidden, dense(hidden, w["next"], w["next bias"], "tanh")


def plain(w, x, name):
    hidden = COMPOSITES[name](x @ w["kernel"] + w["bias"])
    return hidden, ops.tanh(hidden @ w["next"] + w["next bias"])


def agree(found, wanted):
    assert len(found) == len(wanted)
    for f, w in zip(found, wanted):
        assert (f is None) == (w is None)
        if f is not None:
            np.testing.assert_allclose(f.numpy(), w.numpy(), rtol=1e-11, atol=1e-13)


def input_of(*lead):
    return tensor(*lead, 5)


def noted(monkeypatch):
    """The names of the activations through which a product went back."""
    names, original = [], kernels.dense_activation_backward
    monkeypatch.setattr(kernels, "dense_activation_backward", lambda *a: names.append(a[-1]) or original(*a))
    return names


# What may be asked for of (hidden, out), given their functions: a list of gradients.
ASKED = {
    "the weights": lambda w, x, h, out: pull_back([out], [out * 2], [x, *w.values()]),
    "the hidden output": lambda w, x, h, out: pull_back([out], [out * 2], [h]),
    "the hidden output, and what is below": lambda w, x, h, out: pull_back([out], [out * 2], [h, w["kernel"], x]),
    "with another consumer": lambda w, x, h, out: pull_back([out, h * h], [out * 2, h], [x, *w.values()]),
    "the hidden output with another consumer": lambda w, x, h, out: pull_back([out, h * h], [out, h], [h]),
    "itself among the roots": lambda w, x, h, out: pull_back([out, h], [out, h * 3], [x, *w.values()]),
    "twice the same consumer": lambda w, x, h, out: pull_back([out + dense(h, w["next"])], [out], [x, *w.values()]),
    "as it lets go": lambda w, x, h, out: pull_back([out], [out], [x, *w.values()], once=True),
    "recorded": lambda w, x, h, out: pull_back([out], [out], [x, h, *w.values()], create_graph=True),
}


@pytest.mark.parametrize("lead", [(4,), (2, 3), (1,), (0,), ()])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_the_plain_operations(name, lead):
    for asked in ASKED.values():
        w, x = weights(), input_of(*lead)
        agree(asked(w, x, *fused(w, x, name)), asked(w, x, *plain(w, x, name)))


def test_the_gradient_by_the_hidden_output_is_only_made_where_it_is_asked_for(monkeypatch):
    names = noted(monkeypatch)
    w, x = weights(), input_of(2, 3)
    hidden, out = fused(w, x, "relu")
    deferred = dlgpu.backend.dispatch.column_of(x.array) == "cuda"
    pull_back([out], [out], [w["kernel"]])
    assert names == ["relu"] * deferred
    pull_back([out], [out], [hidden, w["kernel"]])
    pull_back([out, hidden], [out, hidden], [w["kernel"]])
    pull_back([out], [out], [w["next"]])
    assert names[1:] == ["relu"] * deferred  # the last one goes to the layer too, whose own gradients nobody keeps


def test_backward_reaches_every_leaf():
    w, x = weights(), input_of(4)
    hidden, out = fused(w, x, "relu")
    (out * out + hidden.sum()).sum().backward()
    found = [t.grad for t in (x, *w.values())]
    for t in (x, *w.values()):
        t.grad = None
    hidden, out = plain(w, x, "relu")
    (out * out + hidden.sum()).sum().backward()
    agree(found, [t.grad for t in (x, *w.values())])


def test_a_gradient_by_a_hidden_output_does_not_follow_the_weights():
    w, x = weights(), input_of(4)
    hidden, out = fused(w, x, "relu")
    (found,) = pull_back([out], [out], [hidden])
    expected = pull_back([out], [out], [hidden])[0].numpy().copy()
    w["next"].array[...] = 0
    np.testing.assert_array_equal(found.numpy(), expected)


def test_the_same_layer_twice_and_a_square():
    kernel, x = tensor(5, 5), input_of(3)

    def run(layer):
        y = layer(layer(layer(x)))
        return pull_back([y * y], [y], [kernel, x])

    relu = COMPOSITES["relu"]
    agree(run(lambda t: dense(t, kernel, None, "relu")), run(lambda t: relu(t @ kernel)))


def test_an_alias_between_takes_the_whole_gradient():
    """`value_and_grad` with respect to a hidden output makes one, which still leads on."""
    w, x = weights(), input_of(4)
    hidden = dense(x, w["kernel"], w["bias"], "relu")
    value, by_hidden = ops.value_and_grad(lambda h: (dense(h, w["next"]) ** 2).sum())(hidden)
    again, expected = ops.value_and_grad(lambda h: ((h @ w["next"]) ** 2).sum())(hidden)
    agree([value, by_hidden], [again, expected])


def test_a_user_operation_between_sees_a_gradient_that_stays():
    seen = []

    @dlgpu.custom_vjp
    def same(x):
        return x.copy()

    @same.defvjp
    def _(grad, output, x):
        seen.append(grad)
        return grad

    w, x = weights(), input_of(4)
    hidden = dense(x, w["kernel"], w["bias"], "relu")
    out = dense(same(hidden), w["next"])
    found = pull_back([out], [out], [w["kernel"]])
    agree(found, pull_back([hidden @ w["next"]], [out], [w["kernel"]]))
    expected = out.numpy() @ w["next"].numpy().T
    w["next"].array[...] = 0
    np.testing.assert_allclose(seen[0].numpy(), expected, rtol=1e-12)


def test_second_derivatives():
    w = {key: RNG.standard_normal(shape) for key, shape in SHAPES.items()}
    x = RNG.standard_normal((2, 2, 5))
    gradcheck(
        lambda x, k, b, n: dense(dense(x, k, b, "gelu_tanh"), n, None, "tanh"), x, w["kernel"], w["bias"], w["next"]
    )


def test_a_mixed_walk_differentiates_what_was_recorded():
    w, x = weights(), input_of(3)

    def second(function):
        _, out = function(w, x, "gelu_tanh")
        (first,) = pull_back([out], [out], [x], create_graph=True)
        return pull_back([(first * first).sum()], [None], [*w.values()])

    agree(second(fused), second(plain))


def test_recomputed_layers_give_the_same_gradients():
    x = RNG.standard_normal((6, 5)).astype(np.float32)
    results = []
    for wrap in (lambda layer: layer, dlgpu.checkpointed):
        dlgpu.set_random_seed(1)
        inner = dlgpu.Sequential([layers.Dense(8, "relu"), layers.Dense(7, "gelu")])
        model = dlgpu.Sequential([layers.Dense(4, "relu"), wrap(inner), layers.Dense(3, "relu"), layers.Dense(2)])
        out = model(x)
        results.append(pull_back([out], [out], model.trainable_weights))
    for f, w in zip(*results):
        np.testing.assert_allclose(f.numpy(), w.numpy(), rtol=1e-5, atol=1e-6)


def test_a_model_of_hidden_outputs_trains_on_both():
    inputs = layers.Input((5,))
    hidden = layers.Dense(8, "relu")(inputs)
    outputs = layers.Dense(3)(hidden)
    model = dlgpu.Model(inputs, [hidden, outputs])
    x = tensor(4, 5, dtype=np.float32)
    weights = model.trainable_weights
    h, y = model(x)
    found = pull_back([(h * h).sum() + (y * y).sum()], [None], weights)
    k, b, n, c = weights
    h = COMPOSITES["relu"](x @ k + b)
    y = h @ n + c
    wanted = pull_back([(h * h).sum() + (y * y).sum()], [None], weights)
    for f, w in zip(found, wanted):
        np.testing.assert_allclose(f.numpy(), w.numpy(), rtol=1e-5, atol=1e-5)


def test_what_the_walk_has_not_computed_is_computed_where_it_ends():
    class Late(autograd.Deferred):
        done = 0

        def compute(self):
            self.done += 1

    leaf, late = autograd.Node((), None), Late()
    node = autograd.Node(((leaf, 0),), lambda gradient: (gradient,))
    kept = autograd.gradients([(node, 0)], [late], [leaf].__contains__, False)
    assert kept == {leaf: [late]}
    assert late.done == 1
