"""Tensor: an array and its place on the tape."""

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlgpu import autograd
from dlgpu.backend.devices import Device, current_device, device, device_of, native, to_host
from dlgpu.backend.dispatch import is_floating, is_numeric


class Tensor:
    """A plain `numpy.ndarray` or `cupy.ndarray` that operations in `dlgpu.ops` can differentiate through.

    Args:
        value: an array, which is kept as it is and not copied, as is the memory of another library's (by DLPack); a
            Tensor, whose array is shared; or numbers or nested lists of them, of which floats become float32.
        dtype: convert to this dtype.
        device: move to this device; an array stays where it is by default, numbers go to the current device.
        requires_grad: whether gradients with respect to this tensor are wanted.
    Raises:
        TypeError: the values are not numbers or booleans.
    """

    # `mask` is the (batch, time) boolean mask that layers hand on beside their outputs.
    __slots__ = ("__weakref__", "array", "edge", "grad", "mask")
    __array_ufunc__ = None  # numpy_array * tensor is the tensor's operation

    array: Any
    edge: tuple[autograd.Node, int] | None
    grad: "Tensor | None"
    mask: "Tensor | None"

    def __init__(self, value: Any, dtype: Any = None, device: str | Device | None = None, requires_grad: bool = False):
        if isinstance(value, Tensor):
            value = value.array
        self.array = to_array(value, dtype, device)
        self.edge = self.grad = self.mask = None
        if requires_grad:
            self.requires_grad = True

    @property
    def requires_grad(self) -> bool:
        """Whether this tensor is on the tape: wanted by the user, or made from a tensor that is."""
        return self.edge is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if not value:
            self.edge = None
        elif self.edge is None:
            if not is_floating(self.array):
                raise TypeError(f"only floating tensors can require gradients; this one is {self.array.dtype}")
            self.edge = (Leaf(self), 0)

    shape = property(lambda self: self.array.shape)
    dtype = property(lambda self: self.array.dtype)
    ndim = property(lambda self: self.array.ndim)
    size = property(lambda self: self.array.size)
    device = property(lambda self: device_of(self.array), doc="The device on which the array lives.")

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array: the array itself on a CPU, a synchronizing copy from a GPU."""
        return to_host(self.array)

    def item(self) -> Any:
        """The only value, as a Python number; waits for the device."""
        return self.array.item()

    def detach(self) -> "Tensor":
        """The same array, off the tape."""
        return wrap(self.array)

    def to(self, target: str | Device) -> "Tensor":
        """This tensor on another device (itself, if it is there already); gradients flow back through the move."""
        target, origin = device(target), self.device
        if target == origin:
            return self
        return record(target.asarray(self.array), (self,), lambda grad: (grad.to(origin),))

    def backward(self, gradient: "Tensor | None" = None, create_graph: bool = False) -> None:
        """Add the derivative of this tensor with respect to each leaf that requires it to the leaf's `grad`.

        Args:
            gradient: the factor from the left, of this tensor's shape; 1 by default, for a tensor of one element.
            create_graph: record the walk, so that the gradients can be differentiated again.
        Raises:
            ValueError: the tensor is not on the tape, or `gradient` is missing or of another shape.
        """
        seed = self._seed(gradient)
        roots: list[Any] = [self.edge]
        kept = autograd.gradients(roots, [seed], lambda node: isinstance(node, Leaf), create_graph)
        for leaf, (arrived,) in kept.items():
            tensor = leaf.tensor()
            if tensor is not None:
                tensor.grad = arrived if tensor.grad is None else tensor.grad + arrived

    def _seed(self, gradient: "Tensor | None") -> "Tensor":
        if self.edge is None:
            raise ValueError("this tensor does not depend on any tensor that requires gradients")
        if gradient is None:
            if self.size != 1:
                raise ValueError(f"backward() of a tensor of shape {self.shape} needs a gradient of that shape")
            return wrap(device_of(self.array).array_namespace.ones_like(self.array))
        gradient = as_tensor(gradient, self.dtype, self.device).to(self.device)
        if gradient.shape != self.shape:
            raise ValueError(f"expected a gradient of shape {self.shape}, got {gradient.shape}")
        if gradient.dtype != self.dtype and gradient.edge is None:
            return wrap(gradient.array.astype(self.dtype))
        return gradient

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self.array.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()

    @property
    def __cuda_array_interface__(self) -> Any:
        return self.array.__cuda_array_interface__  # an AttributeError on a CPU, as the protocol wants

    def __len__(self) -> int:
        return len(self.array)

    def __iter__(self) -> "Iterator[Tensor]":
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self.array)

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        return self.numpy().__index__()

    def __format__(self, spec: str) -> str:
        return format(self.item() if spec else str(self), spec)  # f"{loss:.4f}"

    def __repr__(self) -> str:
        values = np.array2string(self.numpy(), separator=", ", prefix="Tensor(", threshold=100)
        grad = ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({values}, shape={self.shape}, dtype={self.dtype}, device={str(self.device)!r}{grad})"

    if TYPE_CHECKING:  # `dlgpu.ops` attaches the operators and NumPy's methods

        def _operator(self, other: Any = None) -> "Tensor": ...
        def __getattr__(self, name: str) -> Any: ...

        __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _operator
        __pow__ = __rpow__ = __matmul__ = __rmatmul__ = __neg__ = __abs__ = __getitem__ = _operator
        __lt__ = __le__ = __gt__ = __ge__ = _operator


class Leaf(autograd.Node):
    """The node of a tensor that requires gradients and was not made by an operation."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: Tensor):
        super().__init__((), None)
        self.tensor = weakref.ref(tensor)

    def __reduce__(self) -> tuple:
        return Leaf, (self.tensor(),)


class OutputNode(autograd.Node):
    """A node whose vjp takes, after the gradient, the operation's own output.

    The array is kept here and the tensor made anew: a closure over the output tensor would be a reference cycle, and
    its memory would wait for the garbage collector.
    """

    __slots__ = ("array",)

    array: Any

    def pull(self, gradients: list) -> Sequence:
        output = wrap(self.array, (self, 0))
        if type(self.vjp) is tuple:
            return [vjp(*gradients, output) if edge else None for vjp, edge in zip(self.vjp, self.edges)]
        return self.vjp(*gradients, output)

    def let_go(self) -> None:
        super().let_go()
        self.array = None


def to_array(value: Any, dtype: Any = None, where: str | Device | None = None) -> Any:
    """`value` as a bare array; see Tensor for the rules."""
    value = native(value)
    if where is not None:
        target = device(where)
    elif isinstance(value, np.ndarray) or hasattr(value, "__cuda_array_interface__"):
        target = device_of(value)
    else:
        target = current_device()
        if not hasattr(value, "dtype"):
            value = np.asarray(value)
            dtype = np.float32 if dtype is None and value.dtype.kind == "f" else dtype
    if not hasattr(value, "dtype"):
        value = np.asarray(value)
    if not is_numeric(value):
        raise TypeError(f"expected numbers or booleans, got {type(value).__name__} of dtype {value.dtype}")
    return target.asarray(value, dtype)


def as_tensor(value: Any, dtype: Any = None, device: str | Device | None = None) -> Tensor:
    """A Tensor as it is; anything else as `Tensor(value, dtype, device)`."""
    return value if isinstance(value, Tensor) else Tensor(value, dtype, device)


def beside(value: Any, array: Any) -> Any:
    """`value` (a Tensor, an array or numbers) as a bare array on the device of `array`."""
    value = value.array if isinstance(value, Tensor) else to_array(value)
    return value if type(value) is type(array) else device_of(array).asarray(value)


def wrap(array: Any, edge: tuple[autograd.Node, int] | None = None) -> Tensor:
    """A Tensor around an array (or an array library's scalar), without the checks of its constructor."""
    tensor = Tensor.__new__(Tensor)
    tensor.array = array if type(array) is np.ndarray or not isinstance(array, np.generic) else np.asarray(array)
    tensor.edge = edge
    tensor.grad = tensor.mask = None
    return tensor


def record(
    array: Any, inputs: Sequence[Any], vjp: Callable | tuple[Callable | None, ...], with_output: bool = False
) -> Any:
    """The result of an operation as a Tensor, with its place on the tape.

    Args:
        array: the output array, or a tuple of several.
        inputs: the operation's inputs; those that are not Tensors are constants.
        vjp: from the gradients of the outputs (Tensors; None for one of several that nothing used) to a tuple of the
            inputs' gradients; or a tuple of such functions, one for each input, of which those are let go that no
            gradient will need. Written with `dlgpu.ops`, so that it can be differentiated again.
        with_output: pass the output Tensor to vjp, after the gradient. For operations of one output.
    """
    several = type(array) is tuple
    if autograd.recording():
        edges = tuple([t.edge if isinstance(t, Tensor) else None for t in inputs])
        if any(edges):
            if type(vjp) is tuple and not all(edges):  # what the others hold is not needed
                vjp = tuple([v if edge else None for v, edge in zip(vjp, edges)])
            if with_output:
                node: Any = OutputNode(edges, vjp)
                node.array = array
            else:
                node = autograd.Node(edges, vjp, len(array) if several else 1)
            if several:
                return tuple([wrap(a, (node, i)) for i, a in enumerate(array)])
            return wrap(array, (node, 0))
    return tuple([wrap(a) for a in array]) if several else wrap(array)
