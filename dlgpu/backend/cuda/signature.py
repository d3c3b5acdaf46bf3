"""What a kernel's own source says of its arguments, so that a launch can check and convert them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

C_TYPES = {
    "bool": "bool",
    "char": "int8",
    "signed char": "int8",
    "unsigned char": "uint8",
    "short": "int16",
    "unsigned short": "uint16",
    "int": "int32",
    "unsigned": "uint32",
    "unsigned int": "uint32",
    "long": "int64",
    "unsigned long": "uint64",
    "long long": "int64",
    "unsigned long long": "uint64",
    "size_t": "uint64",
    **{f"{u}int{bits}_t": f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64)},
    "float": "float32",
    "double": "float64",
    "half": "float16",
    "__half": "float16",
    "__nv_bfloat16": "bfloat16",
    "nv_bfloat16": "bfloat16",
}

_BOUNDS = r"(?:__launch_bounds__\s*\([^)]*\)\s*)?"
_KERNEL = re.compile(rf'extern\s+"C"\s+__global__\s+{_BOUNDS}void\s+{_BOUNDS}(\w+)\s*\(([^)]*)\)', re.DOTALL)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel: `const float* x` is ("float", "x", pointer, const)."""

    type: str
    name: str
    pointer: bool
    const: bool


@cache
def kernels_in(source: str) -> dict[str, tuple[Parameter, ...]]:
    """The kernels that a source defines with `extern "C" __global__ void`, and their parameters."""
    found = {}
    for match in _KERNEL.finditer(without_comments(source)):
        declarations = [d.strip() for d in match[2].split(",")]
        found[match[1]] = tuple(_parameter(d) for d in declarations if d and d != "void")
    return found


def without_comments(source: str) -> str:
    """The source with its comments blanked out, line by line where it was."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m[0]), source, flags=re.DOTALL)


def _parameter(declaration: str) -> Parameter:
    declaration = re.sub(r"(\w+)\s*\[\w*\]", r"* \1", declaration.partition("=")[0])  # `float x[]` is a pointer too
    *kinds, name = re.sub(r"\b(?:__restrict__|volatile)\b", " ", declaration).replace("*", " * ").split()
    pointer = "*" in kinds
    target = kinds[: kinds.index("*")] if pointer else kinds  # a const after the star is the pointer's own
    return Parameter(" ".join(w for w in target if w != "const"), name, pointer, "const" in target)


def converted(kernel: str, parameters: Sequence[Parameter], args: Sequence[Any], dtype: Any) -> list[Any]:
    """Each argument as the kernel wants it: an array, None for a null pointer, or a NumPy scalar of the right type.

    Args:
        kernel: its name, for errors.
        parameters: of the kernel.
        args: arrays and numbers.
        dtype: what the type `T` stands for, or None.
    Raises:
        TypeError: too many or too few arguments, or one of another kind or dtype; the message names the parameter.
        ValueError: an array is not contiguous, or a number does not fit its type.
    """
    if len(args) != len(parameters):
        wanted = ", ".join(f"{p.type}{'*' * p.pointer} {p.name}" for p in parameters)
        raise TypeError(f"{kernel}: expected {len(parameters)} arguments ({wanted}), got {len(args)}")
    return [_converted(kernel, p, a, dtype) for p, a in zip(parameters, args)]


def _converted(kernel: str, parameter: Parameter, value: Any, dtype: Any) -> Any:
    where = f"{kernel}: argument {parameter.name!r}"
    wanted = C_TYPES.get(parameter.type)
    if dtype is not None and parameter.type in ("T", "A"):  # as common.cuh has it, A is what T is computed in
        wanted = np.dtype(dtype).name if parameter.type == "T" or dtype == "float64" else "float32"
    if parameter.pointer:
        if value is None:
            return None
        if not hasattr(value, "dtype") or not hasattr(value, "flags") or isinstance(value, np.generic):
            raise TypeError(f"{where}: expected an array of {wanted or parameter.type}, got {type(value).__name__}")
        if wanted is not None and (value.dtype.name != wanted or not value.dtype.isnative):
            got = value.dtype.name if value.dtype.isnative else f"{value.dtype.name} of another byte order"
            raise TypeError(f"{where}: expected an array of {wanted}, got {got}")
        if not value.flags.c_contiguous:
            raise ValueError(f"{where}: expected a contiguous array, got strides {value.strides} for {value.shape}")
        if not parameter.const and isinstance(value, np.ndarray) and not value.flags.writeable:
            raise ValueError(f"{where}: the kernel may write to it, but the array is read-only")
        return value
    if wanted is None or wanted in ("float16", "bfloat16"):
        raise TypeError(
            f"{where}: numbers of type {parameter.type} cannot be passed; use float, double or an integer type"
        )
    if np.ndim(value) or not hasattr(value, "__float__"):
        raise TypeError(f"{where}: expected a number of type {parameter.type}, got {type(value).__name__}")
    scalar = np.dtype(wanted)
    if scalar.kind in "iu":
        info = np.iinfo(scalar)
        if not info.min <= value <= info.max or int(value) != value:  # NaN is in no range
            raise ValueError(f"{where}: {value!r} is not a number of type {parameter.type}")
    return scalar.type(value)
