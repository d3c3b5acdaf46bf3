"""What the profile of a step adds on a GPU: graphs of one call, peaks and ranges for Nsight."""

from cupy.cuda import nvtx

from benchmarks import clock, launches, programs
from dlgpu.backend.dispatch import Kernel


def test_calls_are_timed_in_graphs_and_the_step_has_ranges(cupy, monkeypatch):
    monkeypatch.setitem(programs.ROWS, "fnn", 2 * programs.BATCH)
    calls, names = Kernel.__call__, []
    monkeypatch.setattr(nvtx, "RangePush", names.append)
    monkeypatch.setattr(nvtx, "RangePop", lambda: names.append(None))
    captured, graphs = clock.captured, []
    monkeypatch.setattr(clock, "captured", lambda *a: graphs.append(captured(*a)) or graphs[-1])
    found = launches.profile("fnn", "cuda", 1)
    assert Kernel.__call__ is calls  # nothing is left behind
    assert [c.name for c in found.calls][-3:] == ["add_scaled", "add_binary_matches", "adam_step"]
    assert graphs
    assert None not in graphs
    assert {"adam_step", "dense_backward"} <= set(names)
    assert any(name and name.startswith("step of sequential") for name in names)
    assert names.count(None) == len(names) / 2
    assert all(peak > 0 for peak in found.peaks.values())
    assert launches.table(found, 0.0).count("peak, ") == len(found.peaks)
