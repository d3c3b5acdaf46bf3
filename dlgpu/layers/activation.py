"""Activations as layers."""

from typing import Any

import numpy as np

from dlgpu import activations
from dlgpu.layers.base import Layer, SameShape
from dlgpu.ops.elementwise import greater, where
from dlgpu.ops.shape import reshape
from dlgpu.tensor import Tensor, as_tensor

MASKED, MASKED_IN_FLOAT16 = -1e9, -3e4  # what a masked logit counts as: its softmax is 0


class Activation(SameShape, Layer):
    """outputs = activation(inputs)

    Args:
        activation: a name or a function of a Tensor.
    """

    def __init__(self, activation: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.activation = activations.get(activation)

    def call(self, inputs: Tensor) -> Tensor:
        return self.activation(inputs)


class ReLU(SameShape, Layer):
    """x above the threshold, limited to max_value; negative_slope * (x - threshold) below it.

    Args:
        max_value: the largest output, >= 0, or None for no limit.
        negative_slope: the slope below the threshold, >= 0.
        threshold: where the slope changes, >= 0.
    """

    def __init__(
        self, max_value: float | None = None, negative_slope: float = 0.0, threshold: float = 0.0, **kwargs: Any
    ):
        super().__init__(**kwargs)
        if max_value is not None and max_value < 0:
            self.fail(f"max_value must be at least 0, or None, got {max_value!r}")
        for name, value in (("negative_slope", negative_slope), ("threshold", threshold)):
            if value is None or value < 0:
                self.fail(f"{name} must be at least 0, got {value!r}")
        self.max_value = max_value
        self.negative_slope = negative_slope
        self.threshold = threshold

    def call(self, inputs: Tensor) -> Tensor:
        return activations.relu(inputs, self.negative_slope, self.max_value, self.threshold)


class LeakyReLU(SameShape, Layer):
    """x where it is positive, negative_slope * x elsewhere.

    Args:
        negative_slope: at least 0. Note Keras's default: 0.3 here, 0.2 in the function of that name.
    """

    def __init__(self, negative_slope: float = 0.3, **kwargs: Any):
        super().__init__(**kwargs)
        if negative_slope is None or negative_slope < 0:
            self.fail(f"negative_slope must be at least 0, got {negative_slope!r}")
        self.negative_slope = negative_slope

    def call(self, inputs: Tensor) -> Tensor:
        return activations.leaky_relu(inputs, self.negative_slope)


class ELU(SameShape, Layer):
    """x where it is positive, alpha * (exp(x) - 1) elsewhere.

    Args:
        alpha: minus the limit for large negative x.
    """

    def __init__(self, alpha: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.alpha = alpha

    def call(self, inputs: Tensor) -> Tensor:
        return activations.elu(inputs, self.alpha)


class PReLU(SameShape, Layer):
    """x where it is positive, alpha * x elsewhere, with a learned alpha for each value of a sample.

    Args:
        alpha_initializer: a name or an Initializer.
        alpha_regularizer: a name or a Regularizer.
        shared_axes: the axes (or the one) along which all values share their alpha, the batch being axis 0: [1, 2]
            after a Conv2D gives each channel one.
    """

    def __init__(
        self,
        alpha_initializer: Any = "Zeros",
        alpha_regularizer: Any = None,
        shared_axes: list[int] | int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.alpha_initializer = alpha_initializer
        self.alpha_regularizer = alpha_regularizer
        self.shared_axes = [shared_axes] if isinstance(shared_axes, int) else list(shared_axes or [])

    def build(self, input_shape: tuple) -> None:
        shape = list(input_shape[1:])
        for axis in self.shared_axes:
            if not 1 <= axis < len(input_shape):
                self.fail(f"shared_axes must be from 1 to {len(input_shape) - 1}, got {self.shared_axes}")
            shape[axis - 1] = 1
        if None in shape:
            self.fail(f"the inputs' lengths must be known, or their axes shared, got shape {input_shape}")
        self.alpha = self.add_weight(tuple(shape), self.alpha_initializer, "alpha", regularizer=self.alpha_regularizer)

    def call(self, inputs: Tensor) -> Tensor:
        expected = self.alpha.shape
        if inputs.ndim != len(expected) + 1 or any(e not in (1, n) for e, n in zip(expected, inputs.shape[1:])):
            self.fail(f"expected inputs of shape (batch, {', '.join(map(str, expected))}), got {inputs.shape}")
        return where(greater(inputs, 0), inputs, self.alpha * inputs)


class Softmax(SameShape, Layer):
    """exp(x) / sum(exp(x)) along an axis.

    A mask, boolean, takes values out: they get 0, and the others sum to 1. It must broadcast to the inputs; the
    (batch, time) mask that inputs (batch, time, features) carry takes out whole steps.

    Args:
        axis: an axis, or several.
    """

    def __init__(self, axis: int | list[int] = -1, **kwargs: Any):
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            return activations.softmax(inputs, self.axis)
        mask = as_tensor(mask, bool)
        if mask.shape == inputs.shape[: mask.ndim]:
            mask = reshape(mask, mask.shape + (1,) * (inputs.ndim - mask.ndim))
        if mask.ndim > inputs.ndim or any(m not in (1, n) for m, n in zip(mask.shape[::-1], inputs.shape[::-1])):
            self.fail(f"expected a mask that broadcasts to the inputs' shape {inputs.shape}, got {mask.shape}")
        low = MASKED_IN_FLOAT16 if inputs.dtype == np.float16 else MASKED
        return where(mask, activations.softmax(where(mask, inputs, low), self.axis), 0)

    def compute_mask(self, inputs: Tensor, mask: Any) -> Any:
        return inputs.mask  # a mask that was passed is of values, not of steps
