"""What holds the CUDA column to its references: the same values, and whatever a kernel has to bear."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

import dlgpu
from dlgpu.backend.devices import Device, to_host
from dlgpu.backend.dispatch import is_floating, registry
from tests.backend.comparison import arrays_in, compare_with_reference, mapped

GRID = 65535  # blocks along a grid's y and z
HOST = "emulator"  # the device that runs this column on arrays in the host's memory
seen: defaultdict[str, set[str]] = defaultdict(set)  # by kernel: what of the list below has been compared


def attacks(args: object) -> set[str]:
    """What of the list that every kernel has to bear is in these arguments."""
    found = set()
    for x in arrays_in(args):
        rows, columns = (x.size, 1) if x.ndim < 2 else (x.size // max(1, x.shape[-1]), x.shape[-1])
        size = np.abs(x.astype(np.float64)) if is_floating(x) else np.zeros(0)
        cases = {
            "0 rows": not x.size,
            "1 row": x.size and len(np.atleast_1d(x)) == 1,
            f"{x.size if x.ndim < 2 else columns} columns": x.size,
            "more rows than a grid has": rows > GRID,
            "not contiguous": not x.flags.c_contiguous,
            x.dtype.name: True,
            "NaN": np.isnan(size).any(),
            "large values": (size >= 1e4).any(),
            "tiny values": ((size > 0) & (size <= 1e-6)).any(),
        }
        found.update(case for case, there in cases.items() if there)
    return found


def agree(name: str, *args: object, ulps: float = 8, size: int = 1, **options: object) -> None:
    """Assert that a kernel on the device under test gives what its reference gives; see `compare_with_reference`.

    Args:
        name: of the kernel.
        args: its arguments; floating arrays are of the dtype to test.
        ulps: what each error may be, times the square root of ...
        size: the terms summed in each value.
        options: its keyword arguments.
    """
    tried(name, *args)
    compare_with_reference(name, on_device, args, options, ulps * size**0.5)


def tried(name: str, *args: object) -> None:
    """Assert that the column has a kernel and note that it is about to be compared on these arguments."""
    dlgpu.device("emulator")  # registers the column
    assert "cuda" in registry[name].columns, f"{name} has no CUDA implementation"
    seen[name].update(attacks(args))


def device_under_test() -> Device:
    """The GPU where that is the current device (DLGPU_DEVICE=cuda), else the emulator."""
    current = dlgpu.current_device()
    return dlgpu.device("emulator") if current.on_host else current


def on_device(function: Callable, *args: Any, **options: Any) -> Any:
    """Call a function of arrays on the device under test; what it returns and changes comes back to the host."""
    with device_under_test() as device:
        if device.on_host:
            return function(*args, **options)
        moved = mapped(lambda x: _moved(device, x), args)
        found = mapped(to_host, function(*moved, **options))
        mapped(lambda host, there: np.copyto(host, to_host(there)), args, moved)
        return found


def _moved(device: Device, x: np.ndarray) -> Any:
    """The array on a device; what is not contiguous stays so."""
    return device.asarray(x) if x.flags.c_contiguous else device.asarray(np.stack([x, x], -1))[..., 0]
