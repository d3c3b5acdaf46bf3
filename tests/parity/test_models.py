"""Models of the same layers have their weights in Keras's order, and read Keras's weight files."""

import keras
import numpy as np
import pytest

import dlgpu.layers
import dlgpu.models


def sequential(library):
    layers = library.layers
    return library.models.Sequential(
        [
            library.models.Sequential([library.Input((6, 6, 1)), layers.Conv2D(3, 2), layers.PReLU()]),
            layers.BatchNormalization(),
            layers.SeparableConv2D(4, 2, depth_multiplier=2),
            layers.Flatten(),
            layers.Dense(5, activation="relu"),
            layers.Dropout(0.3, seed=1),
            layers.Dense(5, activation="relu", use_bias=False),
            layers.LayerNormalization(),
            layers.Dense(2),
        ]
    )


def recurrent(library):
    layers = library.layers
    x = library.Input((4,), dtype="int32")
    h = layers.Embedding(9, 4, mask_zero=True)(x)
    h = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(h)
    h = layers.TimeDistributed(layers.Dense(2))(h)
    h, *_ = layers.GRU(3, return_state=True, return_sequences=True)(h)
    return library.models.Model(x, layers.SimpleRNN(2, use_bias=False)(h))


def branches(library):
    """Layers are made and joined in orders of their own; one is shared at different depths."""
    layers = library.layers
    a, b = library.Input((4,)), library.Input((4,))
    shared, last, first = layers.Dense(4), layers.Dense(4, use_bias=False), layers.Dense(4, activation="tanh")
    early = shared(a)
    late = shared(first(last(layers.Dense(4, activation="relu")(b))))
    joined = layers.Add()([late, early, layers.Dense(4)(a)])
    outputs = [layers.Dense(2)(joined), layers.Dense(3)(layers.Concatenate()([early, joined]))]
    return library.models.Model([a, b], outputs[::-1])


def ladder(library):
    """A shared layer right before one output, and far from the other: what it needs comes before it in both."""
    layers = library.layers
    x = library.Input((4,))
    shared, first = layers.Dense(4), layers.Dense(4, use_bias=False)
    far = shared(x)
    for units in (5, 6, 3):
        far = layers.Dense(units, activation="tanh")(far)
    return library.models.Model(x, [shared(first(x)), far])


EVERY = pytest.mark.parametrize("build", [sequential, recurrent, branches, ladder])


def data_for(build, rng):
    x = rng.standard_normal((3, 6, 6, 1)).astype("float32")
    rows = [x[:, 0, :4, 0], x[:, 1, :4, 0]]
    return {sequential: x, recurrent: rng.integers(0, 9, (3, 4)), branches: rows, ladder: rows[0]}[build]


def randomized(build, rng):
    model = build(keras)
    model.set_weights([rng.uniform(0.1, 0.5, w.shape) for w in model.get_weights()])
    return model


def assert_same_outputs(ours, theirs, x):
    found, wanted = ours.predict(x, verbose=0), theirs.predict(x, verbose=0)
    for one, two in zip(found, wanted) if isinstance(wanted, list) else [(found, wanted)]:
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)


@EVERY
def test_weights_are_in_keras_order(build, rng):
    theirs, ours = randomized(build, rng), build(dlgpu)
    assert [w.shape for w in ours.weights] == [tuple(w.shape) for w in theirs.weights]
    ours.set_weights(theirs.get_weights())
    assert_same_outputs(ours, theirs, data_for(build, rng))


@EVERY
def test_weight_files_of_keras_are_read(build, rng, tmp_path):
    theirs, ours = randomized(build, rng), build(dlgpu)
    theirs.compile("adam")
    theirs.optimizer.build(theirs.trainable_variables)
    theirs.save_weights(tmp_path / "k.weights.h5")
    ours.load_weights(tmp_path / "k.weights.h5")
    assert_same_outputs(ours, theirs, data_for(build, rng))


def net(library):
    class Net(library.models.Model):
        def __init__(self):
            super().__init__()
            self.out = library.layers.Dense(2)
            self.hidden = [library.layers.Dense(3), library.layers.Dense(4)]

        def call(self, inputs):
            for layer in self.hidden:
                inputs = layer(inputs)
            return self.out(inputs)

    return Net()


def test_weight_files_of_subclassed_models_are_read(rng, tmp_path):
    theirs, ours = net(keras), net(dlgpu)
    x = rng.standard_normal((3, 5)).astype("float32")
    assert theirs.predict(x, verbose=0).shape == ours.predict(x, verbose=0).shape
    theirs.save_weights(tmp_path / "k.weights.h5")
    ours.load_weights(tmp_path / "k.weights.h5")
    assert_same_outputs(ours, theirs, x)


def test_weight_files_are_read_by_layers_that_are_checkpointed(rng, tmp_path):
    theirs, ours = net(keras), net(dlgpu)
    ours.out, ours.hidden = dlgpu.checkpointed(ours.out), [dlgpu.checkpointed(layer) for layer in ours.hidden]
    x = rng.standard_normal((3, 5)).astype("float32")
    assert theirs.predict(x, verbose=0).shape == ours.predict(x, verbose=0).shape
    theirs.save_weights(tmp_path / "k.weights.h5")
    ours.load_weights(tmp_path / "k.weights.h5")
    assert_same_outputs(ours, theirs, x)


def test_files_that_do_not_fit_change_nothing(rng, tmp_path):
    ours = branches(dlgpu)
    before = ours.get_weights()
    recurrent(keras).save_weights(tmp_path / "r.weights.h5")
    path = tmp_path / "t.weights.h5"
    branches(keras).save_weights(path)
    path.write_bytes(path.read_bytes()[:-100])
    (tmp_path / "f.weights.h5").write_text("something else")
    for name, message in (("r", "no place for its layers/"), ("t", "truncated"), ("f", "no HDF5 file")):
        with pytest.raises(ValueError, match=message):
            ours.load_weights(tmp_path / f"{name}.weights.h5")
    smaller = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    smaller.save_weights(tmp_path / "s.weights.h5")
    with pytest.raises(ValueError, match=r"the model has dense_\d/kernel \(4, \d\), the file has no such weight"):
        ours.load_weights(tmp_path / "s.weights.h5")
    for now, then in zip(ours.get_weights(), before):
        np.testing.assert_array_equal(now, then)
