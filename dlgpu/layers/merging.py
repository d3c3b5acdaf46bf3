"""Layers that make one tensor of several: called on a list of inputs."""

import functools
import math
from typing import Any

from dlgpu import ops
from dlgpu.backend.dispatch import array_namespace
from dlgpu.layers.base import Layer
from dlgpu.tensor import Tensor, wrap


class Merge(Layer, abstract=True):
    """The base of elementwise merging.

    Inputs broadcast; those with fewer dimensions get axes of length 1 after the batch. A step is masked out of the
    output where all inputs mask it out.
    """

    supports_masking = True

    def build(self, input_shape: Any) -> None:
        self.compute_output_shape(input_shape)

    def call(self, inputs: list) -> Tensor:
        self.compute_output_shape(shapes_of(inputs))  # for its errors
        return self.merge(self.aligned(inputs))

    def merge(self, inputs: list) -> Tensor:
        """One tensor from several of as many dimensions."""
        raise NotImplementedError(f"{type(self).__name__} does not define merge()")

    def aligned(self, inputs: list) -> list:
        """The inputs, each with as many dimensions as the one with most."""
        most = max(x.ndim for x in inputs)
        return [ops.reshape(x, (x.shape[0], *(1,) * (most - x.ndim), *x.shape[1:])) for x in inputs]

    def shapes(self, input_shape: Any) -> list:
        """The inputs' shapes, once they are found to be a list with batches of one size."""
        if not isinstance(input_shape, list) or not input_shape:
            self.fail(f"expected a list of inputs, got one of shape {input_shape}")
        if len({s[0] for s in input_shape if s[0] is not None}) > 1:
            self.fail(f"expected batches of one size, got shapes {input_shape}")
        return input_shape

    def compute_output_shape(self, input_shape: Any) -> tuple:
        shapes = self.shapes(input_shape)
        most = max(map(len, shapes))
        columns = zip(*((1,) * (most - len(s)) + tuple(s[1:]) for s in shapes))
        lengths = [self.broadcast({n for n in column if n != 1}, shapes) for column in columns]
        batch = next((s[0] for s in shapes if s[0] is not None), None)
        return (batch, *lengths)

    def broadcast(self, lengths: set, shapes: list) -> Any:
        """The length of an output axis from the inputs' lengths that are not 1."""
        if len(lengths - {None}) > 1:
            self.fail(f"expected inputs that broadcast, got shapes {shapes}")
        return 1 if not lengths else None if None in lengths else lengths.pop()

    def compute_mask(self, inputs: Any, mask: Any) -> Any:
        if not self.supports_masking or mask is None or any(m is None for m in mask):
            return None
        return functools.reduce(either, mask)


class Add(Merge):
    """The sum of the inputs."""

    def merge(self, inputs: list) -> Tensor:
        return functools.reduce(ops.add, inputs)


class Multiply(Merge):
    """The product of the inputs."""

    def merge(self, inputs: list) -> Tensor:
        return functools.reduce(ops.multiply, inputs)


class Average(Merge):
    """The mean of the inputs."""

    def merge(self, inputs: list) -> Tensor:
        return functools.reduce(ops.add, inputs) / len(inputs)


class Subtract(Merge):
    """The first of two inputs without the second."""

    def shapes(self, input_shape: Any) -> list:
        return two_of(self, super().shapes(input_shape))

    def merge(self, inputs: list) -> Tensor:
        return inputs[0] - inputs[1]


class Extreme(Merge, abstract=True):
    """The base of Maximum and Minimum: of a step that one input masks out, the others' values count alone."""

    choose = staticmethod(ops.maximum)

    def call(self, inputs: list, mask: Any = None) -> Tensor:
        self.compute_output_shape(shapes_of(inputs))  # for its errors
        inputs = self.aligned(inputs)
        masks = mask or [None] * len(inputs)
        output, seen = inputs[0], masks[0]
        for x, kept in zip(inputs[1:], masks[1:]):
            if kept is not None:
                x = ops.where(over_features(kept, x.ndim), x, output)
            if seen is not None:
                output = ops.where(over_features(seen, x.ndim), output, x)
            seen = None if seen is None or kept is None else either(seen, kept)
            output = self.choose(output, x)
        return output


class Maximum(Extreme):
    """The largest of the inputs, elementwise."""


class Minimum(Extreme):
    """The smallest of the inputs, elementwise."""

    choose = staticmethod(ops.minimum)


class Concatenate(Merge):
    """The inputs joined along an axis; all other lengths are equal.

    Args:
        axis: where to join; the batch is axis 0.
    """

    def __init__(self, axis: int = -1, **kwargs: Any):
        super().__init__(**kwargs)
        self.axis = axis

    def merge(self, inputs: list) -> Tensor:
        return ops.concatenate(inputs, self.axis)

    def compute_output_shape(self, input_shape: Any) -> tuple:
        shapes = input_shape if self.axis == 0 and isinstance(input_shape, list) else self.shapes(input_shape)
        rank = len(shapes[0])
        if any(len(s) != rank for s in shapes) or not -rank <= self.axis < rank:
            self.fail(f"expected inputs of one number of dimensions that have an axis {self.axis}, got shapes {shapes}")
        output: list = []
        for axis, lengths in enumerate(zip(*shapes)):
            if axis == self.axis % rank:
                output.append(None if None in lengths else sum(lengths))
                continue
            known = set(lengths) - {None}
            if len(known) > 1:
                self.fail(f"expected inputs with equal lengths except along axis {self.axis}, got shapes {shapes}")
            output.append(next(iter(known), None))
        return tuple(output)

    def compute_mask(self, inputs: Any, mask: Any) -> Any:
        if mask is None or all(m is None for m in mask):
            return None
        xp = array_namespace(inputs[0].array)
        full = [
            xp.ones(x.shape, bool) if m is None else xp.broadcast_to(over_features(m, x.ndim).array, x.shape)
            for x, m in zip(inputs, mask)
        ]
        joined = xp.concatenate(full, self.axis)
        return wrap(joined.any(axis=tuple(range(2, joined.ndim))))


class Dot(Merge):
    """Sums of products of two inputs along an axis of each, sample by sample.

    Shapes: (batch, *rest1) and (batch, *rest2) -> (batch, *rest1, *rest2) without the two axes; (batch, 1) if no other
    is left.

    Args:
        axes: the axis of both inputs, or of each; not the batch.
        normalize: divide by the lengths of the vectors first, which gives their cosine.
    """

    supports_masking = False

    def __init__(self, axes: Any, normalize: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.axes = (axes, axes) if isinstance(axes, int) else tuple(axes)
        if len(self.axes) != 2 or 0 in self.axes:
            self.fail(f"axes must be one or two integers that are not 0, got {axes!r}")
        self.normalize = normalize

    def call(self, inputs: list) -> Tensor:
        shape = self.compute_output_shape(shapes_of(inputs))
        rows, columns = (ops.moveaxis(x, axis, 1) for x, axis in zip(inputs, self.axes))
        if self.normalize:
            rows, columns = (x / norm(x) for x in (rows, columns))
        rows, columns = (ops.reshape(x, (*x.shape[:2], math.prod(x.shape[2:]))) for x in (rows, columns))
        return ops.reshape(ops.matmul(ops.swapaxes(rows, 1, 2), columns), shape)

    def compute_output_shape(self, input_shape: Any) -> tuple:
        first, second = map(list, two_of(self, self.shapes(input_shape)))
        a, b = self.axes
        if not (-len(first) < a < len(first) and -len(second) < b < len(second)):
            self.fail(f"expected inputs that have the axes {self.axes}, got shapes {input_shape}")
        n, m = first.pop(a), second.pop(b)
        if None not in (n, m) and n != m:
            self.fail(f"expected equal lengths along the axes {self.axes}, got shapes {input_shape}")
        return (first[0], *(first[1:] + second[1:] or [1]))


def shapes_of(inputs: Any) -> Any:
    """The shapes of a list of tensors, or of one."""
    return [x.shape for x in inputs] if isinstance(inputs, list) else inputs.shape


def two_of(layer: Layer, shapes: list) -> list:
    """The shapes, if there are two."""
    if len(shapes) != 2:
        layer.fail(f"expected two inputs, got {len(shapes)}")
    return shapes


def either(a: Tensor, b: Tensor) -> Tensor:
    """a or b, of booleans."""
    return wrap(a.array | b.array)


def over_features(mask: Tensor, ndim: int) -> Tensor:
    """A (batch, time) mask with axes of length 1 up to `ndim` dimensions."""
    return ops.reshape(mask, mask.shape + (1,) * (ndim - mask.ndim))


def norm(x: Tensor) -> Tensor:
    """The length of the vectors along axis 1, not quite 0."""
    return ops.sqrt(ops.maximum(ops.sum(x * x, axis=1, keepdims=True), 1e-14))
