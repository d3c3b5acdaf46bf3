"""The fastest of several ways is measured once for a GPU, and remembered; with a clock that the tests set."""

import json

import pytest

from dlgpu.backend.cuda import tuning
from dlgpu.backend.cuda.tuning import fastest
from dlgpu.backend.devices import EMULATOR, Device

FILE = "tensor_convolution.cu"
WAYS = ["slow", "fast", "slower"]
TIMES = {"slow": 3.0, "fast": 1.0, "slower": 5.0}
GPU = Device("cuda")


@pytest.fixture(autouse=True)
def measured(monkeypatch, tmp_path):
    """The ways that were measured, by a clock that knows how long each takes; a process that knows nothing yet."""
    monkeypatch.setenv("DLGPU_TUNING", "1")
    monkeypatch.setenv("DLGPU_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tuning, "_chosen", {})
    names = []

    def milliseconds(run):
        names.append(run())
        return TIMES[names[-1]]

    monkeypatch.setattr(tuning, "milliseconds", milliseconds)
    tuning._file.cache_clear()
    yield names
    tuning._file.cache_clear()


def chosen(key="a key", ways=WAYS, device=GPU, filename=FILE):
    return fastest(key, ways, lambda way: way, device, filename)


def another_process(monkeypatch):
    monkeypatch.setattr(tuning, "_chosen", {})


def test_the_fastest_is_measured_once_for_each_key(measured):
    assert [chosen(), chosen(), chosen("another")] == ["fast"] * 3
    assert measured == WAYS * 2


def test_another_process_measures_nothing_again(measured, monkeypatch, tmp_path):
    chosen(), chosen("another")
    another_process(monkeypatch)
    monkeypatch.setitem(TIMES, "slow", 0.1)
    assert [chosen(), chosen("another")] == ["fast"] * 2
    assert measured == WAYS * 2
    assert len(list((tmp_path / "tuning").iterdir())) == 1  # and nothing half-written beside it


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"VERSION": 3}', '{"VERSION": {"\'a key\'": "gone"}}', "\xff"]
)
def test_a_file_that_is_not_as_it_should_be_is_written_anew(text, measured, monkeypatch, tmp_path):
    chosen()
    (file,) = (tmp_path / "tuning").iterdir()
    (version,) = json.loads(file.read_text())
    file.write_bytes(text.replace("VERSION", version).encode("latin-1"))
    another_process(monkeypatch)
    assert chosen() == "fast"
    assert measured == WAYS * 2
    assert json.loads(file.read_text()) == {version: {"'a key'": "fast"}}


def test_what_was_measured_of_other_sources_does_not_count(measured, monkeypatch):
    chosen()
    another_process(monkeypatch)
    assert chosen(filename="linear.cu") == "fast"
    assert measured == WAYS * 2


def test_a_folder_that_cannot_be_written_costs_only_the_next_process_time(measured, monkeypatch, tmp_path):
    (tmp_path / "tuning").write_text("not a folder")
    assert [chosen(), chosen()] == ["fast"] * 2
    assert measured == WAYS


def test_nothing_is_measured_in_the_emulator_or_if_it_is_turned_off_or_where_there_is_no_choice(measured, monkeypatch):
    assert chosen(device=EMULATOR) == "slow"
    assert chosen(ways=["slower"]) == "slower"
    monkeypatch.setenv("DLGPU_TUNING", "0")
    assert chosen() == "slow"
    assert not measured


def test_nothing_is_measured_during_a_capture_but_what_is_known_is_used(measured, cupy):
    chosen("known")
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        assert [chosen(), chosen("known")] == ["slow", "fast"]
        stream.end_capture()
    assert measured == WAYS
    assert chosen() == "fast"


def test_the_gpus_own_clock_is_read_after_all_launches(monkeypatch, cupy):
    monkeypatch.undo()
    launches = []
    monkeypatch.setattr(cupy.cuda, "get_elapsed_time", lambda start, end: 10.0 * len(launches))
    assert tuning.milliseconds(lambda: launches.append(1)) == 10 * (1 + tuning.LAUNCHES) / tuning.LAUNCHES
    assert len(launches) == 1 + tuning.ROUNDS * tuning.LAUNCHES
