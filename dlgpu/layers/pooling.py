"""Pooling layers: the largest value or the mean of each window, or of all time or all of an image."""

from typing import Any

from dlgpu import ops
from dlgpu.layers.windowed import Windowed
from dlgpu.ops.pooling import average_pool, max_pool
from dlgpu.tensor import Tensor


class Pooling(Windowed, abstract=True):
    """The base of pooling over windows.

    Args:
        pool_size: the window's length on each axis, or one number for all of them.
        strides: the step from one window to the next, likewise; the window's length by default.
        padding: "valid" (none) or "same" (as many outputs as inputs, divided by strides and rounded up); what lies in
            the padding does not count.
    """

    pool: Any

    def __init__(self, pool_size: Any = 2, strides: Any = None, padding: str = "valid", **kwargs: Any):
        super().__init__(**kwargs)
        self.pool_size = self.numbers(pool_size, "pool_size")
        self.strides = self.pool_size if strides is None else self.numbers(strides, "strides")
        self.padding = self.padding_name(padding)

    def call(self, inputs: Tensor) -> Tensor:
        self.compute_output_shape(inputs.shape)  # for its errors
        return self.pool(inputs, self.pool_size, self.strides, self.padding)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        lengths = self.slide(input_shape, self.pool_size, self.strides, self.padding)
        return (input_shape[0], *lengths, input_shape[-1])


class MaxPooling1D(Pooling):
    """The largest value of each window of time: (batch, time, channels) -> (batch, output time, channels)."""

    rank = 1
    pool = staticmethod(max_pool)
    aliases = ("MaxPool1D",)


class MaxPooling2D(Pooling):
    """The largest value of each window: (batch, height, width, channels) -> (batch, output height, ..., channels)."""

    pool = staticmethod(max_pool)
    aliases = ("MaxPool2D",)


class AveragePooling1D(Pooling):
    """The mean of each window of time: (batch, time, channels) -> (batch, output time, channels)."""

    rank = 1
    pool = staticmethod(average_pool)
    aliases = ("AvgPool1D",)


class AveragePooling2D(Pooling):
    """The mean of each window: (batch, height, width, channels) -> (batch, output height, output width, channels)."""

    pool = staticmethod(average_pool)
    aliases = ("AvgPool2D",)


class GlobalPooling(Windowed, abstract=True):
    """The base of pooling over all of time, or all of height and width.

    Args:
        keepdims: whether the axes stay, with length 1.
    """

    reduce: Any

    def __init__(self, keepdims: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.keepdims = keepdims

    def call(self, inputs: Tensor) -> Tensor:
        self.compute_output_shape(inputs.shape)  # for its errors
        return self.reduce(inputs, axis=tuple(range(1, self.rank + 1)), keepdims=self.keepdims)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        if len(input_shape) != self.rank + 2 or 0 in input_shape[1:-1]:
            self.fail(f"expected inputs of shape {self.expected()}, none of them empty, got {input_shape}")
        return (input_shape[0], *(1,) * (self.rank if self.keepdims else 0), input_shape[-1])


class GlobalMaxPooling1D(GlobalPooling):
    """The largest value of all time: (batch, time, channels) -> (batch, channels)."""

    rank = 1
    reduce = staticmethod(ops.max)
    aliases = ("GlobalMaxPool1D",)


class GlobalMaxPooling2D(GlobalPooling):
    """The largest value of an image: (batch, height, width, channels) -> (batch, channels)."""

    reduce = staticmethod(ops.max)
    aliases = ("GlobalMaxPool2D",)


class GlobalAveragePooling1D(GlobalPooling):
    """The mean over time, of the steps that the mask keeps: (batch, time, channels) -> (batch, channels).

    A sample of which the mask keeps nothing gives NaN.
    """

    rank = 1
    reduce = staticmethod(ops.mean)
    aliases = ("GlobalAvgPool1D",)

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            return super().call(inputs)
        self.compute_output_shape(inputs.shape)
        kept = ops.expand_dims(mask, 2)
        total = ops.sum(ops.where(kept, inputs, 0), axis=1, keepdims=self.keepdims)
        return total / ops.sum(ops.astype(kept, inputs.dtype), axis=1, keepdims=self.keepdims)


class GlobalAveragePooling2D(GlobalPooling):
    """The mean of an image: (batch, height, width, channels) -> (batch, channels)."""

    reduce = staticmethod(ops.mean)
    aliases = ("GlobalAvgPool2D",)


MaxPool1D, MaxPool2D, AvgPool1D, AvgPool2D = MaxPooling1D, MaxPooling2D, AveragePooling1D, AveragePooling2D
GlobalMaxPool1D, GlobalMaxPool2D = GlobalMaxPooling1D, GlobalMaxPooling2D
GlobalAvgPool1D, GlobalAvgPool2D = GlobalAveragePooling1D, GlobalAveragePooling2D
