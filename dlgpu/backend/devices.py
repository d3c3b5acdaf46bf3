"""Devices: "cpu", "cuda" and "cuda:1" (alias "gpu"), and "emulator", on which arrays live and kernels run."""

import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from dlgpu.backend.traced import Traced
from dlgpu.errors import DeviceError, unknown_name

KDL_CUDA, KDL_CUDA_MANAGED = 2, 13  # DLPack's numbers of memory that a GPU computes on
INSTALL_CUPY = "pip install 'dlgpu[cuda12]' or 'dlgpu[cuda13]', to match the version that nvidia-smi prints"


@dataclass(frozen=True)
class Device:
    """A place for arrays; as a context manager, the current device inside the `with`.

    On "emulator" arrays are NumPy's, and the CUDA kernels work on them while it is the current device.
    """

    kind: str
    index: int = 0

    @property
    def on_host(self) -> bool:
        """Whether the arrays are NumPy's."""
        return self.kind != "cuda"

    @property
    def array_namespace(self) -> ModuleType:
        """The array library of this device: `numpy` or `cupy`."""
        return np if self.on_host else importlib.import_module("cupy")

    def load(self) -> None:
        """Register the kernels of this device. On a CPU they need Numba (DLGPU_NUMBA=0 leaves it out); until they are
        registered, and without it, their references run."""
        if self.kind != "cpu":
            importlib.import_module("dlgpu.backend.cuda.column")
        elif os.environ.get("DLGPU_NUMBA") != "0" and importlib.util.find_spec("numba") is not None:
            importlib.import_module("dlgpu.backend.cpu.column")

    def asarray(self, value: Any, dtype: Any = None) -> Any:
        """`value` as an array on this device; no copy when it is one already.

        Args:
            value: an array of any device and library, or whatever `numpy.asarray` takes.
            dtype: the dtype to convert to; the value's own by default.
        """
        value = native(value)
        if self.on_host:
            if type(value) is Traced:  # must stay one
                return value if dtype is None or value.dtype == dtype else value.astype(dtype)
            made = np.asarray(to_host(value), dtype)
            return made if made.dtype.isnative else made.astype(made.dtype.newbyteorder("="))
        with self.array_namespace.cuda.Device(self.index):
            return self.array_namespace.asarray(value, dtype)

    def empty(self, shape: Any, dtype: Any) -> Any:
        """A new array on this device, of undefined values."""
        if self.on_host:
            return np.empty(shape, dtype)
        with self.array_namespace.cuda.Device(self.index):
            return self.array_namespace.empty(shape, dtype)

    def sender(self) -> Callable[[Sequence, Sequence], list]:
        """A function that moves batches here, for a run of many: of a list of arrays and one of dtypes (or None).

        On a GPU the copies run beside the computation; a batch's arrays last until the batch after the next.
        """
        if self.on_host:
            return lambda arrays, dtypes: [self.asarray(a, d) for a, d in zip(arrays, dtypes)]
        return importlib.import_module("dlgpu.backend.cuda.staging").Staging(self.index)

    def repeater(self) -> Any:
        """What makes steps on this device repeatable: on a host recordings of what they do, on a GPU graphs."""
        if self.on_host:
            return importlib.import_module("dlgpu.backend.repeater").Repeater()
        return importlib.import_module("dlgpu.backend.cuda.graph").Repeater(self.index)

    def __enter__(self) -> "Device":
        _stack.set((*_stack.get(), self))
        return self

    def __exit__(self, *exception: object) -> None:
        _stack.set(_stack.get()[:-1])

    def __str__(self) -> str:
        return f"{self.kind}:{self.index}" if self.index else self.kind


CPU, EMULATOR = Device("cpu"), Device("emulator")

_stack: ContextVar[tuple[Device, ...]] = ContextVar("dlgpu_devices", default=())
_chosen: list[Device] = []


def device(name: str | Device) -> Device:
    """The device of that name: "cpu", "cuda", "cuda:1" or "emulator"; "gpu" means "cuda".

    Raises:
        DeviceError: the name is unknown, or the device is not there; the message says what to install.
    """
    if isinstance(name, Device):
        return name
    kind, _, index = str(name).lower().partition(":")
    kind = {"gpu": "cuda"}.get(kind, kind)
    if kind not in ("cpu", "cuda", "emulator") or not (index or "0").isdecimal():
        raise DeviceError(unknown_name("device", name, ["cpu", "cuda", "cuda:1", "gpu", "emulator"]))
    found = Device(kind, int(index or 0))
    problem = unavailable(found)
    if problem:
        raise DeviceError(f"Device {str(name)!r} is not available: {problem}")
    if kind != "cpu":
        found.load()
    return found


def unavailable(wanted: Device) -> str | None:
    """Why a device cannot be used here and what to do about it, or None if it can be."""
    if wanted.on_host and wanted.index:
        return f"there is one such device, {wanted.kind!r}."
    if wanted.kind == "cpu":
        return None
    if wanted.kind == "emulator":
        return importlib.import_module("dlgpu.backend.emulator.compiler").problem()
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


def array_namespace(array: Any) -> ModuleType:
    """The library that an array belongs to: the module `numpy` or `cupy`.

    Raises:
        TypeError: it is neither's.
    """
    if isinstance(array, (np.ndarray, np.generic)):
        return np
    if not _is_cupys(array):
        raise TypeError(f"expected an array of NumPy or CuPy, got {type(array).__module__}.{type(array).__qualname__}")
    return sys.modules["cupy"]


def _is_cupys(array: Any) -> bool:
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(array, cupy.ndarray)


def native(value: Any) -> Any:
    """Another library's array, such as PyTorch's, as NumPy's or CuPy's in the same memory; anything else as it is.

    Raises:
        BufferError, RuntimeError: the other library does not hand it over, as PyTorch where it requires gradients.
    """
    if isinstance(value, (np.ndarray, np.generic)) or _is_cupys(value):
        return value
    if hasattr(value, "__dlpack_device__"):
        kind, index = value.__dlpack_device__()
        if kind in (KDL_CUDA, KDL_CUDA_MANAGED):
            return device(f"cuda:{int(index)}").array_namespace.from_dlpack(value)
        return np.asarray(value) if hasattr(value, "__array__") else np.from_dlpack(value)
    return device("cuda").array_namespace.asarray(value) if hasattr(value, "__cuda_array_interface__") else value


def where_it_is(value: Any) -> Any:
    """`value` as an array that stays where it is: on a GPU, or else NumPy's.

    Raises:
        ValueError: rows of different lengths.
        BufferError, RuntimeError: as by `native`.
    """
    value = native(value)
    return value if _is_cupys(value) else np.asarray(value)


def device_of(array: Any) -> Device:
    """The device on which an array lives; a NumPy array is the emulator's while that is the current device."""
    if array_namespace(array) is np:
        return EMULATOR if current_device() == EMULATOR else CPU
    return Device("cuda", array.device.id)


def to_host(value: Any) -> Any:
    """A device's array as a NumPy array (a synchronizing copy); anything else as it is."""
    return value.get() if _is_cupys(value) else value
