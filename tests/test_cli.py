"""The command line: what it trains, what it says, and what it refuses before training."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dlgpu
from dlgpu.backend import devices
from dlgpu.callbacks import History
from dlgpu.cli import main
from dlgpu.cli.curves import _curves as draw_curves
from dlgpu.cli.programs import PROGRAMS, compiled_model
from dlgpu.cli.userdata import read_data
from dlgpu.datasets import breast_cancer, sunspots
from dlgpu.models import load_model

rng = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def own_device():
    """What --device chooses stays in the test."""
    before = list(devices._chosen)
    yield
    devices._chosen[:] = before


def table(text):
    """Program -> its row, from what was printed."""
    lines = text.split("\n")
    start = next(i for i, line in enumerate(lines) if line.startswith("Program"))
    return {line.split()[0]: line for line in lines[start + 2 :] if line.split()[:1] and line.split()[0] in PROGRAMS}


def test_all_four_train_and_end_in_a_table(capsys, tmp_path):
    files = ["--save", str(tmp_path / "m.dlgpu"), "--plot", str(tmp_path / "curves.png")]
    assert main(["train", "--epochs", "1", "--batch-size", "256", *files]) == 0
    out, err = capsys.readouterr()
    rows = table(out)
    assert list(rows) == ["fnn", "cnn", "rnn", "lstm"]
    assert "accuracy 0." in rows["cnn"]
    assert "of persistence's" in rows["lstm"]
    compiled = err.count("dlgpu compiles its loops")  # a machine's first run says so
    assert err.count("\n") == 4 + compiled  # one bar for each
    assert err.count("100%") >= 4
    assert sorted(os.listdir(tmp_path)) == ["curves.png", "m-cnn.dlgpu", "m-fnn.dlgpu", "m-lstm.dlgpu", "m-rnn.dlgpu"]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert load_model(tmp_path / "m-lstm.dlgpu").optimizer.iterations == 1


def test_the_programs_reach_their_goals_on_small_nets(capsys):
    for name, goal in (("fnn", 0.96), ("lstm", 0.75)):
        assert main(["train", name]) == 0
        row = table(capsys.readouterr().out)[name].split()
        score = float(row[row.index("accuracy") + 1] if name == "fnn" else row[row.index("of") - 1])
        assert score >= goal if name == "fnn" else score <= goal
        assert "missed" not in row


def test_a_goal_that_was_missed_is_marked(capsys):
    assert main(["train", "lstm", "--epochs", "1"]) == 0
    assert "at most 0.75, missed" in capsys.readouterr().out


@pytest.mark.parametrize("epochs", [1, 2, 7])
def test_ticks_are_whole_epochs(epochs):
    from matplotlib.figure import Figure

    axes, history = Figure().subplots(), History()
    for epoch in range(epochs):
        history.on_epoch_end(epoch, {"loss": 1.0, "val_loss": 2.0})
    draw_curves(axes, history, "loss")
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert ticks
    assert all(tick == round(tick) for tick in ticks)


def test_a_program_alone_gives_what_it_gives_among_others(capsys, tmp_path):
    weights = []
    for arguments in (["--save", str(tmp_path / "a.dlgpu")], ["fnn", "--save", str(tmp_path / "b.dlgpu")]):
        assert main(["train", "--epochs", "1", "--batch-size", "200", *arguments]) == 0
    for name in ("a-fnn", "b"):
        weights.append(load_model(tmp_path / f"{name}.dlgpu").get_weights())
    for one, two in zip(*weights):
        np.testing.assert_array_equal(one, two)


def test_seeds_and_devices_are_heeded(capsys, tmp_path):
    weights = []
    for seed in "112":
        path = tmp_path / "w.safetensors"
        assert main(["train", "fnn", "--epochs", "1", "--seed", seed, "--device", "cpu", "--save", str(path)]) == 0
        weights.append(path.read_bytes())
    assert weights[0] == weights[1] != weights[2]
    assert "Time on cpu" in capsys.readouterr().out


def test_ctrl_c_ends_with_the_table_so_far():
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "dlgpu", "train", "fnn", "--epochs", "1000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell that runs the tests in the background lets them ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout.readline().startswith("fnn on breast cancer: 456 samples of 30 to 2 classes")
    shown = ""
    while "Epoch 2" not in shown:
        shown += process.stderr.read(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "(interrupted)" in table(out)["fnn"]
    assert "Traceback" not in err


def test_ctrl_c_between_programs_ends_with_the_table_so_far(capsys, monkeypatch):
    from dlgpu.cli import train

    def press(task, arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "_run", press)
    assert main(["train"]) == 130
    assert table(capsys.readouterr().out) == {}


def write_csv(path, rows, names=True, delimiter=","):
    lines = [delimiter.join(f"c{i}" for i in range(len(rows[0])))] if names else []
    path.write_text("\n".join([*lines, *(delimiter.join(repr(float(v)) for v in row) for row in rows)]) + "\n")
    return str(path)


@pytest.mark.parametrize(("names", "delimiter"), [(True, ","), (False, ";"), (True, "\t")])
def test_a_table_of_classes(capsys, tmp_path, names, delimiter):
    (x, y), _ = breast_cancer.load_data(standardize=False)
    path = write_csv(tmp_path / "cells.csv", np.column_stack([x, y * 2 + 1]), names, delimiter)
    assert main(["train", "fnn", "--data", path, "--epochs", "10", "--save", str(tmp_path / "m.dlgpu")]) == 0
    out = capsys.readouterr().out
    assert "cells.csv: 365 samples of 30 to 2 classes (1, 3), 91 more for the test" in out
    row = table(out)["fnn"].split()
    assert float(row[row.index("accuracy") + 1]) > 0.9
    model = load_model(tmp_path / "m.dlgpu")  # it takes the raw features
    assert np.mean((model.predict(x, verbose=0)[:, 0] > 0.5) == y) > 0.9


def test_a_table_of_numbers_is_forecast_in_its_own_units(capsys, tmp_path):
    x = rng.normal(size=(400, 3)) * [1, 1000, 0.001]
    y = 1e6 + 5000 * x[:, 0] + 7 * x[:, 1]
    path = write_csv(tmp_path / "prices.csv", np.column_stack([x, y]))
    assert main(["train", "fnn", "--data", path, "--epochs", "60", "--save", str(tmp_path / "m.dlgpu")]) == 0
    row = table(capsys.readouterr().out)["fnn"].split()
    assert float(row[row.index("of") - 1]) < 0.3
    predictions = load_model(tmp_path / "m.dlgpu").predict(x.astype(np.float32), verbose=0)
    assert np.corrcoef(predictions[:, 0], y)[0, 1] > 0.95


def test_a_table_is_a_series_for_recurrent_networks(capsys, tmp_path):
    _, numbers = sunspots.load_series()
    path = write_csv(tmp_path / "series.csv", numbers[:, None], names=False)
    assert main(["train", "lstm", "--data", path, "--epochs", "30"]) == 0
    out = capsys.readouterr().out
    assert "239 samples of 11 x 1 to 1 number, 59 more for the test" in out
    row = table(out)["lstm"].split()
    assert float(row[row.index("of") - 1]) < 0.9


def test_a_series_tests_on_what_comes_after_the_training(tmp_path):
    data = read_data(write_csv(tmp_path / "d.csv", np.arange(100.0)[:, None]), "rnn")
    assert data.train[1].max() < data.test[1].min()
    np.testing.assert_array_equal(data.test[0][:, -1, 0] + 1, data.test[1][:, 0])
    np.testing.assert_array_equal(data.baseline, data.test[1] - 1)


@pytest.mark.parametrize(
    ("name", "x", "y", "classes", "outputs"),
    [
        ("fnn", rng.normal(size=(60, 4)), rng.integers(0, 3, 60), 3, (None, 3)),
        ("fnn", rng.normal(size=(60, 4)), np.eye(3)[rng.integers(0, 3, 60)], 3, (None, 3)),
        ("fnn", rng.normal(size=(60, 4)), rng.normal(size=(60, 2)), None, (None, 2)),
        ("fnn", rng.normal(size=(60, 4)), np.arange(60), None, (None, 1)),
        ("cnn", rng.integers(0, 255, (20, 6, 5, 3)).astype(np.uint8), rng.random(20) > 0.5, 2, (None, 1)),
        ("rnn", rng.normal(size=(30, 5, 2)), rng.integers(0, 2, (30, 1)).astype(float), 2, (None, 1)),
        ("lstm", rng.normal(size=(30, 5, 2)), rng.normal(size=30), None, (None, 1)),
    ],
)
def test_networks_suit_the_arrays(capsys, tmp_path, name, x, y, classes, outputs):
    path = str(tmp_path / "d.npz")
    np.savez(path, x=x, y=y)
    data = read_data(path, name)
    assert data.classes == classes
    assert len(data.train[1]) + len(data.test[1]) == len(y)
    model = compiled_model(name, data)
    assert model.input_shape == x.shape[1:]
    assert model.output_shape == outputs
    assert main(["train", name, "--data", path, "--epochs", "1"]) == 0
    assert name in table(capsys.readouterr().out)


def test_the_users_own_split_is_kept(tmp_path):
    x, y = rng.normal(size=(30, 4)), rng.integers(0, 2, 30)
    np.savez(tmp_path / "d.npz", x_train=x[:20], y_train=y[:20], x_test=x[20:], y_test=y[20:])
    data = read_data(str(tmp_path / "d.npz"), "fnn")
    np.testing.assert_array_equal(data.test[1], y[20:])
    np.testing.assert_allclose(data.train[0], x[:20], rtol=1e-6)


def test_the_model_standardizes_its_inputs_by_the_training_samples(tmp_path):
    x = rng.normal(size=(50, 3)) * [1, 100, 0] + [0, 5000, 7]
    np.savez(tmp_path / "d.npz", x=x, y=rng.normal(size=50))
    data = read_data(str(tmp_path / "d.npz"), "fnn")
    made = compiled_model("fnn", data).layers[0](data.train[0]).numpy()
    np.testing.assert_allclose(made.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(made.std(axis=0), [1, 1, 0], atol=1e-4)


A, B = np.ones((20, 4)), np.arange(20) % 2
WRONG_ARRAYS = {
    "names": ({"a": A}, "expected arrays x and y, or x_train, .*; got a"),
    "rank": ({"x": A[:, :, None], "y": B}, r"fnn wants rows of features, \(n, features\), got x of shape \(20, 4, 1\)"),
    "length": ({"x": A, "y": B[:7]}, "x has 20 samples, but y has 7"),
    "nan": ({"x": np.where(np.arange(80).reshape(20, 4) == 9, np.nan, A), "y": B}, "x: row 2 holds NaN"),
    "text": ({"x": A.astype(str), "y": B}, "x: expected numbers, got an array of dtype <U"),
    "objects": ({"x": np.array([None, 1]), "y": B}, "expected arrays of numbers, as numpy.savez"),
    "one class": ({"x": A, "y": B * 0}, "expected y of several values, got only 0"),
    "rank of y": ({"x": A, "y": np.zeros((20, 2, 2))}, r"expected y of shape \(n,\) or \(n, outputs\)"),
    "new class": (
        {"x_train": A, "y_train": B, "x_test": A, "y_test": B + 1},
        "y_test holds class 2, which y_train does not",
    ),
    "few": ({"x": A[:4], "y": B[:4] + 0.5}, "expected at least 10 samples, got 4"),
    "empty": ({"x": A[:0], "y": B[:0]}, "x is empty"),
}
WRONG_FILES = {
    "text.csv": (b"a,b\n1,2\n1,one\n", r"expected numbers only \(line 3, column 2 holds 'one'\)"),
    "gap.csv": (b"a,b\n\n1,2\n\n,2\n", r"expected numbers only \(line 5, column 1 holds ''\)"),
    "ragged.csv": (b"1,2\n1\n", r"expected numbers only \(line 2 has 1 columns, those before have 2\)"),
    "empty.csv": (b"", "holds no lines of numbers"),
    "names.csv": (b"a,b\n", "holds no lines of numbers"),
    "binary.csv": (b"\xff\xfe\x00\x81", "is not a text file"),
    "one.csv": (b"1\n2\n", "expected columns of features and a last one of targets"),
    "nan.csv": (b"1,2\nnan,3\n", "x: row 1 holds NaN"),
    "broken.npz": (b"PK\x03\x04 and no more", "truncated or no .npz file"),
    "foreign.npz": (b"a,b\n1,2\n", "foreign.npz"),
    "x.txt": (b"", "expected a file name that ends in .npz or .csv"),
}


def refused(capsys, arguments, message):
    assert main(["train", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("dlgpu train: error: ")
    assert re.search(message, err), err


@pytest.mark.parametrize("case", WRONG_ARRAYS)
def test_wrong_arrays_are_refused(capsys, tmp_path, case):
    arrays, message = WRONG_ARRAYS[case]
    np.savez(tmp_path / "d.npz", **arrays)
    refused(capsys, ["fnn", "--data", str(tmp_path / "d.npz")], message)


@pytest.mark.parametrize("name", WRONG_FILES)
def test_wrong_files_are_refused(capsys, tmp_path, name):
    content, message = WRONG_FILES[name]
    (tmp_path / name).write_bytes(content)
    refused(capsys, ["fnn", "--data", str(tmp_path / name)], message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "x.csv"], r"--data needs one program: dlgpu train fnn\|cnn\|rnn\|lstm --data x.csv"),
        (["fnn", "--data", "/nowhere/x.csv"], "No such file or directory: '/nowhere/x.csv'"),
        (["--device", "tpu"], "Unknown device 'tpu'"),
        (["--device", "cuda:77"], "'cuda:77' is not available"),
        (["--save", "/nowhere/x.dlgpu"], "--save: there is no folder /nowhere"),
        (["--save", "x.h5"], "--save: expected a file name that ends in .dlgpu or .safetensors, got 'x.h5'"),
        (["--plot", "/nowhere/x.png"], "--plot: there is no folder /nowhere"),
        (["--plot", "x.jpg"], "--plot: expected a file name that ends in .png"),
    ],
)
def test_what_cannot_be_done_is_refused_before_training(capsys, arguments, message):
    refused(capsys, arguments, message)


def test_a_table_of_images_is_refused(capsys, tmp_path):
    refused(
        capsys, ["cnn", "--data", write_csv(tmp_path / "i.csv", A)], "images, .* which a table cannot hold; use a .npz"
    )
    np.savez(tmp_path / "i.npz", x=np.ones((9, 8, 8)), y=B[:9])
    refused(capsys, ["cnn", "--data", str(tmp_path / "i.npz")], r"x\[..., None\] gives grey images their channel")
    refused(capsys, ["lstm", "--data", write_csv(tmp_path / "i.csv", A)], "a series of at least 21 lines, got 20")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "expected a positive integer, got '0'"),
        (["--batch-size", "-1"], "expected a positive integer, got '-1'"),
        (["--epochs", "two"], "got 'two'"),
        (["--seed", "1.5"], "expected an integer from 0"),
        (["dnn"], "invalid choice: 'dnn'"),
        (["--spam"], "unrecognized arguments: --spam"),
    ],
)
def test_wrong_flags_are_refused_in_one_line(capsys, arguments, message):
    with pytest.raises(SystemExit) as exit:
        main(["train", *arguments])
    err = capsys.readouterr().err
    assert exit.value.code == 2
    assert message in err
    assert err.count("\n") == 1


def test_without_matplotlib_a_plot_names_what_to_install(capsys, monkeypatch):
    monkeypatch.setattr("dlgpu.cli.train.find_spec", lambda name: None)
    refused(capsys, ["--plot", "x.png"], r"needs matplotlib: pip install 'dlgpu\[plot\]'")


def test_a_model_that_cannot_be_saved_is_said_and_the_table_stays(capsys, tmp_path, monkeypatch):
    def full(self, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dlgpu.models.Sequential.save", full)
    assert main(["train", "fnn", "--epochs", "1", "--save", str(tmp_path / "m.dlgpu")]) == 1
    out, err = capsys.readouterr()
    assert "fnn" in table(out)
    assert "m.dlgpu could not be written: [Errno 28] No space left" in err


def test_doctor_says_what_works(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"dlgpu {dlgpu.__version__}, Python 3." in out
    assert f"cpu      works: NumPy {np.__version__}" in out
    assert "cuda" in out
    assert "plot" in out


def test_doctor_survives_a_device_that_is_not_there(capsys, monkeypatch):
    monkeypatch.setenv("DLGPU_DEVICE", "cuda:77")
    devices._chosen.clear()
    assert main(["doctor"]) == 0
    assert "default  none (DLGPU_DEVICE=cuda:77)" in capsys.readouterr().out


def test_doctor_names_what_to_install(capsys, monkeypatch):
    monkeypatch.setattr("dlgpu.cli.doctor._version", lambda name: None)
    main(["doctor"])
    out = capsys.readouterr().out
    assert "pip install 'dlgpu[keras]'  (h5py missing)" in out
    extras = Path(__file__).parents[1].joinpath("pyproject.toml").read_text().partition("optional-dependencies]")[2]
    for name in set(re.findall(r"^(\w+) = \[", extras.partition("[project")[0], re.M)) - {"test", "parity"}:
        assert f"pip install 'dlgpu[{name}]'" in out


def test_version_and_help(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out == f"dlgpu {dlgpu.__version__}\n"
    assert main([]) == 2
    assert "train all four networks" in capsys.readouterr().out
