"""In float16, a step does not wait for the GPU: the loss scale and what it decides stay there."""

import numpy as np
import pytest

import dlgpu
from dlgpu.layers import Dense
from dlgpu.models import Sequential


@pytest.fixture(autouse=True)
def float16():
    dlgpu.mixed_precision.set_global_policy("mixed_float16")
    yield
    dlgpu.mixed_precision.set_global_policy("float32")


def test_a_step_reads_nothing_back_though_some_overflow(cupy, rng, monkeypatch):
    model = Sequential([Dense(8, activation="relu", input_shape=(4,)), Dense(1)])
    optimizer = dlgpu.mixed_precision.LossScaleOptimizer("adam", 2.0**20)
    model.compile(optimizer, "mse")
    x, y = rng.standard_normal((64, 4)).astype("f"), rng.standard_normal((64, 1)).astype("f")
    reads, read = [], cupy.ndarray.get

    def counted(self, *args, **options):
        reads.append(1)
        return read(self, *args, **options)

    monkeypatch.setattr(cupy.ndarray, "get", counted)

    def reads_of_an_epoch(batch_size):
        reads.clear()
        model.fit(x, y, batch_size=batch_size, epochs=1, verbose=0)
        return len(reads)

    assert reads_of_an_epoch(16) == reads_of_an_epoch(4)  # four times the steps
    assert 0 < optimizer.skipped < 20
    assert optimizer.iterations == 20 - optimizer.skipped
    assert np.isfinite(model.get_weights()[0]).all()
