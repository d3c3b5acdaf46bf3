"""Checks of data that a user gives: each error names the argument, what was expected and what came."""

from typing import Any

import numpy as np

from dlgpu.backend.devices import where_it_is
from dlgpu.backend.dispatch import array_namespace, is_numeric
from dlgpu.data.structure import named_leaves
from dlgpu.tensor import Tensor

ROWS_AT_ONCE = 1 << 22  # values scanned at a time, so that a large array needs little extra memory


def as_array(value: Any, name: str) -> Any:
    """`value` as an array of numbers with a batch dimension; a device's array stays there.

    Raises:
        TypeError: the values are not numbers (objects, strings, dates).
        ValueError: rows of different lengths, or a single number.
    """
    if isinstance(value, Tensor):
        value = value.array
    try:
        value = where_it_is(value)
    except ValueError as error:
        raise ValueError(f"{name}: expected rows of one shape, got rows of different lengths ({error})") from None
    if not is_numeric(value):
        raise TypeError(
            f"{name}: expected numbers, got an array of dtype {value.dtype} and shape {value.shape}; "
            "encode text and categories as numbers, and make rows of one length"
        )
    if value.ndim == 0:
        raise ValueError(f"{name}: expected an array of shape (batch, ...), got a single number")
    return value


def check_lengths(**structures: Any) -> int:
    """The number of samples, which must be the same in all arrays and not 0."""
    named = [leaf for name, value in structures.items() for leaf in named_leaves(value, name)]
    first_name, first = named[0][0], len(named[0][1])
    for name, array in named:
        if len(array) != first:
            raise ValueError(
                f"{first_name} has {first} samples, but {name} has {len(array)}: expected one for each sample"
            )
    if first == 0:
        raise ValueError(f"{first_name} is empty: expected at least one sample")
    return first


def require_integers(least: int, **arguments: Any) -> None:
    """A ValueError names the argument that is neither None nor an integer of at least `least`."""
    for name, value in arguments.items():
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if value is not None and not (whole and value >= least):
            expected = "a positive integer" if least == 1 else f"an integer of at least {least}"
            raise ValueError(f"{name}: expected {expected}, got {value!r}")


def check_finite(array: Any, name: str, dtype: Any = np.float64) -> None:
    """One scan for NaN, infinity and what is too large for `dtype`; the error names the first row that holds one."""
    if array.dtype.kind != "f":
        return
    xp, rows = array_namespace(array), max(1, ROWS_AT_ONCE // max(1, array[:1].size))
    largest = np.finfo(dtype if np.dtype(dtype).kind == "f" else np.float32).max  # of bfloat16 NumPy knows nothing
    narrowed = np.finfo(array.dtype).max > largest
    for start in range(0, len(array), rows):
        part = array[start : start + rows]
        fits = abs(part) <= largest if narrowed else xp.isfinite(part)
        if not fits.all():
            row = int(xp.argmin(fits.reshape(len(fits), -1).all(axis=1)))
            value = float(part[row][~fits[row]].reshape(-1)[0])
            what = "NaN" if np.isnan(value) else "infinity" if np.isinf(value) else f"{value:g}"
            expected = (
                f"numbers that {np.dtype(dtype)} can hold: scale them" if np.isfinite(value) else "finite numbers"
            )
            raise ValueError(f"{name}: row {start + row} holds {what}; expected {expected} (rows count from 0)")
