"""Devices: "cpu", and "cuda", "cuda:1" (alias "gpu"), on which arrays live and kernels run."""

import functools
import importlib
import importlib.util
import os
from contextvars import ContextVar
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from dlgpu.backend.dispatch import array_namespace
from dlgpu.errors import DeviceError, unknown_name

INSTALL_CUPY = "pip install 'dlgpu[cuda12]' or 'dlgpu[cuda13]', to match the version that nvidia-smi prints"


@dataclass(frozen=True)
class Device:
    """A place for arrays; as a context manager, the current device inside the `with`."""

    kind: str
    index: int = 0

    @property
    def array_namespace(self) -> ModuleType:
        """The array library of this device: `numpy` or `cupy`."""
        return np if self.kind == "cpu" else importlib.import_module("cupy")

    def asarray(self, value: Any, dtype: Any = None) -> Any:
        """`value` as an array on this device; no copy when it is one already.

        Args:
            value: an array of any device, or whatever `numpy.asarray` takes.
            dtype: the dtype to convert to; the value's own by default.
        """
        if self.kind == "cpu":
            return np.asarray(to_host(value), dtype)
        with self.array_namespace.cuda.Device(self.index):
            return self.array_namespace.asarray(value, dtype)

    def empty(self, shape: Any, dtype: Any) -> Any:
        """A new array on this device, of undefined values."""
        if self.kind == "cpu":
            return np.empty(shape, dtype)
        with self.array_namespace.cuda.Device(self.index):
            return self.array_namespace.empty(shape, dtype)

    def __enter__(self) -> "Device":
        _stack.set((*_stack.get(), self))
        return self

    def __exit__(self, *exception: object) -> None:
        _stack.set(_stack.get()[:-1])

    def __str__(self) -> str:
        return f"{self.kind}:{self.index}" if self.index else self.kind


_stack: ContextVar[tuple[Device, ...]] = ContextVar("dlgpu_devices", default=())
_chosen: list[Device] = []


def device(name: str | Device) -> Device:
    """The device of that name: "cpu", "cuda", "cuda:1"; "gpu" means "cuda".

    Raises:
        DeviceError: the name is unknown, or the device is not there; the message says what to install.
    """
    if isinstance(name, Device):
        return name
    kind, _, index = str(name).lower().partition(":")
    kind = {"gpu": "cuda"}.get(kind, kind)
    if kind not in ("cpu", "cuda") or not (index or "0").isdecimal():
        raise DeviceError(unknown_name("device", name, ["cpu", "cuda", "cuda:1", "gpu"]))
    found = Device(kind, int(index or 0))
    problem = unavailable(found)
    if problem:
        raise DeviceError(f"Device {str(name)!r} is not available: {problem}")
    return found


def unavailable(wanted: Device) -> str | None:
    """Why a device cannot be used here and what to do about it, or None if it can be."""
    if wanted.kind == "cpu":
        return "there is one CPU device, 'cpu'." if wanted.index else None
    count, problem = cuda_devices()
    if problem:
        return problem
    return None if wanted.index < count else f"this machine has {count} CUDA device(s), numbered from 0."


@functools.cache
def cuda_devices() -> tuple[int, str | None]:
    """The number of CUDA devices that answer and, if there are none, why."""
    if importlib.util.find_spec("cupy") is None:
        return 0, f"CuPy is not installed ({INSTALL_CUPY})."
    try:
        count = importlib.import_module("cupy").cuda.runtime.getDeviceCount()
    except Exception as error:  # a broken driver or toolkit raises errors of many types
        return 0, f"CuPy found no usable NVIDIA GPU ({error}); check the driver with nvidia-smi."
    return count, None if count else "the NVIDIA driver reports no GPU."


def set_device(name: str | Device) -> None:
    """Make a device the default of the process, outside of any `with dlgpu.device(...)`."""
    _chosen[:] = [device(name)]


def current_device() -> Device:
    """The innermost `with dlgpu.device(...)`; else what `set_device` chose; else `DLGPU_DEVICE`; else the best one."""
    stack = _stack.get()
    if stack:
        return stack[-1]
    if not _chosen:
        wanted = os.environ.get("DLGPU_DEVICE") or ("cuda" if cuda_devices()[0] else "cpu")
        set_device(wanted)
    return _chosen[0]


def device_of(array: Any) -> Device:
    """The device on which an array lives."""
    return Device("cpu") if array_namespace(array) is np else Device("cuda", array.device.id)


def to_host(value: Any) -> Any:
    """A device's array as a NumPy array (a synchronizing copy); anything else as it is."""
    return value.get() if hasattr(value, "__cuda_array_interface__") and hasattr(value, "get") else value
