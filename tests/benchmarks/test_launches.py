"""The profile of a GPU's step, tried out on the emulator: each kernel of one step, its work, and what is between."""

import numpy as np
import pytest

import dlgpu
from benchmarks import clock, launches, profile, programs
from dlgpu import ops


def one(name, *args):
    """The call that an operation makes."""
    with dlgpu.device("emulator"), launches.noted() as calls:
        getattr(ops, name)(*args)
    return calls


def test_a_profile_has_the_calls_of_one_step_and_the_gaps(monkeypatch):
    monkeypatch.setitem(programs.ROWS, "fnn", 3 * programs.BATCH)
    found = launches.profile("fnn", "emulator", 1)
    names = [call.name for call in found.calls]
    assert names[:2] == ["dense", "dense"]
    assert names.count("dense_backward") == 2
    assert names.count("adam_step") == 1
    assert all(call.milliseconds > 0 for call in found.calls)
    text = launches.table(found, 0.0)
    assert "of the emulator, which say nothing of a GPU" in text
    gaps = float(next(line for line in text.splitlines() if line.startswith("gaps")).split()[1])
    assert gaps == pytest.approx((found.step - sum(c.milliseconds for c in found.calls)) * 1e3, abs=0.1)


def test_a_calls_launches_are_its_own_and_inner_calls_are_part_of_it():
    x, kernel = (dlgpu.Tensor(np.ones(shape, np.float32), device="emulator") for shape in ((4, 600), (600, 3)))
    (call,) = one("matmul", x, kernel)
    assert call.name == "matmul"
    assert [launch.name for launch in call.launches] == ["product", "join_splits"]  # the inner dimension is split
    assert call.bytes == 4 * (4 * 600 + 600 * 3 + 4 * 3)
    assert launches.operations(call, []) == 2 * 4 * 600 * 3
    with dlgpu.device("emulator"):
        before = call.results.copy()
        assert clock.milliseconds(call.repeat, 2) > 0
    np.testing.assert_array_equal(call.results, before)


def test_operations_are_counted_as_products_have_them():
    def called(name, args, results=None, before=()):
        return launches.operations(launches.Call(name, lambda: None, args, results), list(before))

    x, kernel, grad = np.ones((2, 5, 5, 3)), np.ones((3, 3, 3, 7)), np.ones((2, 3, 3, 7))
    whole = 2 * 2 * 3 * 3 * 7 * 27
    assert called("convolution", (x, kernel), (grad, grad)) == whole
    assert called("convolution_pooled", (x, kernel), (grad[:, :1, :1], grad, grad)) == 2 * 2 * 2 * 2 * 7 * 27
    assert called("convolution_backward", (grad, x, kernel, grad, "relu", (True, True, True))) == 2 * whole
    assert called("convolution_backward", (grad, x, kernel, grad, "relu", (False, True, True))) == whole
    assert called("convolution_kernel_gradient", (x, grad), kernel) == whole
    x, kernel = np.ones((4, 6)), np.ones((6, 2))
    assert called("dense", (x, kernel)) == 96
    assert called("dense_backward", (np.ones((4, 2)), x, kernel, None, "relu", (True, True, True))) == 192
    assert called("dense_backward", (np.ones((4, 2)), x, kernel, None, "relu", ("factors", True, True))) == 96
    assert called("dense_activation_backward", (np.ones((4, 2)), kernel, x, "relu")) == 96
    series, kernel, recurrent = np.ones((2, 10, 3)), np.ones((3, 20)), np.ones((5, 20))
    forward = launches.Call("lstm", lambda: None, (series, kernel, recurrent))
    assert launches.operations(forward, []) == 2 * 20 * 160
    assert called("lstm_backward", (kernel, recurrent), before=[forward]) == 4 * 20 * 160
    assert called("softmax", (x,)) is None


def test_the_command_goes_by_the_device(capsys, monkeypatch):
    monkeypatch.setitem(programs.ROWS, "rnn", programs.BATCH)
    monkeypatch.setitem(programs.SHAPES, "rnn", (3, 8))
    profile.main(["rnn", "--device", "emulator"])
    assert "simple_rnn_backward" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        profile.main(["rnn", "--device", "cuda:99"])
    assert "Device 'cuda:99' is not available" in capsys.readouterr().err
