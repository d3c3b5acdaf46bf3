"""The goals on a GPU, tried out on the emulator: each case of dlgpu is measured, and the tables say what is reached."""

import json
import math

import pytest

from benchmarks import goal_tables, goals, gpu, processes, programs, table


@pytest.mark.parametrize(
    ("part", "cases", "keys"),
    [
        ("recurrent", ["lstm/3/2/4", "gru/3/2/4", "lstm/33/2/4", "gru/33/2/4"], {"forward_ms", "both_ms"}),
        (
            "convolution",
            [f"{layer}/{kind}" for layer in ("cnn", "cnn_pooled", "tiny") for kind in ("tf32", "bfloat16")],
            {"forward_ms", "both_ms"},
        ),
        ("mlp", ["mlp48"], {"step_ms", "first_ms", "epochs"}),
    ],
)
def test_each_case_is_measured(part, cases, keys, restored):
    found = list(goals.measured(part, "dlgpu", "emulator"))
    assert [f["case"] for f in found] == cases
    for each in found:
        assert each.keys() == {"case"} | keys
        assert all(math.isfinite(each[key]) and each[key] > 0 for key in keys)


def test_kernels_bound_by_memory_are_held_to_a_copy(restored):
    found = {f["case"]: f for f in goals.measured("memory", "dlgpu", "emulator")}
    assert {
        "bias_activation",
        "softmax",
        "layer_normalization_backward",
        "max_pool",
        "dropout",
        "adam_step",
    } <= found.keys()
    adam = found["adam_step"]
    assert adam["gb_s"] == pytest.approx(4 * 64 * 33 * 4 / adam["ms"] / 1e6, rel=0.02)  # and a few numbers more
    assert adam["of_copy"] > 0


@pytest.fixture
def restored(monkeypatch):
    """What measuring changes in this process is as it was."""
    import dlgpu

    monkeypatch.setattr(programs, "ROWS", dict(programs.ROWS))
    monkeypatch.setattr(programs, "SHAPES", dict(programs.SHAPES))
    before = dlgpu.current_device()
    yield
    dlgpu.set_device(before)
    dlgpu.mixed_precision.set_global_policy("float32")
    dlgpu.allow_tf32(False)


def test_a_peer_that_is_not_there_or_breaks_is_said_and_costs_nothing_else(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(programs.NEEDS, "nobody", ["no_such_library"])
    monkeypatch.setitem(programs.NEEDS, "broken", [])
    monkeypatch.setitem(goals.PEERS, "recurrent", ("dlgpu", "nobody", "broken"))
    out = tmp_path / "gpu.json"
    assert gpu.main(["--out", str(out), "--device", "emulator", "--only", "recurrent"]) == 0
    runs = json.loads(out.read_text())["parts"]["recurrent"]["runs"]
    assert [r.get("case") for r in runs if r["peer"] == "dlgpu"] == [c[0] for c in goals.recurrent_cases(True)]
    assert [r["peer"] for r in runs if "error" in r] == ["nobody", "broken"]
    said = capsys.readouterr().out
    assert "not installed: no_such_library" in said
    assert "which say nothing of a GPU" in said


@pytest.mark.parametrize("deaf", ["", "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "])
def test_what_was_measured_before_the_time_was_over_is_kept(deaf, monkeypatch):
    monkeypatch.setattr(processes, "GRACE", 1)
    script = deaf + 'print(\'{"case": "a", "ms": 1}\', flush=True); import time; time.sleep(60)'
    monkeypatch.setattr(gpu, "python", lambda module: [gpu.sys.executable, "-c", script])
    found, ok = gpu.goal("memory", "emulator", 2)
    assert not ok
    assert found["runs"][0] == {"peer": "dlgpu", "case": "a", "ms": 1}
    assert "stopped after 2 s" in found["runs"][1]["error"]


def run(case, peer, **found):
    return {"case": case, "peer": peer, **found}


def rows_of(parts, title):
    ((_, heads, rows),) = [t for t in goal_tables.tables(parts) if t[0] == title]
    return [dict(zip(heads, row)) for row in rows], rows


def test_the_tables_say_what_is_reached():
    steps = [run("fnn", "dlgpu", step_ms=1.0), run("fnn", "torch-fused", step_ms=6.0)]
    steps += [run("fnn", "torch-compile", step_ms=4.0), run("fnn", "jax-scan", step_ms=1.4)]
    _, ((*_, eager, _, eager_reached, compiled, _, compiled_reached),) = rows_of(
        {"steps": {"runs": steps}}, "A training step, batch 32"
    )
    assert (eager, eager_reached, compiled, compiled_reached) == ("6.00", "yes", "1.40", "no")

    both = [(256, 1.9, "no"), (512, 1.0, "yes")]
    recurrent = [
        run(f"lstm/{units}/32/100", peer, forward_ms=1.0, both_ms=ms)
        for units, theirs, _ in both
        for peer, ms in (("dlgpu", 1.0), ("torch", theirs))
    ]
    found, _ = rows_of({"recurrent": {"runs": recurrent}}, "Recurrent layers")
    assert [row["reached"] for row in found] == [reached for *_, reached in both]

    convolution = [
        run("a/tf32", peer, forward_ms=forward, both_ms=both)
        for peer, forward, both in (("dlgpu", 1, 2), ("torch", 0.4, 3.2))
    ]
    convolution += [run("cnn_pooled/tf32", peer, forward_ms=1, both_ms=1) for peer in ("dlgpu", "torch")]
    (found,), _ = rows_of({"convolution": {"runs": convolution}}, "Convolution, cuDNN / dlgpu")
    assert found["least"] == "0.400"
    assert found["geometric mean"] == "0.80"
    assert found["times"] == "2"

    memory = [
        run("adam_step", "dlgpu", ms=1.0, gb_s=3.0, of_copy=0.851),
        run("softmax", "dlgpu", ms=1.0, gb_s=3.0, of_copy=0.84),
    ]
    found, _ = rows_of({"memory": {"runs": memory}}, "Kernels bound by memory")
    assert [row["reached"] for row in found] == ["yes", "no"]

    mlp = [
        run("mlp", "dlgpu", step_ms=1.0),
        run("mlp", "torch-fused", step_ms=1.2),
        run("mlp", "torch-compile", step_ms=0.9),
    ]
    (found,), _ = rows_of({"mlp": {"runs": mlp}}, "MLP in bfloat16")
    assert (found["the best"], found["ratio"], found["reached"]) == ("torch-compile", "0.90", "no")


def test_what_is_not_measured_is_not_reached():
    parts = {"steps": {"runs": [run("fnn", "dlgpu", step_ms=1.0), {"peer": "jax-scan", "error": "a\nno GPU"}]}}
    text = table.lined(goal_tables.tables(parts))
    assert "not measured" in text
    assert "no GPU" in text
    assert " yes" not in text


def test_the_layers_are_those_of_resnet_50():
    assert len(goals.RESNET) == len(set(goals.RESNET)) == 24
    multiplied = sum(
        (size // stride) ** 2 * channels * filters * side**2
        for _, size, channels, filters, side, stride, _ in goals.RESNET
    )
    assert 1.5e9 < multiplied < 3e9  # of 4.1e9 in all, where most layers come several times
