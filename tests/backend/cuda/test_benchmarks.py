"""The run on a GPU, tried out on the emulator: what it finds is in its file, whatever happens to a part."""

import json
import os
import sys

import pytest

import dlgpu
from benchmarks import gpu, kernels
from benchmarks.processes import run


def test_where_the_device_is_not_there_it_says_what_is_missing_and_stops(tmp_path, capsys):
    out = tmp_path / "gpu.json"
    assert gpu.main(["--out", str(out), "--device", "cuda:99"]) == 2
    assert "Device 'cuda:99' is not available: " in capsys.readouterr().err
    assert not out.exists()


def test_every_kernel_of_the_column_is_among_those_that_are_called():
    with dlgpu.device("emulator"), kernels.recorded() as calls:
        kernels.everything(kernels.SMALL)
    assert kernels.unused(calls) == set()
    assert calls["softmax"][0][0].shape == (kernels.SMALL.rows, kernels.SMALL.features)


def test_a_run_counts_and_names_and_fails_with_a_failing_test(tmp_path, capsys, monkeypatch):
    tests, out = tmp_path / "test_some.py", tmp_path / "gpu.json"
    tests.write_text(
        "import dlgpu\n"
        "def test_device(): assert str(dlgpu.current_device()) == 'emulator'\n"
        "def test_wrong(): assert 1 == 2, 'as it must'\n"
    )
    chosen = ["--out", str(out), "--device", "emulator", "--only", "tests,kernels,sanitizers", "--tests", str(tests)]
    assert gpu.main(chosen) == 1
    found = json.loads(out.read_text())
    assert not found["ok"]
    parts = found["parts"]
    assert list(parts) == ["kernels", "sanitizers", "tests"]
    assert parts["kernels"]["ok"]
    assert parts["kernels"]["lstm_backward"]["ms"] > 0
    assert "not_run" in parts["sanitizers"]["memcheck"]
    assert (parts["tests"]["passed"], parts["tests"]["failed"]) == (1, 1)
    ((name, message),) = parts["tests"]["failures"].items()
    assert name.endswith("test_some::test_wrong")
    assert "as it must" in message
    assert name in capsys.readouterr().out


def test_a_part_that_breaks_does_not_lose_the_others(tmp_path, monkeypatch):
    def broken(device, seconds):
        raise gpu.PartError("a driver fell over")

    monkeypatch.setattr(
        gpu, "PARTS", {"steps": (broken, 9), "kernels": (lambda *_: ({"ms": 1}, True), 9), "tests": gpu.PARTS["tests"]}
    )
    monkeypatch.setattr(gpu, "table", lambda result: "")
    assert gpu.main(["--out", str(tmp_path / "gpu.json"), "--device", "emulator", "--only", "steps,kernels"]) == 1
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert parts["steps"]["error"] == "a driver fell over"
    assert parts["kernels"]["ok"]


@pytest.mark.parametrize(("summary", "status", "errors"), [("ERROR", 0, 0), ("RACECHECK", 9, 3)])
def test_what_a_sanitizer_finds_is_counted_and_fails(summary, status, errors, tmp_path, monkeypatch):
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(f"#!/bin/sh\necho '========= {summary} SUMMARY: {errors} errors'\nexit {status}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    found, ok = gpu.sanitizers("cuda", 20)
    assert ok == (errors == 0)
    assert [found[name]["errors"] for name in gpu.SANITIZERS] == [errors, errors]


@pytest.mark.parametrize("hanging", ["while True: pass", "import time; time.sleep(60)"])
def test_a_command_that_hangs_is_stopped(hanging):
    done = run([sys.executable, "-c", hanging], 0.3)
    assert done.returncode == 124
    assert "stopped after" in done.stdout
