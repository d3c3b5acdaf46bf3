"""Layers that move values and compute none: shapes, borders, repetition."""

import math
from typing import Any

from dlgpu import ops
from dlgpu.backend import windows
from dlgpu.layers.base import Layer
from dlgpu.layers.windowed import Windowed
from dlgpu.tensor import Tensor


class Flatten(Layer):
    """(batch, ...) -> (batch, product of all other lengths)."""

    def call(self, inputs: Tensor) -> Tensor:
        return ops.reshape(inputs, (inputs.shape[0], math.prod(inputs.shape[1:])))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        if None in input_shape[1:]:
            self.fail(f"all lengths but the batch must be known, got inputs of shape {input_shape}")
        return (input_shape[0], math.prod(input_shape[1:]))


class Reshape(Layer):
    """(batch, ...) -> (batch, *target_shape)

    Args:
        target_shape: the new lengths, without the batch; one may be -1, for what is left.
    """

    def __init__(self, target_shape: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.target_shape = tuple(target_shape)
        if self.target_shape.count(-1) > 1 or any(n != -1 and n < 1 for n in self.target_shape):
            self.fail(f"target_shape must be positive lengths, of which one may be -1, got {self.target_shape}")

    def call(self, inputs: Tensor) -> Tensor:
        return ops.reshape(inputs, self.compute_output_shape(inputs.shape))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        given = math.prod(n for n in self.target_shape if n != -1)
        left = None
        if None not in input_shape[1:]:
            size = math.prod(input_shape[1:])
            left = size // given
            if left * given != size or (left != 1 and -1 not in self.target_shape):
                self.fail(f"inputs of shape {input_shape} do not fit into {self.target_shape}")
        return (input_shape[0], *(left if n == -1 else n for n in self.target_shape))


class Permute(Layer):
    """The axes after the batch in another order.

    Args:
        dims: the input's axes, counted from 1, in the output's order: (2, 1) swaps time and channels.
    """

    def __init__(self, dims: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.dims = tuple(dims)
        if sorted(self.dims) != list(range(1, len(self.dims) + 1)):
            self.fail(f"dims must be the numbers from 1 to {len(self.dims)} in some order, got {self.dims}")

    def call(self, inputs: Tensor) -> Tensor:
        self.compute_output_shape(inputs.shape)  # for its errors
        return ops.transpose(inputs, (0, *self.dims))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        if len(input_shape) != len(self.dims) + 1:
            self.fail(f"expected inputs of {len(self.dims) + 1} dimensions, got shape {input_shape}")
        return (input_shape[0], *(input_shape[d] for d in self.dims))


class RepeatVector(Layer):
    """(batch, features) -> (batch, n, features), the same at each step.

    Args:
        n: the number of steps.
    """

    def __init__(self, n: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.require_positive_integers(n=n)
        self.n = n

    def call(self, inputs: Tensor) -> Tensor:
        self.compute_output_shape(inputs.shape)  # for its errors
        return ops.repeat(ops.expand_dims(inputs, 1), self.n, axis=1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        if len(input_shape) != 2:
            self.fail(f"expected inputs of shape (batch, features), got {input_shape}")
        return (input_shape[0], self.n, input_shape[1])


class Bordered(Windowed, abstract=True):
    """The base of layers that put something around their inputs, or take it away: (before, after) on each axis."""

    def borders(self, value: Any, argument: str) -> tuple[windows.Pair, ...]:
        """One number for all borders; one for each axis; or (before, after) for each axis."""
        per_axis = [value] * self.rank if isinstance(value, int) or self.rank == 1 else value
        try:
            if len(per_axis) == self.rank:
                return tuple(windows.numbers(pair, 2, argument, least=0) for pair in per_axis)  # type: ignore[misc]
        except (TypeError, ValueError):
            pass
        axes = " and ".join(windows.AXES[self.rank])
        return self.fail(f"{argument} must be a number or (before, after) for {axes}, none below 0, got {value!r}")

    def grown(self, shape: tuple, borders: tuple, sign: int) -> tuple:
        """The shape with the borders added, or taken away for a sign of -1."""
        if len(shape) != self.rank + 2:
            self.fail(f"expected inputs of shape {self.expected()}, got {shape}")
        lengths = [None if n is None else n + sign * sum(pair) for n, pair in zip(shape[1:-1], borders)]
        if any(n is not None and n <= 0 for n in lengths):
            self.fail(f"nothing is left of inputs of shape {shape} without borders of {borders}")
        return (shape[0], *lengths, shape[-1])


class ZeroPadding(Bordered, abstract=True):
    """The base of zero padding."""

    def __init__(self, padding: Any = 1, **kwargs: Any):
        super().__init__(**kwargs)
        self.padding = self.borders(padding, "padding")

    def call(self, inputs: Tensor) -> Tensor:
        self.compute_output_shape(inputs.shape)  # for its errors
        return ops.pad(inputs, [(0, 0), *self.padding, (0, 0)])

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return self.grown(input_shape, self.padding, 1)


class ZeroPadding1D(ZeroPadding):
    """Zeros around time: (batch, time, channels) -> (batch, before + time + after, channels).

    Args:
        padding: one number for both ends, or (before, after).
    """

    rank = 1


class ZeroPadding2D(ZeroPadding):
    """Zeros around images: (batch, height, width, channels) -> (batch, top + height + bottom, ..., channels).

    Args:
        padding: one number for all sides, (height, width), or ((top, bottom), (left, right)).
    """


class Cropping(Bordered, abstract=True):
    """The base of cropping."""

    def __init__(self, cropping: Any = 1, **kwargs: Any):
        super().__init__(**kwargs)
        self.cropping = self.borders(cropping, "cropping")

    def call(self, inputs: Tensor) -> Tensor:
        _, *lengths, _ = self.compute_output_shape(inputs.shape)
        kept = [slice(before, before + n) for (before, _), n in zip(self.cropping, lengths)]
        return inputs[(slice(None), *kept)]

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return self.grown(input_shape, self.cropping, -1)


class Cropping1D(Cropping):
    """Time without its ends: (batch, time, channels) -> (batch, time - before - after, channels).

    Args:
        cropping: one number for both ends, or (before, after).
    """

    rank = 1


class Cropping2D(Cropping):
    """Images without their borders: (batch, height, width, channels) -> (batch, height - top - bottom, ..., channels).

    Args:
        cropping: one number for all sides, (height, width), or ((top, bottom), (left, right)).
    """

    def __init__(self, cropping: Any = 0, **kwargs: Any):
        super().__init__(cropping, **kwargs)


class UpSampling(Windowed, abstract=True):
    """The base of upsampling: each value `size` times in a row along each axis."""

    def __init__(self, size: Any = 2, **kwargs: Any):
        super().__init__(**kwargs)
        self.size = self.numbers(size, "size")

    def call(self, inputs: Tensor) -> Tensor:
        self.compute_output_shape(inputs.shape)  # for its errors
        for axis, times in enumerate(self.size, start=1):
            inputs = ops.repeat(inputs, times, axis)
        return inputs

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        if len(input_shape) != self.rank + 2:
            self.fail(f"expected inputs of shape {self.expected()}, got {input_shape}")
        lengths = [None if n is None else n * times for n, times in zip(input_shape[1:-1], self.size)]
        return (input_shape[0], *lengths, input_shape[-1])


class UpSampling1D(UpSampling):
    """Each step `size` times: (batch, time, channels) -> (batch, time * size, channels)."""

    rank = 1


class UpSampling2D(UpSampling):
    """Each pixel `size` times, (height, width) or one number: (batch, height, width, channels) -> larger."""
