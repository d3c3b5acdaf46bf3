"""When a host's memory runs out; what a GPU's does is in tests/cuda."""

import gc
import tracemalloc
import weakref

import numpy as np
import pytest

import dlgpu
from dlgpu import layers
from dlgpu.training.shortage import amount

X, Y = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32), np.ones((64, 1), np.float32)


class Wide(layers.Layer):
    """As if there were room for a batch of so many samples only, in training."""

    room = 64
    seen = None

    def call(self, inputs, training=False):
        Wide.seen = weakref.ref(inputs)
        if training and len(inputs) > self.room:
            np.empty(1 << 60, np.uint8)
        return inputs * 2


def model_of(**compiled):
    model = dlgpu.Sequential([layers.BatchNormalization(), layers.Dropout(0.5), Wide(name="wide"), layers.Dense(1)])
    model.compile(dlgpu.optimizers.Adam(gradient_accumulation_steps=2, use_ema=True), "mse", **compiled)
    return model


@pytest.mark.parametrize("run_eagerly", [True, False])
@pytest.mark.parametrize("done", [1, 2])  # of the two over which gradients are added up
def test_a_step_for_which_there_is_too_little_memory_changes_nothing(run_eagerly, done):
    model = model_of(run_eagerly=run_eagerly)
    model.fit(X[:32], Y[:32], batch_size=32, epochs=done, verbose=0)
    model.layers[2].room = 31
    weights, state = model.get_weights(), model.optimizer.get_state()
    generator = dlgpu.ops.random.default_generator().state
    with pytest.raises(dlgpu.OutOfMemoryError, match=r"Wide 'wide' asked for more .*EiB") as caught:
        model.train_on_batch(X[:32], Y[:32])
    assert isinstance(caught.value, MemoryError)
    assert "checkpointed" in str(caught.value)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), weights))
    assert all(np.array_equal(a, b) for a, b in zip(model.optimizer.get_state().values(), state.values()))
    assert dlgpu.ops.random.default_generator().state == generator
    model.fit(X[:32], Y[:32], batch_size=8, epochs=2, verbose=0)


def test_what_the_failed_step_held_is_free_while_the_error_is_held():
    model = model_of()
    gc.disable()
    try:
        model.fit(X, Y, verbose=0)
        model.layers[2].room = 3
        with pytest.raises(dlgpu.OutOfMemoryError) as caught:
            model.fit(X, Y, verbose=0)
        assert caught.value.__cause__ is not None
        assert Wide.seen() is None
    finally:
        gc.enable()


def test_an_error_that_the_caller_is_handling_keeps_its_traceback():
    model = model_of()
    model.fit(X, Y, verbose=0)
    model.layers[2].room = 3
    try:
        raise KeyError("another")
    except KeyError as error:
        with pytest.raises(dlgpu.OutOfMemoryError):
            model.fit(X, Y, verbose=0)
        kept = error.__traceback__
    assert kept is not None


def test_the_backward_pass_of_a_step_lets_activations_go_as_it_passes_them():
    model = dlgpu.Sequential([layers.Dense(256, activation="tanh") for _ in range(12)])
    model.compile("sgd", "mse", run_eagerly=True)
    x = np.zeros((256, 256), np.float32)  # activations as large as the gradients of the kernels
    model.fit(x, x, batch_size=256, verbose=0)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    model.train_on_batch(x, x)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert peak < (12 + 8) * x.nbytes  # and not 12 activations beside 12 gradients


def test_weights_of_two_dtypes_both_get_their_gradients():
    model = dlgpu.Sequential([layers.Dense(3, dtype="float64"), layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    model.build((None, 4))
    before = model.get_weights()
    model.fit(X, Y, verbose=0)
    assert not any(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))


def test_a_model_that_is_only_to_predict_says_it_too():
    class Always(layers.Layer):
        def call(self, inputs):
            return inputs * np.empty(1 << 60, np.uint8)

    with pytest.raises(dlgpu.OutOfMemoryError, match="Always 'always' asked for more"):
        dlgpu.Sequential([Always(name="always")]).predict(X, verbose=0)


def test_other_errors_pass_as_they_are():
    class Failing(layers.Layer):
        def call(self, inputs):
            raise RuntimeError("memory of another kind")

    model = dlgpu.Sequential([Failing(), layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(RuntimeError, match="memory of another kind"):
        model.fit(X, Y, verbose=0)


def test_a_loss_of_ones_own_is_named():
    def greedy(y, found):
        return (y - found) * np.empty(1 << 60, np.uint8)

    model = dlgpu.Sequential([layers.Dense(1)])
    model.compile("sgd", greedy)
    with pytest.raises(dlgpu.OutOfMemoryError, match="greedy"):
        model.fit(X, Y, verbose=0)


@pytest.mark.parametrize(("size", "said"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (8 << 30, "8.59 GB")])
def test_amounts_are_short(size, said):
    assert amount(size) == said
