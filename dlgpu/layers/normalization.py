"""Layers that bring activations to mean 0 and variance 1."""

from typing import Any

from dlgpu import ops
from dlgpu.layers.base import Layer, SameShape
from dlgpu.ops.shape import axes_of
from dlgpu.parameters import Parameter
from dlgpu.tensor import Tensor


class BatchNormalization(SameShape, Layer):
    """outputs = (inputs - mean) / sqrt(variance + epsilon) * gamma + beta, for each channel

    In training, mean and variance are those of the batch, over all axes but one, and the moving ones follow them:
    moving = moving * momentum + batch's * (1 - momentum), the variance biased. Otherwise, and always when the layer
    is not trainable, they are the moving ones. Masked steps do not count in the statistics.

    Shapes: (batch, ..., channels) -> the same; gamma, beta, moving_mean, moving_variance (channels,).
    Paper: Ioffe and Szegedy 2015, arxiv.org/abs/1502.03167.

    Args:
        axis: of the channels.
        momentum: how much the moving statistics keep at each step.
        epsilon: a small number added to the variance.
        center, scale: whether there are beta and gamma.
        beta_initializer, gamma_initializer: names or Initializers.
        moving_mean_initializer, moving_variance_initializer: the same, for the moving statistics.
        beta_regularizer, gamma_regularizer: names or Regularizers.
    """

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.axis = int(axis)
        self.momentum = float(momentum)
        self.epsilon = float(epsilon)
        self.center, self.scale = center, scale
        self.initializers = gamma_initializer, beta_initializer, moving_mean_initializer, moving_variance_initializer
        self.regularizers = gamma_regularizer, beta_regularizer

    def build(self, input_shape: tuple) -> None:
        if len(input_shape) < 2:
            self.fail(f"expected inputs of 2 or more dimensions, got shape {input_shape}")
        shape = _lengths(self, input_shape, (self.axis,))
        gamma, beta, mean, variance = self.initializers
        self.gamma = (
            self.add_weight(shape, gamma, "gamma", regularizer=self.regularizers[0], autocast=False)
            if self.scale
            else None
        )
        self.beta = (
            self.add_weight(shape, beta, "beta", regularizer=self.regularizers[1], autocast=False)
            if self.center
            else None
        )
        self.moving_mean = self.add_weight(shape, mean, "moving_mean", trainable=False)
        self.moving_variance = self.add_weight(shape, variance, "moving_variance", trainable=False)

    def call(self, inputs: Tensor, training: bool = False, mask: Tensor | None = None) -> Tensor:
        _require(self, inputs, (self.axis,), self.moving_mean.shape)
        if not (training and self.trainable):
            return ops.normalize(
                inputs, self.moving_mean, self.moving_variance, self.gamma, self.beta, self.axis, self.epsilon
            )
        outputs, mean, variance = ops.batch_normalization(inputs, self.gamma, self.beta, self.axis, self.epsilon, mask)
        self._follow(self.moving_mean, mean)
        self._follow(self.moving_variance, variance)
        return outputs

    def _follow(self, moving: Parameter, value: Any) -> None:
        moving.array *= self.momentum
        moving.array += value * (1 - self.momentum)


class LayerNormalization(SameShape, Layer):
    """outputs = (inputs - mean) / sqrt(variance + epsilon) * gamma + beta, with mean and variance of each sample

    Shapes: (batch, ..., features) -> the same; gamma, beta of the lengths of the normalized axes.
    Paper: Ba, Kiros and Hinton 2016, arxiv.org/abs/1607.06450.

    Args:
        axis: over which to normalize, one or several.
        epsilon: a small number added to the variance.
        center, scale: whether there are beta and gamma.
        beta_initializer, gamma_initializer: names or Initializers.
        beta_regularizer, gamma_regularizer: names or Regularizers.
    """

    def __init__(
        self,
        axis: Any = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.axis = tuple(axis) if isinstance(axis, (list, tuple)) else (axis,)
        if not all(isinstance(a, int) for a in self.axis):
            self.fail(f"axis must be an integer or several, got {axis!r}", TypeError)
        self.epsilon = float(epsilon)
        self.center, self.scale = center, scale
        self.initializers = gamma_initializer, beta_initializer
        self.regularizers = gamma_regularizer, beta_regularizer

    def build(self, input_shape: tuple) -> None:
        self.lengths = _lengths(self, input_shape, self.axis)
        gamma, beta = (
            self.add_weight(self.lengths, initializer, name, regularizer=regularizer, autocast=False)
            if wanted
            else None
            for wanted, initializer, name, regularizer in zip(
                (self.scale, self.center), self.initializers, ("gamma", "beta"), self.regularizers
            )
        )
        self.gamma, self.beta = gamma, beta

    def call(self, inputs: Tensor) -> Tensor:
        _require(self, inputs, self.axis, self.lengths)
        return ops.layer_normalization(inputs, self.gamma, self.beta, self.axis, self.epsilon)


def _lengths(layer: Layer, shape: tuple, axes: tuple) -> tuple:
    """The lengths of the axes, in ascending order, which must be known."""
    try:
        found = tuple(shape[a] for a in axes_of(axes, len(shape)))
    except ValueError as error:
        layer.fail(f"{error}: the inputs' shape is {shape}")
    if None in found:
        layer.fail(f"the length of axis {axes} must be known, got inputs of shape {shape}")
    return found


def _require(layer: Layer, inputs: Tensor, axes: tuple, lengths: tuple) -> None:
    if _lengths(layer, inputs.shape, axes) != lengths:
        layer.fail(f"expected inputs of length {lengths} along axis {axes}, got shape {inputs.shape}")
