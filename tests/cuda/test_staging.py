"""Batches that are copied beside the computation: nothing is read too early or overwritten too soon."""

import numpy as np
import pytest

import dlgpu
from dlgpu.backend.cuda import staging
from dlgpu.layers import Dense
from dlgpu.models import Sequential


@pytest.fixture
def send():
    return dlgpu.device("cuda").sender()


def batch(number, rows=5):
    return [np.full((rows, 3), number, np.float64), np.arange(rows, dtype=np.int64) + number]


def values(arrays):
    return [a.get() for a in arrays]


def test_batches_arrive_whole_in_order_and_in_their_dtypes(send, cupy):
    for number in range(7):
        given = [*batch(number, rows=1 + number % 3), np.zeros((0, 2), np.uint8), np.float32([[number]]).T[::-1]]
        x, y, empty, strided = send(given, [np.float32, None, None, None])
        assert all(isinstance(a, cupy.ndarray) and a.flags.c_contiguous for a in (x, y, empty, strided))
        assert (x.dtype, y.dtype, empty.dtype, empty.shape) == (np.float32, np.int64, np.uint8, (0, 2))
        for found, expected in zip(values((x, y, strided)), (given[0], given[1], given[3])):
            np.testing.assert_array_equal(found, expected)


def test_the_copy_waits_for_the_work_on_what_was_there_and_the_work_for_the_copy(send):
    totals = []
    for number in range(6):
        x, _ = send(batch(number), [np.float32, None])
        totals.append((x * x).sum())
    assert [float(t) for t in totals] == [15.0 * n * n for n in range(6)]


def test_buffers_are_used_again_unless_somebody_holds_them(send):
    seen = [send(batch(n), [None, None])[0].data.ptr for n in range(6)]
    assert len(set(seen)) == staging.SLOTS
    held = send(batch(100), [None, None])
    for number in range(4):
        send(batch(number), [None, None])
    for found, expected in zip(values(held), batch(100)):
        np.testing.assert_array_equal(found, expected)


def test_arrays_of_the_gpu_are_not_copied(send, cupy):
    there = cupy.arange(4)
    x, y = send([there, np.arange(3)], [None, None])
    assert x is there
    np.testing.assert_array_equal(y.get(), np.arange(3))
    assert send([there], [np.float32])[0].dtype == np.float32


def test_a_step_sends_its_batch_as_one_copy_and_takes_turns(monkeypatch):
    model = Sequential([Dense(4, activation="tanh", input_dim=3), Dense(1)])
    model.compile(loss="mse", optimizer="adam", metrics=["mae"])
    sizes, slot = [], staging.Staging._slot
    monkeypatch.setattr("dlgpu.backend.cuda.resident.SHARE", 0)  # else the data set would stay on the device
    monkeypatch.setattr(staging.Staging, "_slot", lambda self, size: (sizes.append(size), slot(self, size))[1])
    model.fit(np.ones((64, 3)), np.ones((64, 1)), batch_size=16, sample_weight=np.ones(64), verbose=0)
    made = list(model._step.send.slots)
    assert sizes[-4:] == [3 * staging.ALIGNMENT] * 4  # inputs, targets and weights: 192, 64 and 64 bytes
    model.fit(np.ones((64, 3)), np.ones((64, 1)), batch_size=16, sample_weight=np.ones(64), verbose=0)
    assert all(a is b for a, b in zip(made, model._step.send.slots))  # nobody held a buffer, none was made anew


def test_fit_gives_what_batches_by_hand_give(rng):
    x, y = rng.normal(size=(40, 3)), rng.normal(size=(40, 1))

    def trained(through):
        dlgpu.set_random_seed(1)
        model = Sequential([Dense(4, activation="tanh", input_dim=3), Dense(1)])
        model.compile(loss="mse", optimizer="adam")
        through(model)
        return model.get_weights()

    def by_hand(model):
        for start in range(0, 40, 16):
            model.train_on_batch(x[start : start + 16], y[start : start + 16])

    fitted = trained(lambda model: model.fit(x, y, batch_size=16, shuffle=False, verbose=0))
    for a, b in zip(fitted, trained(by_hand)):
        np.testing.assert_array_equal(a, b)
