"""In float16, weights, losses and the history of the loss scale are Keras's."""

import keras
import numpy as np
import pytest

import dlgpu

pytestmark = pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`", "ignore:__array__ implementation")


@pytest.fixture(autouse=True)
def float32_again():
    yield
    for library in (dlgpu, keras):
        library.mixed_precision.set_global_policy("float32")


def build(library, policy, **scale):
    library.mixed_precision.set_global_policy(policy)
    layers = library.layers
    model = library.models.Sequential()
    model.add(layers.Dense(64, input_shape=(20,), activation="relu"))
    model.add(layers.Dense(1))
    model.add(layers.Activation("sigmoid", dtype="float32"))
    optimizer = library.optimizers.SGD(
        0.1, momentum=0.9
    )  # in Adam, what rounds to another side of 0 moves by a whole step
    if scale:
        optimizer = library.optimizers.LossScaleOptimizer(optimizer, **scale)
    model.compile(optimizer, "binary_crossentropy")
    return model


def histories(model, x, y, overflows):
    """Loss and scale after each step; one of the steps may overflow."""
    losses, scales = [], []
    for step in range(24):
        factor = np.full(len(x), 1e9 if overflows and step == 9 else 1.0, "f")
        losses.append(float(model.train_on_batch(x, y, sample_weight=factor)))
        scales.append(float(getattr(model.optimizer, "dynamic_scale", 0)))
    return losses, scales


@pytest.mark.parametrize(("policy", "near"), [("mixed_float16", 2e-3), ("mixed_bfloat16", 2e-2)])
def test_the_fnn_trains_as_in_keras(policy, near, rng):
    x = rng.standard_normal((64, 20)).astype("f")
    y = (x[:, :5].sum(1, keepdims=True) > 0).astype("f")
    scale = {"initial_scale": 2.0**22, "dynamic_growth_steps": 5} if policy == "mixed_float16" else {}
    ours, theirs = build(dlgpu, policy, **scale), build(keras, policy, **scale)
    theirs.set_weights(ours.get_weights())
    (a, scales), (b, wanted) = (histories(m, x, y, bool(scale)) for m in (ours, theirs))
    assert scales == wanted
    assert len(set(scales)) > 3 or not scale
    np.testing.assert_allclose(a, b, rtol=near)
    for one, other in zip(ours.get_weights(), theirs.get_weights()):
        np.testing.assert_allclose(one, other, atol=near)
    assert int(ours.optimizer.iterations) == int(theirs.optimizer.iterations)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float32", "float64"])
def test_policies_and_their_dtypes_are_keras_own(policy):
    for library in (dlgpu, keras):
        library.mixed_precision.set_global_policy(policy)
    ours, theirs = dlgpu.layers.Dense(2), keras.layers.Dense(2)
    assert ours.dtype_policy.name == theirs.dtype_policy.name == dlgpu.mixed_precision.global_policy().name
    assert ours.compute_dtype == theirs.compute_dtype
    assert ours.variable_dtype == theirs.variable_dtype
    assert ours.dtype == theirs.dtype
    a, b = (lib.models.Sequential([layer]) for lib, layer in ((dlgpu, ours), (keras, theirs)))
    for model in (a, b):
        model.compile("adam", "mse")
    assert type(a.optimizer).__name__ == type(b.optimizer).__name__
