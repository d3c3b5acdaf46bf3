"""What users' layers and losses read may change at any time: a step is then recorded anew, or runs as written."""

import functools
import os
import random
import types
import weakref
from collections import deque
from contextvars import ContextVar

import numpy as np
import pytest

import dlgpu
from dlgpu import layers
from tests.training.replayed import X, Y, assert_same_bits, dense_model, fit, on_the_cpu, replays

__all__ = ["on_the_cpu"]  # used by pytest


class Counted:
    steps = 0


COUNTERS = iter(range(10**6)), np.zeros((), int), deque([0])


def count_of_class():
    Counted.steps += 1
    return Counted.steps


def count_in_array():
    COUNTERS[1][...] += 1
    return int(COUNTERS[1])


def count_in_deque():
    COUNTERS[2][0] += 1
    return COUNTERS[2][0]


def count_of_layer(layer):
    layer.steps += 1
    return layer.steps


COUNTS = {
    "an attribute": lambda layer: count_of_layer(layer),
    "a class's attribute": lambda layer: count_of_class(),
    "an array": lambda layer: count_in_array(),
    "a deque": lambda layer: count_in_deque(),
    "an iterator": lambda layer: next(COUNTERS[0]) - layer.first,
}


@pytest.mark.parametrize("count", COUNTS)
def test_a_layer_that_counts_its_calls_runs_as_written(count):
    class Late(layers.Layer):
        steps = 0

        def call(self, inputs):
            return inputs * (1.0 if COUNTS[count](self) < 20 else 3.0)

    def make(**compiled):
        Counted.steps = COUNTERS[1][...] = COUNTERS[2][0] = 0
        late = Late()
        late.first = next(COUNTERS[0])
        return dense_model(late, **compiled)

    model = assert_same_bits(make, lambda m: fit(m, epochs=12))
    assert replays(model) == [False, False]


def test_what_a_loss_sums_in_an_array_is_summed_once_a_step():
    class Watched(dlgpu.losses.MeanSquaredError):
        def __init__(self):
            super().__init__()
            self.batches = np.zeros(1)

        def call(self, y_true, y_pred):
            self.batches += 1
            return super().call(y_true, y_pred)

    loss, model = Watched(), dense_model()
    model.compile("adam", loss)
    fit(model, X[:64], Y[:64], epochs=10)
    assert loss.batches == 20


LISTS = {name: [1.0] for name in ("global", "function's", "around", "default", "property", "loss")}
SCALE, NAMED = LISTS["global"], {"scale": 1.0}
CONFIG = types.ModuleType("config")
CONTEXT: ContextVar[float] = ContextVar("CONTEXT", default=1.0)


class Slots:
    __slots__ = ("scale",)


class Scaled(layers.Layer):
    shared = 1.0

    def __init__(self, read):
        super().__init__()
        self.lists, self.object, self.slots = {"scale": [1.0]}, type("Settings", (), {})(), Slots()
        self.array, self.recent = np.ones((2, 3)).T, deque([1.0])
        self.partial, self.get, self.read = functools.partial(first, [1.0]), {"scale": 1.0}.get, read

    def call(self, inputs):
        return inputs * self.read(self)

    @property
    def property(self):
        return PROPERTY[0]


PROPERTY, OTHER = LISTS["property"], LISTS["function's"]


def first(values):
    return values[0]


def other():
    return OTHER[0]


def put_first(name):
    return lambda layer, value: LISTS[name].__setitem__(0, value)


READ = {  # how a layer reads a number, and how that is changed
    "a list": (lambda layer: layer.lists["scale"][0], lambda layer, v: layer.lists["scale"].__setitem__(0, v)),
    "an object": (lambda layer: layer.object.scale, lambda layer, v: setattr(layer.object, "scale", v)),
    "a slot": (lambda layer: layer.slots.scale, lambda layer, v: setattr(layer.slots, "scale", v)),
    "what an optimizer varies": (lambda layer: layer._rate, lambda layer, v: setattr(layer, "_rate", v)),
    "a class's": (lambda layer: layer.shared, lambda layer, v: setattr(Scaled, "shared", v)),
    "an array": (lambda layer: float(layer.array[2, 1]), lambda layer, v: layer.array.fill(v)),
    "a deque": (lambda layer: layer.recent[-1], lambda layer, v: layer.recent.append(v)),
    "a partial": (lambda layer: layer.partial(), lambda layer, v: layer.partial.args[0].__setitem__(0, v)),
    "a method": (lambda layer: layer.get("scale"), lambda layer, v: layer.get.__self__.update(scale=v)),
    "a module's": (lambda layer: CONFIG.scale, lambda layer, v: setattr(CONFIG, "scale", v)),
    "a comprehension's": (lambda layer: sum(NAMED[k] for k in ["scale"]), lambda layer, v: NAMED.update(scale=v)),
    "a global": (lambda layer: SCALE[0], put_first("global")),
    "a property": (lambda layer: layer.property, put_first("property")),
    "a function's global": (lambda layer: other(), put_first("function's")),
    "a context's": (lambda layer: CONTEXT.get(), lambda layer, v: CONTEXT.set(v)),
    "the environment": (
        lambda layer: float(os.environ.get("DLGPU_TESTED", "1")),
        lambda layer, v: os.environ.__setitem__("DLGPU_TESTED", str(v)),
    ),
    "a default": (lambda layer, found=LISTS["default"]: found[0], put_first("default")),
    "the function around": ((lambda found: lambda layer: found[0])(LISTS["around"]), put_first("around")),
}


def halved_at_an_epoch(put):
    def train(model):
        put(model.layers[1], 1.0)
        changing = dlgpu.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, _: epoch == 3 and put(model.layers[1], 0.5)
        )
        return fit(model, callbacks=[changing], epochs=8)

    return train


@pytest.mark.parametrize("how", READ)
def test_what_a_layer_reads_may_change_between_epochs(how):
    read, put = READ[how]
    model = assert_same_bits(lambda **c: dense_model(Scaled(read), **c), halved_at_an_epoch(put))
    assert True in replays(model)


LOSS = LISTS["loss"]


def test_what_a_loss_reads_may_change_between_epochs():
    def make(**compiled):
        model = dense_model()
        model.compile("adam", lambda y, found: LOSS[0] * ((y - found) ** 2).mean(-1), **compiled)
        return model

    assert True in replays(assert_same_bits(make, halved_at_an_epoch(put_first("loss"))))


def test_a_layer_may_refer_weakly_to_what_is_gone():
    gone = Scaled(None)
    model = dense_model(Scaled(first_of_ones))
    model.layers[1].other, model.layers[1].own = weakref.proxy(gone), weakref.proxy(model)
    del gone
    fit(model)
    assert True in replays(model)


def first_of_ones(layer):
    return 1.0


def test_a_weights_regularizer_may_change_between_epochs():
    def change(layer, value):
        layer.kernel.regularizer = dlgpu.regularizers.L2(value)

    def make(**compiled):
        model = dense_model(layers.Dense(3, kernel_regularizer="l2"), **compiled)
        model.build((None, X.shape[1]))
        return model

    assert True in replays(assert_same_bits(make, halved_at_an_epoch(change)))


GENERATORS = np.random.default_rng(0), np.random.RandomState(0), random.Random(0)
DRAWS = {
    "python": lambda: random.random(),
    "numpy": lambda: np.random.rand(),  # noqa: NPY002
    "a generator": lambda: GENERATORS[0].random(),
    "a RandomState": lambda: GENERATORS[1].rand(),
    "a Random": lambda: GENERATORS[2].random(),
}


@pytest.mark.parametrize("draw", DRAWS)
def test_a_layer_that_draws_numbers_which_are_not_dlgpus_runs_as_written(draw):
    class Skipped(layers.Layer):
        def call(self, inputs):
            return inputs * (DRAWS[draw]() < 0.5)

    def train(model):
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        GENERATORS[0].bit_generator.state = np.random.default_rng(1).bit_generator.state
        GENERATORS[1].seed(1)
        GENERATORS[2].seed(1)
        return fit(model)

    model = assert_same_bits(lambda **c: dense_model(Skipped(), **c), train)
    assert True not in replays(model)
