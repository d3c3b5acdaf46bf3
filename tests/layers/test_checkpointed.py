import copy
import tracemalloc
import weakref

import numpy as np
import pytest

import dlgpu
from dlgpu import layers, ops
from dlgpu.layers.checkpointed import Checkpointed
from dlgpu.ops.differentiation import pull_back
from tests.training.test_replay import assert_same_bits, fit, replays

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((44, 6), np.float32), RNG.integers(0, 2, (44, 1)).astype(np.float32)


def block(*more, wrap):
    inner = dlgpu.Sequential([layers.Dense(6, "gelu"), *more, layers.Dense(6, "tanh")])
    return dlgpu.checkpointed(inner) if wrap else inner


BLOCKS = {
    "dense": lambda: [],
    "dropout": lambda: [layers.Dropout(0.4), layers.GaussianNoise(0.2, seed=3)],
    "batch normalization": lambda: [layers.BatchNormalization(momentum=0.5)],
    "a penalty": lambda: [layers.Dense(6, activity_regularizer="l2", kernel_regularizer="l1")],
    "float16": lambda: [layers.Dense(6, dtype="mixed_float16"), layers.Dropout(0.2, dtype="mixed_float16")],
    "recurrence": lambda: [layers.Reshape((3, 2)), layers.LSTM(4, dropout=0.2, recurrent_dropout=0.1)],
    "images": lambda: [layers.Reshape((3, 2, 1)), layers.Conv2D(3, 2), layers.MaxPooling2D((2, 1)), layers.Flatten()],
    "a block in a block": lambda: [block(layers.Dropout(0.3), layers.BatchNormalization(), wrap=True)],
    "frozen weights": lambda: [layers.Dense(6, trainable=False), layers.BatchNormalization(trainable=False)],
}


def trained(wrap, more, run_eagerly):
    dlgpu.set_random_seed(1)
    model = dlgpu.Sequential([layers.Dense(6), block(*more(), wrap=wrap), layers.Dropout(0.1), layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"], run_eagerly=run_eagerly)
    history = fit(model, X, Y, batch_size=8)
    return history, model.get_weights(), dlgpu.ops.random.default_generator().state, model


@pytest.mark.parametrize("run_eagerly", [True, False])
@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_that_is_computed_again_trains_to_the_same_bits(name, run_eagerly):
    history, weights, state, _ = trained(False, BLOCKS[name], True)
    found_history, found, found_state, model = trained(True, BLOCKS[name], run_eagerly)
    assert found_history == history
    assert found_state == state
    assert all(np.array_equal(a, b) for a, b in zip(found, weights, strict=True))
    assert run_eagerly or replays(model) == [True, True]


def gradients(layer, x, **arguments):
    """The outputs of a layer and the gradients of their squares, by the inputs and by the weights."""
    x = [dlgpu.Tensor(a, requires_grad=a.dtype.kind == "f") for a in x]
    outputs = layer(x if len(x) > 1 else x[0], **arguments)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    total = sum(ops.sum(o * o) for o in outputs)
    wanted = [t for t in (*x, *layer.trainable_weights) if t.requires_grad]
    return [*outputs, *pull_back([total], [None], wanted)]


def both(layer, x, **arguments):
    """`gradients` of a layer and of a checkpointed copy of it."""
    gradients(layer, x)
    return gradients(layer, x, **arguments), gradients(dlgpu.checkpointed(copy.deepcopy(layer)), x, **arguments)


def assert_equal(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        assert a is None or np.array_equal(a.numpy(), b.numpy())


def test_several_inputs_and_outputs_of_which_some_are_integers_or_not_used():
    class Several(layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight((3, 3))

        def call(self, inputs):
            a, b, indices = inputs
            return [a @ self.kernel * b, ops.argmax(b, 1), ops.sum(a), b * 1.0 + indices]

    x = [RNG.standard_normal((4, 3), np.float32), RNG.standard_normal((4, 3), np.float32), np.arange(12).reshape(4, 3)]
    outputs = [
        dlgpu.checkpointed(Several())([dlgpu.Tensor(a, requires_grad=a.dtype.kind == "f") for a in x])[i]
        for i in range(4)
    ]
    assert [o.requires_grad for o in outputs] == [True, False, True, True]
    assert_equal(*both(Several(), x))


def test_dictionaries_go_in_and_out():
    class Named(layers.Layer):
        def call(self, inputs):
            counted = inputs["a"] * inputs["a"].mask.array[:, None]
            return {"sum": counted + inputs["b"], "a": counted * 2}

    x = {"a": dlgpu.Tensor(X, requires_grad=True), "b": dlgpu.Tensor(X * 2)}
    mask = np.arange(len(X)) % 2
    x["a"].mask = dlgpu.Tensor(mask == 1)
    found = dlgpu.checkpointed(Named())(x)
    (gradient,) = pull_back([ops.sum(found["sum"] * found["a"])], [None], [x["a"]])
    np.testing.assert_allclose(gradient.numpy(), 8 * X * mask[:, None], rtol=1e-5)


@pytest.mark.parametrize("explicit", [False, True])
def test_masks_come_in_and_go_on(explicit):
    mask = np.arange(5) < RNG.integers(1, 6, (4, 1))
    x = RNG.standard_normal((4, 5, 3)).astype(np.float32)

    def found(layer):
        given = dlgpu.Tensor(x, requires_grad=True)
        given.mask = None if explicit else dlgpu.Tensor(mask)
        output = layer(given, **({"mask": dlgpu.Tensor(mask)} if explicit else {}))
        return [output, output.mask, *pull_back([ops.sum(output * output)], [None], [given, *layer.trainable_weights])]

    layer = layers.GRU(4, return_sequences=True)
    layer.build((None, 5, 3))
    layer.built = True
    assert_equal(found(dlgpu.checkpointed(copy.deepcopy(layer))), found(layer))


def test_arguments_that_are_tensors_get_gradients_too():
    layer, x = layers.LSTM(4), dlgpu.Tensor(RNG.standard_normal((2, 3, 4)), dtype="float32")
    states = [dlgpu.Tensor(RNG.standard_normal((2, 4)), dtype="float32", requires_grad=True) for _ in range(2)]

    def found(layer):
        return pull_back([ops.sum(layer(x, initial_state=states))], [None], states)

    assert_equal(found(layer), found(dlgpu.checkpointed(layer)))


def test_second_derivatives_are_those_of_the_layer():
    double = {"dtype": "float64"}
    network = [layers.Dense(3, "tanh", **double), layers.BatchNormalization(**double), layers.Dropout(0.5, **double)]
    layer, x = dlgpu.Sequential(network), dlgpu.Tensor(X[:5].astype(np.float64))
    layer(x)

    def curvature(layer):
        dlgpu.set_random_seed(3)

        def slope(x):
            return ops.sum(dlgpu.grad(lambda x: ops.sum(layer(x, training=True) ** 3))(x) ** 2)

        return dlgpu.grad(slope)(x).numpy()

    found = curvature(dlgpu.checkpointed(copy.deepcopy(layer)))
    np.testing.assert_allclose(found, curvature(layer), rtol=1e-9)
    assert np.abs(found).max() > 0


def test_a_backward_pass_may_be_repeated():
    layer = dlgpu.checkpointed(dlgpu.Sequential([layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(3)]))
    x = dlgpu.Tensor(X, requires_grad=True)
    loss = ops.sum(layer(x, training=True) ** 2)
    moving = [w.numpy().copy() for w in layer.non_trainable_weights]
    loss.backward()
    first = x.grad.numpy().copy()
    loss.backward()
    np.testing.assert_array_equal(x.grad.numpy(), 2 * first)
    assert_equal(layer.non_trainable_weights, [dlgpu.Tensor(m) for m in moving])


def test_the_second_run_finds_the_state_that_the_first_one_found():
    class Growing(layers.Layer):
        def build(self, shape):
            self.factor = self.add_weight((), "ones", trainable=False)

        def call(self, inputs):
            outputs = inputs * self.factor.item()
            if not self.on_trial:
                self.factor.array *= 2
            return outputs

    layer, x = dlgpu.checkpointed(Growing()), dlgpu.Tensor(X, requires_grad=True)
    losses = [ops.sum(layer(x)) for _ in range(2)]
    for loss in (*losses, *losses):
        x.grad = None
        loss.backward()
        assert (x.grad.numpy() == (1 if loss is losses[0] else 2)).all()
    assert layer.weights[0].item() == 4


def test_outside_of_training_the_second_run_is_not_training_either():
    layer = dlgpu.Sequential([layers.Dense(4), layers.BatchNormalization(), layers.Dropout(0.5)])
    assert_equal(*both(layer, [X]))
    assert_equal(*both(layer, [X], training=False))


class Hidden(layers.Layer):
    def __init__(self, outer):
        super().__init__()
        self.read = lambda: outer

    def call(self, inputs):
        return inputs * self.read()


def test_a_gradient_that_would_be_lost_is_an_error():
    layer = dlgpu.checkpointed(Hidden(dlgpu.Tensor(2.0, requires_grad=True)))
    with pytest.raises(ValueError, match="neither an input nor a weight of the layer"):
        ops.sum(layer(dlgpu.Tensor(X, requires_grad=True))).backward()


def test_other_random_numbers_the_second_time_are_an_error():
    class Sometimes(layers.Layer):
        calls = 0

        def call(self, inputs):
            self.calls += not self.on_trial
            return ops.dropout(inputs, 0.5) if self.calls % 2 else ops.dropout(inputs[:, :1], 0.5) * inputs

    layer = dlgpu.checkpointed(Sometimes())
    with pytest.raises(RuntimeError, match="other random numbers"):
        ops.sum(layer(dlgpu.Tensor(X, requires_grad=True))).backward()


def test_what_cannot_be_checkpointed_is_refused():
    with pytest.raises(TypeError, match="expected a layer"):
        dlgpu.checkpointed(lambda x: x)
    with pytest.raises(ValueError, match="stateful"):
        dlgpu.checkpointed(layers.LSTM(3, stateful=True))


def test_without_gradients_the_layer_runs_once():
    calls = []

    class Counting(layers.Layer):
        def call(self, inputs):
            calls.append(self.on_trial)
            return inputs

    layer = dlgpu.checkpointed(Counting())
    with dlgpu.no_grad():
        layer(X)
        layer(X)
    assert calls == [True, False, False]


def functional(wrap):
    x = layers.Input((6,))
    inner = layers.Dense(6, "relu", name="inner")
    y = layers.Add()([x, (dlgpu.checkpointed(inner) if wrap else inner)(x)])
    return dlgpu.Model(x, layers.Dense(1)(y))


class Subclassed(dlgpu.Model):
    def __init__(self, wrap):
        super().__init__()
        inner = dlgpu.Sequential([layers.Dense(6, "relu"), layers.BatchNormalization()])
        self.first = dlgpu.checkpointed(inner) if wrap else inner
        self.last = layers.Dense(1)

    def call(self, inputs):
        return self.last(self.first(inputs))


def sequential(wrap):
    return dlgpu.Sequential([block(layers.BatchNormalization(), wrap=wrap), layers.Dense(1)])


@pytest.mark.parametrize("kind", [functional, Subclassed, sequential])
def test_every_kind_of_model_trains_alike_and_takes_the_others_weights(kind, tmp_path):
    def made(wrap):
        dlgpu.set_random_seed(4)
        model = kind(wrap)
        model.compile("sgd", "mse")
        fit(model, X, Y, epochs=2)
        return model

    plain, wrapped = made(False), made(True)
    assert_equal(plain.weights, wrapped.weights)
    wrapped.save_weights(tmp_path / "w.safetensors")
    plain.set_weights([w * 0 for w in plain.get_weights()])
    plain.load_weights(tmp_path / "w.safetensors")
    assert_equal(plain.weights, wrapped.weights)


def test_a_saved_model_trains_on_where_it_stopped(tmp_path):
    model = sequential(True)
    model.compile("adam", "mse")
    fit(model, X, Y, epochs=2)
    model.save(tmp_path / "m.dlgpu")
    loaded = dlgpu.models.load_model(tmp_path / "m.dlgpu")
    assert isinstance(loaded.layers[0], Checkpointed)
    assert loaded.layers[0].name == model.layers[0].name == model.layers[0].layer.name
    for m in (model, loaded):
        dlgpu.set_random_seed(5)
        fit(m, X, Y, epochs=2)
    assert_equal(loaded.weights, model.weights)


def test_it_shows_what_the_layer_is():
    layer = dlgpu.checkpointed(layers.Dense(4, name="head", input_shape=(6,), dtype="mixed_bfloat16", trainable=False))
    model = dlgpu.Sequential([layer])
    assert model.output_shape == (None, 4)
    assert layer.name == "head"
    assert [w.path for w in layer.weights] == ["head/kernel", "head/bias"]
    assert layer.compute_dtype.name == "bfloat16"
    assert not layer.trainable_weights
    layer.trainable = True
    assert len(layer.trainable_weights) == 2


def test_replayed_steps_of_checkpointed_blocks_give_the_bits_of_written_ones():
    def make(**compiled):
        blocks = [block(layers.Dropout(0.3), layers.BatchNormalization(), wrap=True) for _ in range(2)]
        model = dlgpu.Sequential([*blocks, layers.Dense(1)])
        model.compile("adam", "mse", metrics=["mae"], **compiled)
        return model

    assert replays(assert_same_bits(make, lambda m: fit(m, X, Y, batch_size=8))) == [True, True]


def peak(blocks):
    """The most bytes that one step of a deep model needs beside what stays."""
    model = dlgpu.Sequential([*blocks, layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    x, y = np.zeros((4096, 16), np.float32), np.zeros((4096, 1), np.float32)
    fit(model, x, y, batch_size=4096, epochs=1)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    model.train_on_batch(x, y)
    found = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    return found


def test_sixty_four_layers_in_eight_blocks_keep_activations_for_sixteen():
    def eight():
        return dlgpu.Sequential([layers.Dense(16, "tanh") for _ in range(8)])

    one = 4096 * 16 * 4  # an activation
    plain, blocks = peak([eight() for _ in range(8)]), peak([dlgpu.checkpointed(eight()) for _ in range(8)])
    assert plain > 64 * one
    assert blocks < 28 * one  # those between the blocks and those in one, and what a layer's own backward pass makes


def test_while_a_block_is_walked_back_its_second_output_is_not_held():
    outputs, held = [], []

    @dlgpu.custom_vjp
    def doubled(x):
        return x * 2

    @doubled.defvjp
    def doubled_vjp(grad, output, x):
        held.append(outputs[-1]() is not None)
        return grad * 2

    class Block(layers.Layer):
        def call(self, inputs):
            made = doubled(inputs) + 1
            outputs.append(weakref.ref(made))
            return made

    ops.sum(dlgpu.checkpointed(Block())(dlgpu.Tensor(X, requires_grad=True))).backward()
    assert held == [False]
