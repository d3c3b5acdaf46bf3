"""The measurements on a CPU, tried out: what is run is in the file and in the tables, and nothing else is."""

import json
import math

import pytest

from benchmarks import changes, cpu, profile, programs, table, wider

KEYS = {"import_s", "import_mb", "first_ms", "from_start_s", "step_ms", "fastest_ms", "epochs", "peak_mb"}


def run(case: str, peer: str, **found) -> dict:
    return {"round": 0, "case": case, "peer": peer, **found}


def test_a_program_is_measured_in_processes_and_written_and_tabled(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cpu, "COLD", "none")
    monkeypatch.setattr(cpu, "CACHED", ())
    monkeypatch.setattr(cpu, "plan", lambda *_: [("fnn", "dlgpu-numpy")])
    out = tmp_path / "results" / "cpu.json"
    chosen = ["--parts", "programs", "--peers", "dlgpu-numpy", "--rounds", "1", "--seconds", "0.001", "--out", str(out)]
    assert cpu.main(chosen) == 0
    part = json.loads(out.read_text())["parts"]["programs"]
    (found,) = part["runs"]
    assert set(found) == KEYS | {"round", "case", "peer"}
    assert all(math.isfinite(found[key]) and found[key] > 0 for key in KEYS)
    assert found["epochs"] >= 3
    assert found["fastest_ms"] <= found["step_ms"]
    assert found["import_mb"] <= found["peak_mb"]
    assert part["machine"]["versions"]["numpy"]
    assert part["machine"]["processor"]
    assert "dlgpu-numpy" in capsys.readouterr().out


def test_a_failed_run_is_in_the_file_and_fails_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cpu, "in_a_process", lambda *_: {"error": "no such thing"})
    out = tmp_path / "cpu.json"
    assert cpu.main(["--parts", "changes", "--programs", "fnn", "--rounds", "1", "--out", str(out)]) == 1
    runs = json.loads(out.read_text())["parts"]["changes"]["runs"]
    assert [r["case"] for r in runs] == [f"fnn/{change}" for change in changes.CHANGES]
    assert all(r["error"] == "no such thing" for r in runs)


def test_unknown_names_are_refused(capsys):
    with pytest.raises(SystemExit):
        cpu.main(["--peers", "theano"])
    assert "unknown 'theano'" in capsys.readouterr().err


def test_a_ratio_is_the_best_peers_median_over_ours():
    runs = [run("fnn", "dlgpu", step_ms=t, first_ms=9, peak_mb=50) for t in (1, 2, 9)]
    runs += [run("fnn", "torch-fused", step_ms=t, first_ms=9, peak_mb=200) for t in (5, 6, 7)]
    runs += [run("fnn", "jax-scan", step_ms=8, first_ms=3, peak_mb=300), run("fnn", "dlgpu-cold", first_ms=70)]
    _, (_, heads, (summary,)) = table.tables({"parts": {"programs": {"runs": runs}}})
    row = dict(zip(heads, summary))
    assert row["best peer, ms"] == "6.00 (torch-fused)"
    assert row["ratio"] == "3.00"
    assert row["first epoch"] == "0.33"
    assert row["peak, PyTorch / dlgpu"] == "4.00"
    assert row["without Numba"] == ""


def test_tables_are_put_between_the_marks_of_a_page(tmp_path, monkeypatch):
    machine = {"processor": "abacus", "cores": 2, "python": "3.11", "versions": {"numpy": "2"}}
    runs = [run("size", "torch", size_mb=800), run("size", "dlgpu", size_mb=40)]
    results, page = tmp_path / "cpu.json", tmp_path / "page.md"
    results.write_text(json.dumps({"parts": {"sizes": {"date": "2020-01-01", "machine": machine, "runs": runs}}}))
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    for _ in range(2):  # again, into what it wrote
        table.main([str(results), "--into", str(page)])
        text = page.read_text()
        assert text.startswith("before\n")
        assert text.endswith("after\n")
        assert "old" not in text
        assert text.count("| dlgpu | 40.0 | 0.050 |") == 1
        assert "2020-01-01, 2 cores of abacus" in text


def test_every_case_of_dlgpu_is_there_for_pytorch_too():
    for case, works in wider.CASES.items():
        assert {"dlgpu", "dlgpu-numpy", "torch-fused"} <= set(works), case
        assert set(works) <= {*programs.PEERS, "dlgpu-eager"}, case


def test_a_profile_names_the_calls_and_what_is_outside_of_them(monkeypatch):
    monkeypatch.setitem(programs.ROWS, "fnn", 8 * programs.BATCH)
    found = profile.profile("fnn", epochs=2)
    assert any(name == "_products" and shapes.startswith("640 1280 64 2048") for name, shapes, _ in found.calls)
    assert all(spent >= 0 for *_, spent in found.calls)
    assert found.outside > 0
    shown = profile.table(found, least=0.0)
    assert "outside of calls" in shown
    assert shown.count("_products") >= 5


@pytest.mark.parametrize("change", changes.CHANGES)
def test_what_users_change_trains_and_is_replayed(change, monkeypatch):
    monkeypatch.setitem(changes.STEPS, "fnn", 4)
    found = changes.compare("fnn", change, seconds=0)
    assert found["replayed"]
    assert found["ratio"] > 0
