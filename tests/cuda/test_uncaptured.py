"""What cannot be captured runs as written, and says so once."""

import warnings
from queue import SimpleQueue

import numpy as np
import pytest

import dlgpu
from dlgpu import layers
from dlgpu.backend.cuda import graph
from tests.cuda.captured import X, Y, assert_same_bits, captured, dense_model, fit, told


class Reading(layers.Layer):
    def call(self, inputs):
        return inputs * 0.5 if float(dlgpu.ops.sum(inputs)) > 20 else inputs


class Copying(layers.Layer):
    def call(self, inputs):
        return inputs * dlgpu.Tensor(np.linspace(0, 1, inputs.shape[-1], dtype=np.float32), device="cuda")


class Shrinking(layers.Layer):
    def call(self, inputs):
        z = inputs.array
        return inputs + z[z > 0].sum()


class Counting(layers.Layer):
    steps = 0

    def call(self, inputs):
        self.steps += 1
        return inputs * (1 / self.steps)


class Hidden(layers.Layer):
    def build(self, input_shape):
        self.calls = SimpleQueue()  # of which no look at settings knows the length

    def call(self, inputs):
        self.calls.put(None)
        return inputs * (1 / self.calls.qsize())


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (Reading, "RuntimeError"),
        (Copying, "copies values from the host"),
        (Shrinking, "RuntimeError"),
        (Counting, "changes while it runs"),
        (Hidden, "does not do the same each time"),
    ],
)
def test_what_cannot_be_captured_runs_as_written_and_says_so_once(layer, why):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        def make(run_eagerly):
            if run_eagerly:
                assert len(told(caught)) == 1
            return dense_model(layers.Dropout(0.3), layer(), run_eagerly=run_eagerly)

        model = assert_same_bits(make)
    assert not any(captured(model))
    assert len(told(caught)) == 1
    assert why in told(caught)[0]


def test_a_train_step_of_ones_own_that_does_all_itself_says_so_once():
    class Own(dlgpu.Sequential):
        def train_step(self, data):
            x, y, _ = data

            def loss_of(_):
                return dlgpu.losses.mean_squared_error(dlgpu.Tensor(y, device="cuda"), self(x, training=True)).mean()

            loss, gradients = dlgpu.value_and_grad(loss_of)(self.trainable_weights)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_weights))
            return {"loss": loss.numpy()}

    model = Own([layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="cannot be captured.*own train_step does not call that of") as caught:
        [fit(model) for _ in range(2)]
    assert len(caught) == 1


def test_a_train_step_of_ones_own_may_read_what_the_captured_step_gave():
    class Own(dlgpu.Sequential):
        def train_step(self, data):
            return {"loss": 2 * float(super().train_step(data)["loss"])}

    def make(**compiled):
        model = Own([layers.Dense(4), layers.Dense(1, "sigmoid")])
        model.compile("adam", "binary_crossentropy", **compiled)
        return model

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert captured(assert_same_bits(make)) == [True, True]


def test_more_shapes_than_there_may_be_graphs_run_as_written(monkeypatch):
    monkeypatch.setattr(graph.Repeater, "most", 2)
    batches = [(X[:n], Y[:n]) for n in (4, 5, 6, 7) for _ in range(4)]
    with pytest.warns(UserWarning, match="more than 2 different shapes") as caught:
        model = assert_same_bits(dense_model, lambda m: m.fit(iter(batches), verbose=0).history)
    assert len(told(caught)) == 1
    assert captured(model) == [True, True, False, False]
