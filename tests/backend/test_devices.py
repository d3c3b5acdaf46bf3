"""Devices: names, what is said where they are missing, and which one is current."""

import contextvars
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import dlgpu
from dlgpu import DeviceError, current_device
from dlgpu.backend import devices
from dlgpu.backend.devices import Device, device_of, to_host


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch):
    """Each test begins as a process does in which nobody has named a device."""
    monkeypatch.setattr(devices, "_chosen", [])
    monkeypatch.delenv("DLGPU_DEVICE", raising=False)


@pytest.fixture
def two_gpus(monkeypatch):
    """A machine on which two GPUs answer. Nothing runs on them here."""
    monkeypatch.setattr(devices, "cuda_devices", lambda: (2, None))


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(devices, "cuda_devices", lambda: (0, f"CuPy is not installed ({devices.INSTALL_CUPY})."))


def test_names_and_aliases(two_gpus):
    for name, kind, index, shown in (
        ("cpu", "cpu", 0, "cpu"),
        ("CPU", "cpu", 0, "cpu"),
        ("cuda", "cuda", 0, "cuda"),
        ("cuda:0", "cuda", 0, "cuda"),
        ("cuda:1", "cuda", 1, "cuda:1"),
        ("gpu", "cuda", 0, "cuda"),
        ("gpu:1", "cuda", 1, "cuda:1"),
    ):
        found = dlgpu.device(name)
        assert (found, str(found)) == (Device(kind, index), shown)
        assert dlgpu.device(found) is found


@pytest.mark.parametrize("name", ["tpu", "", "cuda:one", "cuda:-1", None])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(DeviceError, match=r"Unknown device .* Known: cpu, cuda, cuda:1, emulator, gpu"):
        dlgpu.device(name)
    with pytest.raises(DeviceError, match="Did you mean 'cuda'"):
        dlgpu.device("cudda")


def test_a_device_that_is_not_there_says_what_to_do(no_gpu):
    with pytest.raises(DeviceError, match=r"Device 'gpu' is not available: CuPy is not installed \(pip install 'dlgpu"):
        dlgpu.device("gpu")
    with pytest.raises(DeviceError, match="Device 'cuda' is not available"):
        dlgpu.set_device("cuda")
    with pytest.raises(DeviceError, match="there is one such device"):
        dlgpu.device("cpu:1")
    assert str(current_device()) == "cpu"


def test_a_gpu_beyond_the_last_is_named(two_gpus):
    with pytest.raises(DeviceError, match=r"'cuda:2' is not available: this machine has 2 CUDA device\(s\)"):
        dlgpu.device("cuda:2")


def test_the_default_is_a_gpu_where_one_answers_and_else_the_cpu(two_gpus, monkeypatch):
    assert str(current_device()) == "cuda"
    monkeypatch.setattr(devices, "_chosen", [])
    monkeypatch.setattr(devices, "cuda_devices", lambda: (0, "no GPU"))
    assert str(current_device()) == "cpu"


def test_with_nests_and_ends_with_an_error_too(two_gpus):
    def fails_inside():
        with dlgpu.device("cuda"), dlgpu.device("cuda:1"):
            assert str(current_device()) == "cuda:1"
            raise ZeroDivisionError

    dlgpu.set_device("cpu")
    with dlgpu.device("cuda:1") as outer:
        assert current_device() is outer
        with pytest.raises(ZeroDivisionError):
            fails_inside()
        assert current_device() is outer
        dlgpu.set_device("cuda")  # the default outside
        assert current_device() is outer
    assert str(current_device()) == "cuda"


def test_a_thread_begins_with_the_default_and_a_copied_context_with_its_own(two_gpus):
    dlgpu.set_device("cpu")
    seen = []
    with dlgpu.device("cuda:1"):
        context = contextvars.copy_context()
        thread = threading.Thread(target=lambda: seen.append(current_device()), **fresh_context())
        thread.start()
        thread.join()
    context.run(lambda: seen.append(current_device()))
    assert [str(d) for d in seen] == ["cpu", "cuda:1"]


def fresh_context():
    """Python 3.14 lets threads inherit the context on some builds, and can be told not to."""
    return {"context": contextvars.Context()} if sys.version_info >= (3, 14) else {}


@pytest.mark.parametrize(
    ("variable", "code", "expected"),
    [
        ("cpu", "print(dlgpu.current_device())", "cpu"),
        ("tpu", "dlgpu.Tensor([1.0])", "DeviceError: Unknown device 'tpu'"),
        ("cuda:99", "dlgpu.Tensor([1.0])", "DeviceError: Device 'cuda:99' is not available"),
        ("tpu", "dlgpu.set_device('cpu'); print(dlgpu.current_device())", "cpu"),
    ],
)
def test_the_environment_names_the_default(variable, code, expected):
    environment = os.environ | {"DLGPU_DEVICE": variable}
    run = subprocess.run(
        [sys.executable, "-c", f"import dlgpu; {code}"], capture_output=True, text=True, env=environment
    )
    assert expected in run.stdout + run.stderr


def test_arrays_of_the_cpu_are_numpys_and_are_not_copied():
    cpu, array = dlgpu.device("cpu"), np.ones((2, 3))
    assert cpu.array_namespace is np
    assert cpu.asarray(array) is array
    assert cpu.asarray(array, np.float32).dtype == np.float32
    assert cpu.empty((2, 0), np.int32).shape == (2, 0)
    assert device_of(array) == device_of(array[0, 0]) == cpu
    assert to_host(array) is array
