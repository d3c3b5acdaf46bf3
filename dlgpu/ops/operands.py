"""What all operations do with their operands: dtypes and devices that go together, and gradients of what is broadcast.

Dtypes: Python numbers take the tensor's dtype; an integer tensor meeting a floating one takes its dtype, and becomes
float32 where the function or a Python float makes it floating.
"""

from typing import Any

import numpy as np

from dlgpu.backend.dispatch import array_namespace, is_floating
from dlgpu.backend.narrow import is_narrow
from dlgpu.errors import DeviceError
from dlgpu.tensor import Tensor, as_tensor, record, wrap


def floating(x: Any) -> Tensor:
    """`x` as a floating Tensor; integers and booleans become float32."""
    x = as_tensor(x)
    return x if is_floating(x) else wrap(x.array.astype(np.float32))


def operands(a: Any, b: Any) -> tuple[Any, Any]:
    """Both as Tensors of dtypes that go together, on one device; a Python number stays a number beside a Tensor."""
    a_number, b_number = isinstance(a, (int, float)), isinstance(b, (int, float))
    if a_number and b_number:
        return Tensor(a), b
    if b_number:
        a = as_tensor(a)
        return (floating(a), float(b)) if isinstance(b, float) else (a, b)
    if a_number:
        b = as_tensor(b)
        return (float(a), floating(b)) if isinstance(a, float) else (a, b)
    a, b = together(a, b)
    if a.dtype != b.dtype and is_floating(a) != is_floating(b):
        return (a, astype(b, a.dtype)) if is_floating(a) else (astype(a, b.dtype), b)
    return a, b


def together(*values: Any) -> list[Tensor]:
    """All as Tensors on one device: single numbers, and what is no Tensor, go where the first Tensor is.

    Raises:
        DeviceError: there are Tensors of different devices.
    """
    tensors = [as_tensor(v) for v in values]
    if all(type(t.array) is type(tensors[0].array) for t in tensors):
        return tensors
    fixed = [v for v in values if isinstance(v, Tensor) and v.ndim]
    device = (fixed or tensors)[0].device
    for tensor in fixed:
        if tensor.device != device:
            raise DeviceError(f"one operand is on {device}, another on {tensor.device}: move one of them with .to()")
    return [t.to(device) for t in tensors]


def raw(x: Any) -> Any:
    """The array of a Tensor; anything else, such as a number or None, as it is."""
    return x.array if isinstance(x, Tensor) else x


def combined(function: Any, a: Any, b: Any) -> Any:
    """The array function(a, b) of two operands; beside a number a Tensor keeps its dtype, which NumPy may widen."""
    array = function(raw(a), raw(b))
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return array
    tensor = a if isinstance(a, Tensor) else b
    return array.astype(tensor.dtype) if array.dtype != tensor.dtype and is_narrow(tensor) else array


def total(array: Any, axes: Any, keepdims: bool = False) -> Any:
    """array.sum(axes); 16-bit numbers are summed up in float32."""
    if not is_narrow(array):
        return array.sum(axis=axes, keepdims=keepdims)
    return array.sum(axis=axes, dtype=np.float32, keepdims=keepdims).astype(array.dtype)


Like = tuple[tuple, Any]


def like(operand: Any) -> Like | None:
    """Shape and dtype of a Tensor, for `fit`, which then needs none of its values to be kept; None for a number."""
    return (operand.array.shape, operand.array.dtype) if isinstance(operand, Tensor) else None


def fit(gradient: Tensor, like: Like | None) -> Tensor | None:
    """Sum a gradient over the axes along which an operand was broadcast, and give it the operand's dtype."""
    if like is None:
        return None
    shape, dtype = like
    if gradient.shape != shape:
        gradient = sum_to(gradient, shape)
    return gradient if gradient.dtype == dtype else astype(gradient, dtype)


def sum_to(x: Tensor, shape: tuple) -> Tensor:
    """Sum `x` down to `shape`, which broadcasts to x.shape."""
    origin = x.shape
    lead = x.ndim - len(shape)
    axes = tuple(range(lead)) + tuple(lead + i for i, n in enumerate(shape) if n == 1 and origin[lead + i] != 1)
    array = total(x.array, axes, keepdims=True).reshape(shape)
    return record(array, (x,), lambda grad: (spread(grad, origin, lead),))


def spread(x: Tensor, shape: tuple, lead: int) -> Tensor:
    """Broadcast `x` to `shape` after `lead` new axes: the transpose of `sum_to`."""
    origin = x.shape
    array = array_namespace(x.array).broadcast_to(x.array.reshape((1,) * lead + origin), shape)
    return record(array, (x,), lambda grad: (sum_to(grad, origin),))


def astype(x: Tensor, dtype: Any) -> Tensor:
    """`x` converted to a dtype; the gradient is converted back. Conversions to integers are constants."""
    if x.dtype == np.dtype(dtype):
        return x
    array, origin = x.array.astype(dtype), x.dtype
    return record(array, (x,), lambda grad: (astype(grad, origin),)) if is_floating(array) else wrap(array)
