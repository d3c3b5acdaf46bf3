"""Mixed precision: layers compute in 16 bits, weights and what is summed up stay float32."""

import importlib
import sys

import numpy as np
import pytest

import dlgpu
from dlgpu import layers, mixed_precision, ops
from dlgpu.layers import LSTM, Activation, Conv2D, Dense, Flatten, Layer, MaxPooling2D, SimpleRNN
from dlgpu.mixed_precision import LossScaleOptimizer
from dlgpu.models import Sequential, load_model
from dlgpu.optimizers import SGD, Adam
from dlgpu.parameters import Parameter

MIXED = ["mixed_float16", "mixed_bfloat16"]
EPS = {"mixed_float16": 2.0**-10, "mixed_bfloat16": 2.0**-7}


@pytest.fixture(autouse=True)
def float32_again():
    yield
    mixed_precision.set_global_policy("float32")


@pytest.fixture(params=MIXED)
def policy(request):
    mixed_precision.set_global_policy(request.param)
    return request.param


def data(rng, shape=(20,), rows=64):
    x = rng.standard_normal((rows, *shape)).astype("f")
    return x, (x.reshape(rows, -1)[:, :5].sum(1, keepdims=True) > 0).astype("f")


def classifier(optimizer="adam", **kwargs):
    model = Sequential([Dense(16, activation="relu", input_shape=(20,)), Dense(1, activation="sigmoid")])
    model.compile(optimizer, "binary_crossentropy", metrics=["accuracy"], **kwargs)
    return model


def state_of(model):
    return [*model.get_weights(), *(v for k, v in sorted(model.optimizer.get_state().items()) if k != "loss_scale")]


def overflow(model, x, y):
    """A step whose gradients do not fit into float16."""
    model.train_on_batch(x, y, sample_weight=np.full(len(x), 1e30, "f"))


# -- policies


def test_a_policy_has_keras_names_and_dtypes():
    mixed_precision.set_global_policy("mixed_float16")
    assert mixed_precision.global_policy().name == "mixed_float16"
    layer, own = Dense(2), Dense(2, dtype="float32")
    assert (layer.compute_dtype, layer.variable_dtype, layer.dtype) == ("float16", "float32", "float32")
    assert (own.compute_dtype, own.variable_dtype) == ("float32", "float32")
    assert layer.dtype_policy == mixed_precision.Policy("mixed_float16") != own.dtype_policy
    mixed_precision.set_dtype_policy(mixed_precision.DTypePolicy("float64"))
    assert Dense(2).compute_dtype == Dense(2).dtype == "float64"
    assert Dense(2, dtype=np.float32).dtype_policy.name == "float32"
    assert Dense(2, dtype=layer.dtype_policy).compute_dtype == "float16"


def test_an_unknown_policy_is_an_error_that_names_the_nearest():
    with pytest.raises(ValueError, match="mixed_float16"):
        mixed_precision.set_global_policy("mixed_float61")
    with pytest.raises(ValueError, match="Unknown policy"):
        Dense(1, dtype="int32")
    with pytest.raises(TypeError, match="name of a policy"):
        mixed_precision.set_global_policy(object())
    assert mixed_precision.global_policy().name == "float32"


def test_without_ml_dtypes_bfloat16_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(ImportError, match=r"pip install 'dlgpu\[bfloat16\]'"):
        mixed_precision.set_global_policy("mixed_bfloat16")
    importlib.import_module("dlgpu")


# -- layers

CASES = [
    (lambda: Dense(3, activation="gelu"), (4,)),
    (lambda: Conv2D(3, 2, activation="relu"), (5, 5, 2)),
    (lambda: layers.SeparableConv2D(3, 2), (5, 5, 2)),
    (lambda: layers.Conv2DTranspose(3, 2), (5, 5, 2)),
    (lambda: LSTM(3), (4, 2)),
    (lambda: layers.GRU(3, return_sequences=True), (4, 2)),
    (lambda: SimpleRNN(3, activation="relu"), (4, 2)),
    (lambda: layers.Bidirectional(LSTM(3)), (4, 2)),
    (lambda: layers.TimeDistributed(Dense(3)), (4, 2)),
    (lambda: layers.BatchNormalization(), (4,)),
    (lambda: layers.LayerNormalization(), (4,)),
    (lambda: layers.PReLU(), (4,)),
    (lambda: layers.Softmax(), (4,)),
    (lambda: layers.GlobalAveragePooling1D(), (4, 2)),
    (lambda: layers.Dropout(0.5), (4,)),
    (lambda: layers.GaussianNoise(0.5), (4,)),
]


@pytest.mark.parametrize(("make", "shape"), CASES)
def test_outputs_are_of_the_compute_dtype_and_weights_and_gradients_float32(make, shape, policy, rng):
    x = rng.standard_normal((6, *shape)).astype("f")
    layer = make()
    y = layer(x, training=True)
    assert y.dtype == layer.compute_dtype != "float32"
    assert all(w.dtype == "float32" for w in layer.weights)
    assert y.shape[1:] == tuple(layer.compute_output_shape((None, *shape)))[1:]
    loss = ops.mean(ops.square(ops.astype(y, np.float32)))
    if layer.trainable_weights:
        loss.backward()
        for w in layer.trainable_weights:
            assert w.grad.dtype == "float32"
            assert np.isfinite(w.grad.numpy()).all()
    mixed_precision.set_global_policy("float32")
    plain = make()
    plain(x)
    plain.set_weights(layer.get_weights())
    wanted, found = plain(x).numpy(), layer(x).numpy().astype("f")
    np.testing.assert_allclose(found, wanted, atol=8 * EPS[policy] * np.abs(wanted).max())


class LearnedScale(Layer):
    """A user's layer, which knows nothing of dtypes."""

    def build(self, input_shape):
        self.factor = self.add_weight((input_shape[-1],), "ones", "factor")
        self.calls = self.add_weight((), "zeros", "calls", trainable=False)

    def call(self, inputs):
        self.calls.assign(self.calls + 1)
        return inputs * self.factor * 0.5


def test_a_users_layer_sees_its_weights_in_the_compute_dtype_and_others_see_parameters(policy, rng):
    layer = LearnedScale()
    y = layer(rng.standard_normal((3, 4)))
    assert y.dtype == layer.compute_dtype
    assert isinstance(layer.factor, Parameter)
    assert layer.factor.dtype == "float32"
    assert layer.factor is layer.trainable_weights[0]
    assert layer.calls.item() == 1
    y.sum().backward()
    assert layer.factor.grad.dtype == "float32"
    with pytest.raises(AttributeError, match="has no attribute 'facto'"):
        _ = layer.facto


def test_the_idiom_of_a_float32_softmax_at_the_end(policy, rng):
    model = Sequential([Dense(3, input_shape=(4,)), Activation("softmax", dtype="float32")])
    assert model.predict(rng.standard_normal((5, 4)), verbose=0).dtype == "float32"
    assert model.layers[0](rng.standard_normal((5, 4))).dtype == model.compute_dtype


def test_an_embedding_casts_the_rows_that_it_takes(policy):
    layer = layers.Embedding(5, 3)
    assert layer(np.array([[1, 2]])).dtype == layer.compute_dtype
    assert layer.embeddings.dtype == "float32"


# -- what is float32 all the same


def test_sums_means_and_statistics_do_not_lose_small_terms(policy):
    dtype = mixed_precision.global_policy().compute_dtype
    x = dlgpu.Tensor(np.full((4096, 2), 1.0, dtype))
    assert ops.sum(x, axis=0).numpy().astype("f").tolist() == [4096, 4096]
    assert ops.mean(x).numpy().astype("f") == 1
    assert ops.cumsum(x, 0).numpy().astype("f")[-1].tolist() == [4096, 4096]
    assert ops.dense(dlgpu.Tensor(np.ones((1, 4096), dtype)), x).numpy().astype("f").tolist() == [[4096, 4096]]
    _, mean, variance = ops.batch_normalization(x * 200)
    assert mean.dtype == variance.dtype == "float32"
    bn = layers.BatchNormalization()
    wide = np.where(np.arange(4096)[:, None] % 2, 6e4, -6e4).astype("f")
    assert np.isfinite(bn(wide, training=True).numpy().astype("f")).all()
    np.testing.assert_allclose(bn.moving_variance.numpy(), 0.99 + 0.01 * 3.6e9, rtol=0.02)


def test_losses_and_metrics_of_16_bit_outputs_are_float32(policy, rng):
    dtype = mixed_precision.global_policy().compute_dtype
    y_true, y_pred = rng.integers(0, 2, (4000, 1)).astype("f"), rng.uniform(0.1, 0.9, (4000, 1)).astype(dtype)
    for name in ("binary_crossentropy", "mse", "huber"):
        loss = dlgpu.losses.get(name)
        found = loss(y_true, dlgpu.Tensor(y_pred))
        assert found.dtype == "float32"
        np.testing.assert_allclose(found.numpy(), loss(y_true, y_pred.astype("f")).numpy(), rtol=1e-6)
    for name in ("mae", "accuracy", "auc"):
        a, b = (dlgpu.metrics.get("binary_accuracy" if name == "accuracy" else name) for _ in range(2))
        a.update_state(y_true, dlgpu.Tensor(y_pred))
        b.update_state(y_true, y_pred.astype("f"))
        np.testing.assert_allclose(a.result().numpy(), b.result().numpy(), rtol=1e-6)


NUMBERS = {
    "add": lambda x: x + 0.3,
    "subtract": lambda x: 0.3 - x,
    "multiply": lambda x: x * 0.3,
    "divide": lambda x: 1 / (x + 1),
    "power": lambda x: x**0.5,
    "maximum": lambda x: ops.maximum(x, 0.3),
    "where": lambda x: ops.where(x > 0.5, x, 0.3),
    "clip": lambda x: ops.clip(x, 0.3, 0.6),
    "gelu": dlgpu.activations.gelu,
    "logsumexp": lambda x: ops.logsumexp(x, -1),
    "norm": ops.layer_normalization,
    "matmul": lambda x: x @ ops.transpose(x),
    "softmax": ops.softmax,
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_operations_beside_numbers_keep_16_bits_and_differentiate_twice(name, dtype, rng):
    mixed_precision.DTypePolicy(dtype)  # so that NumPy knows the name
    x = rng.uniform(0.2, 0.9, (3, 4)).astype(dtype)

    def slope(v):
        return ops.sum(dlgpu.grad(lambda u: ops.sum(ops.square(NUMBERS[name](u)) * 0.5))(v) ** 2)

    found, wanted = (dlgpu.grad(slope)(dlgpu.Tensor(v)) for v in (x, x.astype("d")))
    assert NUMBERS[name](dlgpu.Tensor(x)).dtype == found.dtype == dtype
    scale = max(np.abs(wanted.numpy()).max(), 1.0)
    np.testing.assert_allclose(found.numpy().astype("d"), wanted.numpy(), atol=64 * EPS[f"mixed_{dtype}"] * scale)


# -- training

PROGRAMS = {
    "fnn": ((20,), lambda: [Dense(64, activation="relu"), Dense(1, activation="sigmoid")]),
    "cnn": (
        (12, 12, 3),
        lambda: [Conv2D(8, 3, activation="relu"), MaxPooling2D(), Flatten(), Dense(1, activation="sigmoid")],
    ),
    "rnn": ((20, 8), lambda: [SimpleRNN(20), Dense(1, activation="sigmoid")]),
    "lstm": ((20, 8), lambda: [LSTM(20), Dense(1)]),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_curves_follow_those_of_float32(program, policy, rng):
    shape, make = PROGRAMS[program]
    x, y = data(rng, shape)

    def curve(name):
        dlgpu.set_random_seed(1)
        mixed_precision.set_global_policy(name)
        model = Sequential(make())
        model.compile("adam", "mse" if program == "lstm" else "binary_crossentropy")
        return model, model.fit(x, y, batch_size=16, epochs=5, shuffle=False, verbose=0).history["loss"]

    model, found = curve(policy)
    np.testing.assert_allclose(found, curve("float32")[1], rtol=4 * EPS[policy])
    assert isinstance(model.optimizer, LossScaleOptimizer) == (policy == "mixed_float16")
    for kept in model.optimizer.kept:
        assert {kept.flat.values.dtype, *(s.dtype for s in kept.slots.values())} == {np.dtype("float32")}


def test_replayed_steps_have_the_bits_of_written_ones(policy, rng):
    x, y = data(rng)

    def trained(eagerly):
        dlgpu.set_random_seed(2)
        model = Sequential([Dense(16, activation="relu"), layers.BatchNormalization(), layers.Dropout(0.2), Dense(1)])
        optimizer = Adam(dlgpu.schedules.ExponentialDecay(0.01, 4, 0.9))
        if policy == "mixed_float16":
            optimizer = LossScaleOptimizer(optimizer, 2.0**24, dynamic_growth_steps=3)  # which overflows at first
        model.compile(optimizer, "mse", metrics=["mae"], run_eagerly=eagerly)
        return model, model.fit(x, y, batch_size=16, epochs=6, verbose=0).history

    (a, curves), (b, others) = trained(False), trained(True)
    assert curves == others
    for one, other in zip(state_of(a), state_of(b)):
        np.testing.assert_array_equal(one, other)
    if policy == "mixed_float16":
        assert a.optimizer.skipped == b.optimizer.skipped > 0


# -- the scale


def test_an_overflow_is_skipped_and_halves_the_scale(rng):
    mixed_precision.set_global_policy("mixed_float16")
    x, y = data(rng, rows=32)
    model = classifier(LossScaleOptimizer(Adam(0.01, clipnorm=1.0, weight_decay=0.1), 1024.0))
    model.train_on_batch(x, y)
    before = state_of(model)
    overflow(model, x, y)
    for was, now in zip(before, state_of(model)):
        np.testing.assert_array_equal(was, now)
    assert model.optimizer.dynamic_scale == 512
    assert (model.optimizer.iterations, model.optimizer.skipped) == (1, 1)
    model.train_on_batch(x, y)
    assert model.optimizer.iterations == 2
    assert any((was != now).any() for was, now in zip(before, state_of(model)))


def test_the_scale_doubles_after_so_many_finite_steps(rng):
    mixed_precision.set_global_policy("mixed_float16")
    x, y = data(rng, rows=32)
    model = classifier(LossScaleOptimizer("sgd", 16.0, dynamic_growth_steps=3))
    scales = []
    for step in range(8):
        overflow(model, x, y) if step == 4 else model.train_on_batch(x, y)
        scales.append(model.optimizer.dynamic_scale)
    assert scales == [16, 16, 32, 32, 16, 16, 16, 32]


def test_small_gradients_survive_by_the_scale(rng):
    mixed_precision.set_global_policy("mixed_float16")
    x, y = data(rng, rows=32)

    def moved(**kwargs):
        model = Sequential([Dense(1, input_shape=(20,), use_bias=False)])
        model.compile(SGD(1e6), lambda t, p: ops.mean((p - t) * 1e-8, axis=-1), **kwargs)
        before = model.get_weights()[0]
        model.train_on_batch(x, y)
        return np.abs(model.get_weights()[0] - before).max()

    assert moved(auto_scale_loss=False) == 0 < moved()


def test_an_accumulated_step_leaves_out_what_overflowed(rng):
    mixed_precision.set_global_policy("mixed_float16")
    x, y = data(rng, rows=32)

    def trained(batches):
        dlgpu.set_random_seed(3)
        model = classifier(LossScaleOptimizer(Adam(0.01, gradient_accumulation_steps=2, use_ema=True), 64.0))
        for factor in batches:
            overflow(model, x, y) if factor == "too large" else model.train_on_batch(x * factor, y)
        return model

    a, b = trained([1, "too large", 0.5, "too large", 0.25, 1]), trained([1, 0.5, 0.25, 1])
    assert a.optimizer.iterations == b.optimizer.iterations == 2
    for one, other in zip(state_of(a), state_of(b)):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


def test_a_loop_of_the_users_own_scales_and_steps(rng):
    mixed_precision.set_global_policy("mixed_float16")
    x, y = data(rng, rows=32)
    model, optimizer = classifier(), LossScaleOptimizer(SGD(0.1))
    losses = []
    for _ in range(20):
        loss = dlgpu.losses.get("binary_crossentropy")(y, model(x, training=True))
        losses.append(loss.item())
        scaled = optimizer.scale_loss(loss)
        for w in model.trainable_weights:
            w.grad = None
        scaled.backward()
        optimizer.apply_gradients([(w.grad, w) for w in model.trainable_weights])
    assert losses[-1] < losses[0]
    assert optimizer.iterations == 20
    with pytest.raises(ValueError, match="inner_optimizer must be another optimizer"):
        LossScaleOptimizer(optimizer)


# -- saving


def test_policies_the_scale_and_the_optimizer_are_saved_and_training_goes_on(policy, tmp_path, rng):
    x, y = data(rng)
    model = Sequential([Dense(8, activation="relu", input_shape=(20,)), LearnedScale(), Dense(1, dtype="float32")])
    model.compile("adam", "mse")
    model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    if policy == "mixed_float16":
        overflow(model, x, y)
    model.save(tmp_path / "model.dlgpu")
    mixed_precision.set_global_policy("float32")
    loaded = load_model(tmp_path / "model.dlgpu")
    assert [layer.dtype_policy.name for layer in (loaded, *loaded.layers)] == [policy, policy, policy, "float32"]
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    if policy == "mixed_float16":
        assert loaded.optimizer.dynamic_scale == model.optimizer.dynamic_scale
        assert loaded.optimizer.skipped == model.optimizer.skipped == 1
    for one in (model, loaded):
        one.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    for one, other in zip(state_of(model), state_of(loaded)):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_models_of_16_bits_alone_train_and_save(name, tmp_path, rng):
    mixed_precision.set_global_policy(name)
    x, y = data(rng)
    model = classifier()
    assert all(w.dtype == name for w in model.weights)
    model.fit(x, y, epochs=2, verbose=0)
    model.save(tmp_path / "model.dlgpu")
    loaded = load_model(tmp_path / "model.dlgpu")
    assert all(w.dtype == name for w in loaded.weights)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
