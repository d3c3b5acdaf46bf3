"""Dense: every output sees every input."""

from typing import Any

from dlgpu import activations
from dlgpu.layers.base import Layer
from dlgpu.ops.activation import dense
from dlgpu.tensor import Tensor


class Dense(Layer):
    """outputs = activation(inputs @ kernel + bias)

    Shapes: (..., features) -> (..., units); kernel (features, units), bias (units,).

    Args:
        units: the number of outputs.
        activation: a name or a function of a Tensor; none by default.
        use_bias: whether there is a bias.
        kernel_initializer, bias_initializer: names or Initializers.
        kernel_regularizer, bias_regularizer: names or Regularizers.
    """

    supports_masking = True

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.require_positive_integers(units=units)
        self.units = units
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.initializers = kernel_initializer, bias_initializer
        self.regularizers = kernel_regularizer, bias_regularizer

    def build(self, input_shape: tuple) -> None:
        features = input_shape[-1]
        if features is None:
            self.fail(f"the last dimension of the inputs must be known, got shape {input_shape}")
        self.kernel = self.add_weight(
            (features, self.units), self.initializers[0], "kernel", regularizer=self.regularizers[0]
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight((self.units,), self.initializers[1], "bias", regularizer=self.regularizers[1])

    def call(self, inputs: Tensor) -> Tensor:
        if inputs.ndim < 2 or inputs.shape[-1] != self.kernel.shape[0]:
            self.fail(f"expected inputs of shape (batch, {self.kernel.shape[0]}), got {inputs.shape}")
        return dense(inputs, self.kernel, self.bias, self.activation)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (*input_shape[:-1], self.units)
