"""What all layers can do, a user's own included."""

import copy

import numpy as np
import pytest

from dlgpu.layers import Dense, Layer
from dlgpu.losses import Loss
from dlgpu.models import Model

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
