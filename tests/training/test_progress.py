"""Progress: what a person sees while waiting."""

import re

import numpy as np
import pytest

from dlgpu.layers import Dense
from dlgpu.models import Sequential


@pytest.fixture
def model():
    made = Sequential([Dense(1, input_shape=(2,))])
    made.compile("sgd", "mse", metrics=["mae"])
    return made


DATA = np.ones((20, 2), "float32"), np.ones((20, 1), "float32")


def test_a_fit_is_one_bar_that_ends_full_with_loss_metrics_and_validation(model, capfd):
    model.fit(*DATA, batch_size=4, epochs=3, validation_split=0.2)
    last = capfd.readouterr().err.replace("\r", "\n").strip().splitlines()[-1]
    assert re.search(r"Epoch 3/3: 100%.* 12/12 ", last)
    for name in ("loss", "mae", "val_loss", "val_mae"):
        assert re.search(rf"\b{name}=\d", last)


def test_a_stream_of_unknown_length_learns_its_length(model, capfd):
    class Stream:
        def __iter__(self):
            return iter([DATA, DATA])

    model.fit(Stream(), epochs=2)
    assert " 4/4 " in capfd.readouterr().err.replace("\r", "\n").strip().splitlines()[-1]


def test_evaluate_and_predict_show_bars_of_their_own(model, capfd):
    model.evaluate(*DATA, batch_size=5)
    model.predict(DATA[0], batch_size=5)
    shown = capfd.readouterr().err
    assert re.search(r"Evaluate: 100%.* 4/4 .*loss=", shown)
    assert re.search(r"Predict: 100%.* 4/4 ", shown)


def test_verbose_2_prints_a_line_an_epoch_and_0_nothing(model, capfd):
    model.fit(*DATA, epochs=2, verbose=2)
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 2
    assert re.match(r"Epoch 2/2  \d+\.\d s  loss \S+  mae \S+$", lines[1])
    model.fit(*DATA, verbose=0)
    model.evaluate(*DATA, verbose=0)
    model.predict(DATA[0], verbose=0)
    assert capfd.readouterr() == ("", "")


def test_an_unknown_verbose_is_an_error(model):
    with pytest.raises(ValueError, match="verbose: expected"):
        model.fit(*DATA, verbose="loud")
