"""What all layers can do, a user's own included."""

import copy
import pickle
import weakref

import numpy as np
import pytest

from dlgpu.layers import Dense, Layer
from dlgpu.losses import Loss
from dlgpu.models import Model, Sequential, load_model
from dlgpu.models.saving import weights_by_path

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_a_shallow_copy_shares_the_weights_that_are_there_and_makes_others_of_its_own(dtype):
    layer = Dense(2, dtype=dtype)
    unbuilt = copy.copy(layer)
    expected, _ = layer(X).numpy(), unbuilt(X)
    assert (len(layer.weights), len(unbuilt.weights)) == (2, 2)
    assert layer.kernel is not unbuilt.kernel
    built = copy.copy(layer)
    assert built.kernel is layer.kernel
    built.kernel = unbuilt.kernel
    np.testing.assert_array_equal(layer(X).numpy(), expected)
    np.testing.assert_array_equal(built(X).numpy(), unbuilt(X).numpy())


class Tagged:
    """A mixin with an argument of its own, that hands on the others."""

    def __init__(self, *, tag="none", **kwargs):
        super().__init__(**kwargs)
        self.tag = tag


class Counted:
    """A mixin that takes no arguments, and hands on none."""

    def __init__(self):
        self.count = 0


class Told:
    """A mixin that must be told something, and so waits to be called by its name."""

    def __init__(self, what):
        self.what = what


@pytest.mark.parametrize("kind", [Layer, Model, Loss])
@pytest.mark.parametrize("before", [True, False])
def test_mixins_get_their_arguments_on_either_side_of_the_library_s_class(kind, before):
    bases = (Tagged, kind) if before else (kind, Tagged)
    mixed = type("Mixed", (*bases, Counted), {})
    made = mixed(tag="red", name="mixed")
    assert (made.tag, made.name, made.count) == ("red", "mixed", 0)
    assert mixed.from_config(made.get_config()).tag == "red"
    assert mixed().tag == "none"
    with pytest.raises(TypeError, match=r"Mixed: Unknown argument 'tga'\. Did you mean 'tag'"):
        mixed(tag="red", tga="blue")


def test_a_mixin_that_is_called_by_its_name_is_not_called_without_what_it_needs():
    class Mixed(Layer, Told):
        def __init__(self, what, **kwargs):
            Layer.__init__(self, **kwargs)
            Told.__init__(self, what)

    assert Mixed("this").what == "this"
    with pytest.raises(TypeError, match="Mixed: Unknown argument 'that'"):
        Mixed("this", that=1)


class Watcher(Layer):
    """Sees its own model, or another object, from inside."""

    seen = None

    def build(self, input_shape):
        self.offset = self.add_weight((input_shape[-1],), "zeros", "offset")

    def call(self, inputs):
        return inputs + self.offset


def watched(reference, dtype="float32"):
    watcher = Watcher(dtype=dtype)
    model = Sequential([Dense(3, input_dim=4, dtype=dtype), watcher, Dense(1, dtype=dtype)])
    watcher.seen = reference(model)
    return model


@pytest.mark.parametrize("reference", [lambda model: model, lambda model: {"models": [model]}, weakref.proxy])
def test_a_layer_may_hold_the_model_that_it_is_in(reference, tmp_path):
    model, alone = watched(reference), watched(lambda model: None)
    alone.set_weights(model.get_weights())
    assert list(weights_by_path(model)) == list(weights_by_path(alone))
    assert [id(w) for w in weights_by_path(model).values()] == [id(w) for w in model.weights]
    for m in (model, alone):
        m.compile("sgd", "mse")
    histories = [m.fit(X, X[:, :1], epochs=5, shuffle=False, verbose=0).history for m in (model, alone)]
    assert histories[0] == histories[1]
    model.summary(print_fn=str)
    model.save(tmp_path / "m.dlgpu")
    for other in (load_model(tmp_path / "m.dlgpu"), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.predict(X), model.predict(X))
    model.trainable = False
    assert model.trainable_weights == []


def test_a_model_is_no_argument_of_a_layer_that_it_is_described_with(tmp_path):
    class Holder(Watcher):
        def __init__(self, model):
            super().__init__()
            self.model = model

    model = Sequential([Dense(3, input_dim=4)])
    model.add(Holder(model))
    assert len(model.weights) == 3
    with pytest.raises(TypeError, match=r"Sequential '\w+': cannot be described: .* got the model, .* as an argument"):
        model.save(tmp_path / "m.dlgpu")


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_what_a_layer_refers_to_weakly_is_not_inside_it(dtype):
    dense, watcher = Dense(3, dtype=dtype), Watcher(dtype=dtype)
    dense(X), watcher(X)
    for seen in (weakref.proxy(dense), [weakref.proxy(dense)], weakref.proxy(dense.kernel)):
        watcher.seen = seen
        assert watcher.seen is seen
        assert [w.name for w in watcher.weights] == ["offset"]
        watcher.trainable = False
        assert len(dense.trainable_weights) == 2
    watcher.seen = weakref.proxy(dense)
    del dense, seen
    assert [w.name for w in watcher.weights] == ["offset"]
    watcher.seen = watcher.seen
    watcher(X)
