"""Callbacks do what they say at the turning points of a run."""

import csv
import warnings

import numpy as np
import pytest

from dlgpu.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TerminateOnNaN,
)
from dlgpu.layers import Dense
from dlgpu.models import Sequential
from dlgpu.optimizers import SGD


class Scripted(Callback):
    """Replaces what an epoch found by a script, so that what watches it can be tested exactly."""

    def __init__(self, *values):
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        logs["val_loss"] = self.values[epoch]


@pytest.fixture
def model():
    made = Sequential([Dense(1, input_shape=(2,))])
    made.compile(SGD(0.1), "mse")
    return made


@pytest.fixture
def fit(model, rng):
    x, y = rng.standard_normal((8, 2)), rng.standard_normal((8, 1))
    return lambda *callbacks, epochs=10: model.fit(x, y, epochs=epochs, verbose=0, callbacks=list(callbacks))


def test_hooks_come_in_order(fit):
    seen = []
    hooks = [
        "on_train_begin",
        "on_epoch_begin",
        "on_train_batch_begin",
        "on_train_batch_end",
        "on_epoch_end",
        "on_train_end",
    ]
    fit(LambdaCallback(**{h: lambda *a, h=h: seen.append(h) for h in hooks}), epochs=2)
    assert seen == [hooks[0], *hooks[1:5], *hooks[1:5], hooks[5]]


def test_early_stopping_waits_for_patience_and_restores_the_best(fit, model):
    weights = []
    history = fit(
        Scripted(5, 3, 4, 4, 4, 1, 0),
        LambdaCallback(on_epoch_end=lambda epoch, logs: weights.append(model.get_weights())),
        EarlyStopping(patience=3, restore_best_weights=True),
    )
    assert history.epoch == [0, 1, 2, 3, 4]
    for a, b in zip(model.get_weights(), weights[1]):
        np.testing.assert_array_equal(a, b)


def test_early_stopping_counts_only_changes_of_min_delta(fit):
    assert len(fit(Scripted(1, 0.95, 0.9, 0.85), EarlyStopping(min_delta=0.5, patience=2)).epoch) == 3


def test_nan_is_never_better(fit):
    assert len(fit(Scripted(1, np.nan, np.nan, 0), EarlyStopping(patience=2)).epoch) == 3


def test_monitoring_what_is_not_there_says_what_is(fit):
    with pytest.raises(ValueError, match=r"no 'val_loss' to monitor; there is loss.*validation data"):
        fit(EarlyStopping())


def test_the_learning_rate_falls_on_a_plateau_and_rests(fit):
    history = fit(
        Scripted(1, 1, 1, 1, 1, 1, 1, 1, 1, 1), ReduceLROnPlateau(factor=0.5, patience=2, cooldown=1, min_lr=0.02)
    )
    # epochs 1 and 2 do not improve; after each reduction the wait begins anew, the first epoch of it resting
    np.testing.assert_allclose(
        history.history["learning_rate"], [0.1, 0.1, 0.1, 0.05, 0.05, 0.025, 0.025, 0.02, 0.02, 0.02], rtol=1e-6
    )


@pytest.mark.parametrize("schedule", [lambda epoch, rate: 0.1 / (epoch + 1), lambda epoch: 0.1 / (epoch + 1)])
def test_the_scheduler_sets_the_rate_of_each_epoch(fit, model, schedule):
    history = fit(LearningRateScheduler(schedule), epochs=3)
    np.testing.assert_allclose(history.history["learning_rate"], [0.1, 0.05, 0.1 / 3], rtol=1e-6)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.1 / 3)


def test_a_loss_that_is_not_finite_ends_the_run(rng):
    model = Sequential([Dense(1, input_shape=(2,))])
    model.compile(SGD(1e30), "mse")
    x, y = rng.standard_normal((8, 2)), rng.standard_normal((8, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the callback has said it
        history = model.fit(x, y, epochs=50, verbose=0, callbacks=[TerminateOnNaN()])
    assert len(history.epoch) < 5


def test_the_csv_holds_every_epoch(fit, tmp_path):
    path = tmp_path / "log.csv"
    history = fit(CSVLogger(path), epochs=3)
    fit(CSVLogger(path, append=True), epochs=1)
    rows = list(csv.DictReader(path.open()))
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "0"]
    np.testing.assert_allclose([float(row["loss"]) for row in rows[:3]], history.history["loss"])


def test_checkpoints_keep_the_best(fit, model, tmp_path):
    path = tmp_path / "w-{epoch:02d}-{val_loss:.1f}.safetensors"
    fit(Scripted(3, 2, 5, 1), ModelCheckpoint(path, save_best_only=True, save_weights_only=True), epochs=4)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"w-{n}.safetensors" for n in ("01-3.0", "02-2.0", "04-1.0")]
    last = model.get_weights()
    model.set_weights([w * 0 for w in last])
    model.load_weights(tmp_path / "w-04-1.0.safetensors")
    for a, b in zip(model.get_weights(), last):
        np.testing.assert_array_equal(a, b)


def test_what_is_not_a_callback_is_refused(fit):
    with pytest.raises(TypeError, match="expected Callback objects"):
        fit(print)
    with pytest.raises(TypeError, match="unknown hook 'on_epoch'"):
        LambdaCallback(on_epoch=print)


def test_epochs_without_validation_are_not_watched_and_leave_gaps_in_the_csv(model, rng, tmp_path):
    x, y = rng.standard_normal((8, 2)), rng.standard_normal((8, 1))
    stopping = EarlyStopping(patience=1, min_delta=1e9)
    history = model.fit(
        x,
        y,
        epochs=9,
        verbose=0,
        validation_data=(x, y),
        validation_freq=2,
        callbacks=[CSVLogger(tmp_path / "log.csv"), stopping, ReduceLROnPlateau()],
    )
    assert history.epoch == [0, 1, 2, 3]  # watched after the second epoch and the fourth
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [bool(row["val_loss"]) for row in rows] == [False, True, False, True]
