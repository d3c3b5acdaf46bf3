"""Comparison of a kernel on a device with its reference in float64 on the same values."""

from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np

import dlgpu
from dlgpu.backend.dispatch import is_floating, registry

FLOATS = ["float32", "float64", "float16", "bfloat16"]


def compare_with_reference(name: str, on_device: Callable, args: tuple, options: dict, ulps: float) -> None:
    """Assert that on_device(kernel, *args, **options) gives what the kernel's reference gives in float64.

    Values of 16 bits are widened before the reference sees them. Arguments that are changed in place are compared like
    results. Each error may be `ulps` units in the last place of the result or of the results' root mean square; and
    where the equation itself amplifies rounding, four times the error of the reference in the kernel's own precision.
    """
    kernel = registry[name]
    exact, given, rounded = converted(args, np.float64), copied(args), converted(copied(args), np.float32)
    with np.errstate(all="ignore"):
        with dlgpu.device("cpu"):  # references call other kernels
            wanted, plain = kernel.reference(*exact, **options), kernel.reference(*rounded, **options)
        found = on_device(kernel, *given, **options)
    compare(name, found, wanted, plain, ulps)
    compare(f"{name}, arguments", given, exact, rounded, ulps)


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


def converted(value: object, to: type) -> object:
    """The same values in at least the precision `to`."""
    if isinstance(value, tuple):
        return tuple(converted(v, to) for v in value)
    if isinstance(value, np.ndarray):
        return value.astype(np.promote_types(value.dtype, to)) if is_floating(value) else value.copy()
    return value


def copied(value: object) -> object:
    """A deep copy; what is not contiguous stays so."""
    if isinstance(value, tuple):
        return tuple(map(copied, value))
    if not isinstance(value, np.ndarray):
        return value
    made = np.empty_like(value) if value.flags.c_contiguous else np.empty((*value.shape, 2), value.dtype)[..., 0]
    made[...] = value
    return made


def mapped(function: Callable, value: Any, *others: Any) -> Any:
    """The value with a function applied to each array in it, beside those of others of the same structure."""
    if isinstance(value, (tuple, list)):
        return type(value)(mapped(function, *each) for each in zip(value, *others))
    return function(value, *others) if hasattr(value, "flags") and not isinstance(value, np.generic) else value


def leaves(value: object) -> Iterator:
    """All values in nested tuples and lists."""
    for v in value if isinstance(value, (tuple, list)) else ():
        yield from leaves(v)
    if not isinstance(value, (tuple, list)):
        yield value


def arrays_in(value: object) -> list[np.ndarray]:
    """All arrays in nested tuples and lists."""
    return [v for v in leaves(value) if isinstance(v, np.ndarray)]
