"""Dispatch: a kernel is a reference implementation and, per device, a faster one of the same signature.

Decorating the reference with `@kernel` makes the kernel; a column registers its own under it with
`@reference.name.on("cuda")`. A call goes by where its first array lives; a device without an implementation of its
own runs the reference on its arrays. A host array goes to the "cuda" column while the emulator is the current device.

16-bit floating numbers are the CUDA column's own business; for everything else they are widened (see `narrow`).
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from dlgpu.backend.devices import EMULATOR, array_namespace, current_device
from dlgpu.backend.narrow import in_float32, is_narrow
from dlgpu.backend.recorder import active
from dlgpu.backend.traced import kernel_results
from dlgpu.errors import DeviceError

registry: dict[str, "Kernel"] = {}


class Kernel:
    """A function of arrays with one implementation per kind of device, beginning with the reference."""

    __name__: str

    def __init__(self, reference: Callable, narrow: str = "widened", composed: bool = False):
        self.reference = reference
        self.narrow = narrow
        self.composed = composed
        self.columns: dict[str, Callable] = {}
        functools.update_wrapper(self, reference)

    def on(self, kind: str) -> Callable[[Callable], Callable]:
        """Register the decorated function as this kernel's implementation on devices of `kind`."""

        def register(implementation: Callable) -> Callable:
            self.columns[kind] = implementation
            return implementation

        return register

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        implementation = self.reference
        if self.columns:
            if not isinstance(args[0], np.ndarray) and any(isinstance(a, np.ndarray) for a in args):
                raise DeviceError(f"{self.__name__}: the first array is on a GPU, another is not: move one of them")
            implementation = self.columns.get(column_of(args[0]), self.reference)
        if self.composed and implementation is self.reference:
            return implementation(*args, **kwargs)
        if getattr(args[0], "itemsize", 0) == 2 and self._widens(args[0], implementation):
            # the kernel itself, so that a recording notes the copies and what a column does in between
            return in_float32(self, args[0].dtype, self.narrow == "first result")(*args, **kwargs)
        recording = active()
        if recording is None:
            return implementation(*args, **kwargs)
        return kernel_results(recording, implementation, implementation is self.columns.get("cpu"), args, kwargs)

    def _widens(self, array: Any, implementation: Callable) -> bool:
        if not is_narrow(array) or implementation is self.columns.get("cuda"):
            return False
        if self.narrow == "kept on a GPU":
            return isinstance(array, np.ndarray)
        return self.narrow != "kept"

    def __repr__(self) -> str:
        return f"<kernel {self.__name__} on {', '.join(['reference', *sorted(self.columns)])}>"


def kernel(reference: Callable | None = None, narrow: str = "widened", composed: bool = False) -> Any:
    """Make the decorated reference implementation a kernel and list it in the registry.

    Args:
        reference: arrays in, arrays out.
        narrow: what becomes of 16-bit floating arrays outside of the CUDA column. "widened": see `in_float32`; "first
            result": likewise, and in all columns only the first result is of 16 bits, the others are float32; "kept":
            the reference takes them, for its bits; "kept on a GPU": only there, where such products are fast and
            summed up in float32.
        composed: the reference only calls other kernels, each of which goes its own way.
    """
    if reference is None:
        return functools.partial(kernel, narrow=narrow, composed=composed)
    made = Kernel(reference, narrow, composed)
    if made.__name__ in registry:
        raise ValueError(f"two kernels are named {made.__name__!r}")
    registry[made.__name__] = made
    return made


def column_of(array: Any) -> str:
    """The column that an array is computed by: "cuda" for CuPy's and, on the emulator, for NumPy's; else "cpu"."""
    if array_namespace(array) is np:
        return "cuda" if current_device() == EMULATOR else "cpu"
    return "cuda"


def is_floating(array: Any) -> bool:
    """Whether the dtype of an array or a Tensor is a floating one (bfloat16 included)."""
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def is_numeric(array: Any) -> bool:
    """Whether the dtype of an array or a Tensor is floating, an integer or boolean."""
    return array.dtype.kind in "fiub" or array.dtype.name == "bfloat16"
