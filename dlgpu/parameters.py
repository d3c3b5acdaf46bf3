"""Parameters, and the flat buffer in which a model's trainable ones live side by side."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from dlgpu.backend.devices import device_of
from dlgpu.backend.reference.update import collect
from dlgpu.tensor import Tensor, beside

ALIGNMENT = 256  # bytes; what vector loads and all-reduce like


class Parameter(Tensor):
    """A Tensor that a layer owns: trained, or kept as state.

    Attributes:
        name: as Keras names it, such as "kernel".
        path: the owner's name and the name, such as "dense_1/kernel".
        trainable: whether it was made to be trained; it requires gradients while its layer is trainable too.
        regularizer: a function of the Tensor whose value is added to the loss, or None.
        autocast: whether layers that compute in another dtype see it in that.
    """

    __slots__ = ("autocast", "name", "path", "regularizer", "trainable")

    def __init__(self, value: Any, name: str, path: str = "", trainable: bool = True, regularizer: Any = None):
        super().__init__(value, requires_grad=trainable)
        self.name = name
        self.path = path or name
        self.trainable = trainable
        self.regularizer = regularizer
        self.autocast = False

    def assign(self, value: Any) -> None:
        """Overwrite the values in place.

        Raises:
            ValueError: `value` is of another shape; nothing is changed then.
        """
        value = self.device.asarray(value.array if isinstance(value, Tensor) else value)
        if value.shape != self.shape:
            raise ValueError(f"{self.path}: expected an array of shape {self.shape}, got {value.shape}")
        self.array[...] = value

    def __repr__(self) -> str:
        return f"<Parameter {self.path} shape={self.shape} dtype={self.dtype} trainable={self.trainable}>"


class FlatParameters:
    """Parameters of one dtype and device in one flat buffer, and their gradients in another.

    Each parameter's array becomes a view into `values`. One optimizer launch, one norm for clipping and one all-reduce
    then serve them all. Each view starts at a multiple of 256 bytes; the gaps stay zero in both buffers.

    Attributes:
        values: (size,), all parameters.
        gradients: (size,), their gradients.
        slices: for each parameter, its place in the buffers.
    """

    def __init__(self, parameters: Sequence[Parameter]):
        self.parameters = list(parameters)
        first = self.parameters[0]
        for p in self.parameters:
            if p.device != first.device:
                raise ValueError(
                    f"{p.path} is on {p.device}, but {first.path} is on {first.device}: move the model first"
                )
        xp, step = device_of(first.array).array_namespace, max(1, ALIGNMENT // first.dtype.itemsize)
        self.slices, size = [], 0
        for p in self.parameters:
            self.slices.append(slice(size, size + p.size))
            size += -(-p.size // step) * step
        self.values = xp.zeros(size, first.dtype)
        self.gradients = xp.zeros(size, first.dtype)
        self.gradient_views = [self.gradients[s].reshape(p.shape) for s, p in zip(self.slices, self.parameters)]
        self.value_views = []
        for s, p in zip(self.slices, self.parameters):
            view = self.values[s].reshape(p.shape)
            view[...] = p.array
            p.array = view
            self.value_views.append(view)

    def __deepcopy__(self, memo: dict) -> "FlatParameters":
        """A copy of a model has buffers of its own, of which its weights are views."""
        made = memo[id(self)] = FlatParameters(copy.deepcopy(self.parameters, memo))
        return made

    def in_place(self) -> bool:
        """Whether every parameter still lives here, and not in another model's buffer or on another device."""
        return all(p.array is view for p, view in zip(self.parameters, self.value_views))

    def set_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """Copy each parameter's gradient to its place; None counts as zero."""
        arrays = [None if g is None else beside(g, view) for g, view in zip(gradients, self.gradient_views)]
        collect(self.gradients, self.gradient_views, arrays)


def flatten(parameters: Sequence[Parameter], held: Sequence[FlatParameters] = ()) -> list[FlatParameters]:
    """Put parameters into flat buffers, one for each dtype; `held`, if all of them and no others live there already."""
    ids = [id(p) for flat in held for p in flat.parameters]
    if sorted(ids) == sorted(map(id, parameters)) and all(flat.in_place() for flat in held):
        return list(held)
    by_dtype: dict[np.dtype, list[Parameter]] = {}
    for p in parameters:
        by_dtype.setdefault(p.dtype, []).append(p)
    return [FlatParameters(group) for group in by_dtype.values()]
