"""What holds CUDA kernels to their references: the same values, in float64 there and on the device under test here."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np

import dlgpu
from dlgpu.backend.devices import Device, to_host
from dlgpu.backend.dispatch import is_floating, registry

FLOATS = ["float32", "float64", "float16", "bfloat16"]
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


def arrays_in(value: object) -> Iterator[np.ndarray]:
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, (tuple, list)):
        for v in value:
            yield from arrays_in(v)


def agree(name: str, *args: object, ulps: float = 8, size: int = 1, **options: object) -> None:
    """Assert that a kernel on the device under test gives what its reference gives in float64 on the same values.

    Values of 16 bits are widened before the reference sees them. Arguments that are changed in place are compared like
    results. Each error may be `ulps` units in the last place of the result or of the results' root mean square, times
    the square root of `size`, the terms summed in each value; and where the equation itself amplifies rounding, four
    times the error of the reference in the kernel's own precision.

    Args:
        name: of the kernel.
        args: its arguments; floating arrays are of the dtype to test.
        options: its keyword arguments.
    """
    tried(name, *args)
    kernel = registry[name]
    exact, given, rounded = converted(args, np.float64), _copied(args), converted(_copied(args), np.float32)
    with np.errstate(all="ignore"):
        with dlgpu.device("cpu"):  # references call other kernels
            wanted = kernel.reference(*exact, **options)
            plain = kernel.reference(*rounded, **options)
        found = on_device(kernel, *given, **options)
        compare(name, found, wanted, plain, ulps * size**0.5)
        compare(f"{name}, arguments", given, exact, rounded, ulps * size**0.5)


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
        moved = _mapped(lambda x: _moved(device, x), args)
        found = _mapped(to_host, function(*moved, **options))
        _mapped(lambda host, there: np.copyto(host, to_host(there)), args, moved)
        return found


def _moved(device: Device, x: np.ndarray) -> Any:
    """The array on a device; what is not contiguous stays so."""
    return device.asarray(x) if x.flags.c_contiguous else device.asarray(np.stack([x, x], -1))[..., 0]


def _mapped(function: Callable, value: Any, *others: Any) -> Any:
    """The value with a function applied to each array in it, beside those of others of the same structure."""
    if isinstance(value, (tuple, list)):
        return type(value)(_mapped(function, *each) for each in zip(value, *others))
    return function(value, *others) if hasattr(value, "flags") and not isinstance(value, np.generic) else value


def _copied(value: object) -> object:
    """A deep copy; what is not contiguous stays so."""
    if isinstance(value, tuple):
        return tuple(map(_copied, value))
    if not isinstance(value, np.ndarray):
        return value
    made = np.empty_like(value) if value.flags.c_contiguous else np.empty((*value.shape, 2), value.dtype)[..., 0]
    made[...] = value
    return made


def converted(value: object, to: type) -> object:
    """The same values in at least the precision `to`."""
    if isinstance(value, tuple):
        return tuple(converted(v, to) for v in value)
    if isinstance(value, np.ndarray):
        return value.astype(np.promote_types(value.dtype, to)) if is_floating(value) else value.copy()
    return value


def compare(name: str, found: object, wanted: object, plain: object, ulps: float) -> None:
    if isinstance(wanted, (tuple, list)):
        assert len(found) == len(wanted), name
        for i, (f, w, p) in enumerate(zip(found, wanted, plain)):
            compare(f"{name}[{i}]", f, w, p, ulps)
    elif isinstance(wanted, (np.ndarray, float)):
        found, wanted, plain = np.asarray(found), np.asarray(wanted), np.asarray(plain, np.float64)
        assert found.shape == wanted.shape, name
        if not is_floating(found):
            np.testing.assert_array_equal(found, wanted, err_msg=name)
            return
        limits, found = ml_dtypes.finfo(found.dtype), found.astype(np.float64)
        # what is too large for the dtype is infinite in it
        wanted = np.where(np.abs(wanted) > float(limits.max), np.copysign(np.inf, wanted), wanted)
        finite = np.isfinite(wanted)
        np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted), err_msg=f"{name}: NaN")
        infinite = np.isinf(wanted)
        np.testing.assert_array_equal(found[infinite], wanted[infinite], err_msg=f"{name}: infinities")
        found, wanted, plain = found[finite], wanted[finite], plain[finite]
        largest = np.abs(wanted).max(initial=0)
        typical = np.sqrt(np.mean(np.square(wanted / largest))) * largest if largest else 0.0
        allowed = ulps * float(limits.eps) * (np.abs(wanted) + typical) + float(limits.tiny)
        allowed += 4 * np.where(np.isfinite(plain), np.abs(plain - wanted), 0)
        error = np.abs(found - wanted)
        worst = int(np.argmax(error - allowed)) if error.size else 0
        assert not error.size or error[worst] <= allowed[worst], (
            f"{name}: {found[worst]!r} for {wanted[worst]!r}, allowed error {allowed[worst]:.3g}"
        )
    else:
        assert found is wanted or found == wanted, name
