"""What holds CUDA kernels to their references: the same values, in float64 there and in the emulator here."""

from collections.abc import Callable

import numpy as np

import dlgpu
from dlgpu.backend.dispatch import registry

covered: set[str] = set()


def covers(*kernels: str) -> Callable:
    """Mark a test as the proof of these kernels; a kernel of the CUDA column that no test covers fails another test."""

    def mark(test: Callable) -> Callable:
        covered.update(kernels)
        return test

    return mark


def agree(name: str, *args: object, ulps: float = 8, size: int = 1, **options: object) -> None:
    """Assert that a kernel in the emulator gives what its reference gives in float64 on the same values.

    Arguments that are changed in place are compared like results. Each error may be `ulps` units in the last place of
    the result or of the results' root mean square, times the square root of `size`, the terms summed in each value.

    Args:
        name: of the kernel.
        args: its arguments; floating arrays are of the dtype to test.
        options: its keyword arguments.
    """
    dlgpu.device("emulator")  # registers the column
    kernel = registry[name]
    assert "cuda" in kernel.columns, f"{name} has no CUDA implementation"
    exact, given = _widened(args), _copied(args)
    with np.errstate(all="ignore"):
        wanted = kernel.reference(*exact, **options)
        with dlgpu.device("emulator"):
            found = kernel(*given, **options)
    _compare(name, found, wanted, ulps * size**0.5)
    _compare(f"{name}, arguments", given, exact, ulps * size**0.5)


def _copied(value: object) -> object:
    """A deep copy; what is not contiguous stays so."""
    if isinstance(value, tuple):
        return tuple(map(_copied, value))
    if not isinstance(value, np.ndarray):
        return value
    made = np.empty_like(value) if value.flags.c_contiguous else np.empty((*value.shape, 2), value.dtype)[..., 0]
    made[...] = value
    return made


def _widened(value: object) -> object:
    if isinstance(value, tuple):
        return tuple(map(_widened, value))
    if isinstance(value, np.ndarray):
        return value.astype(np.float64) if value.dtype.kind == "f" else value.copy()
    return value


def _compare(name: str, found: object, wanted: object, ulps: float) -> None:
    if isinstance(wanted, (tuple, list)):
        assert len(found) == len(wanted), name
        for i, (f, w) in enumerate(zip(found, wanted)):
            _compare(f"{name}[{i}]", f, w, ulps)
    elif isinstance(wanted, np.ndarray):
        assert found.shape == wanted.shape, name
        if found.dtype.kind != "f":
            np.testing.assert_array_equal(found, wanted, err_msg=name)
            return
        limits = np.finfo(found.dtype)
        # what is too large for the dtype is infinite in it
        wanted = np.where(np.abs(wanted) > float(limits.max), np.copysign(np.inf, wanted), wanted)
        finite = np.isfinite(wanted)
        np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted), err_msg=f"{name}: NaN")
        infinite = np.isinf(wanted)
        np.testing.assert_array_equal(found[infinite], wanted[infinite], err_msg=f"{name}: infinities")
        typical = np.sqrt(np.mean(np.square(wanted[finite]))) if finite.any() else 0.0
        allowed = ulps * float(limits.eps) * (np.abs(wanted[finite]) + typical) + float(limits.tiny)
        error = np.abs(found[finite].astype(np.float64) - wanted[finite])
        worst = int(np.argmax(error - allowed)) if error.size else 0
        assert not error.size or error[worst] <= allowed[worst], (
            f"{name}: {found[finite][worst]!r} for {wanted[finite][worst]!r}, allowed error {allowed[worst]:.3g}"
        )
    elif wanted is None or not isinstance(wanted, float):
        assert found is wanted or found == wanted, name
