"""Convolution layers: windows of inputs in, filters out."""

from typing import Any

from dlgpu import activations
from dlgpu.layers.base import Layer
from dlgpu.layers.pooling import MaxPooling2D
from dlgpu.layers.windowed import Windowed
from dlgpu.ops.activation import fused_name
from dlgpu.ops.convolution import conv1d, conv2d, conv2d_max_pool, conv2d_transpose, transposed_length
from dlgpu.tensor import Tensor


class Convolution(Windowed, abstract=True):
    """outputs = activation(convolution(inputs, kernel) + bias); the base of all convolution layers.

    Args:
        filters: the number of output channels.
        kernel_size: the window's length on each axis, or one number for all of them.
        strides: the step from one window to the next, likewise.
        padding: "valid" (none) or "same" (as many outputs as inputs, divided by strides and rounded up).
        dilation_rate: the distance between neighbours in a window; greater than 1 only where strides are 1.
        groups: channels and filters are cut into so many parts; each part of the filters sees its part of the channels.
        activation: a name or a function of a Tensor; none by default.
        use_bias: whether there is a bias.
        kernel_initializer, bias_initializer: names or Initializers.
        kernel_regularizer, bias_regularizer: names or Regularizers.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        dilation_rate: Any = 1,
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.require_positive_integers(filters=filters, groups=groups)
        self.filters, self.groups = filters, groups
        self.kernel_size = self.numbers(kernel_size, "kernel_size")
        self.strides = self.numbers(strides, "strides")
        self.padding = self.padding_name(padding)
        self.dilation_rate = self.numbers(dilation_rate, "dilation_rate")
        if filters % groups:
            self.fail(f"filters must divide by groups, got {filters} filters and {groups} groups")
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            self.fail(
                "strides > 1 do not go with dilation_rate > 1, "
                f"got strides={self.strides} and dilation_rate={self.dilation_rate}"
            )
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.initializers = kernel_initializer, bias_initializer
        self.regularizers = kernel_regularizer, bias_regularizer
        self.channels: int | None = None

    def build(self, input_shape: tuple) -> None:
        channels = self.read_channels(input_shape)
        if channels % self.groups:
            self.fail(f"the channels must divide by groups, got {channels} channels and {self.groups} groups")
        self.kernel = self.add_weight(
            self.kernel_shape(channels), self.initializers[0], "kernel", regularizer=self.regularizers[0]
        )
        self.add_bias(self.filters)

    def read_channels(self, input_shape: tuple) -> int:
        """The number of channels that the layer is built for from now on."""
        self.compute_output_shape(input_shape)  # for its errors
        if input_shape[-1] is None:
            self.fail(f"the number of channels must be known, got inputs of shape {input_shape}")
        self.channels = input_shape[-1]
        return input_shape[-1]

    def kernel_shape(self, channels: int) -> tuple:
        """The shape of the kernel for so many input channels."""
        return (*self.kernel_size, channels // self.groups, self.filters)

    def add_bias(self, filters: int) -> None:
        """Make the bias, if there is to be one."""
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight((filters,), self.initializers[1], "bias", regularizer=self.regularizers[1])

    def call(self, inputs: Tensor) -> Tensor:
        self.compute_output_shape(inputs.shape)  # for its errors
        return self.activated(inputs, self.kernel, self.groups)

    def activated(self, inputs: Tensor, kernel: Tensor, groups: int) -> Tensor:
        """activation(convolution(inputs, kernel) + bias)"""
        convolve: Any = conv2d if self.rank == 2 else conv1d
        geometry = self.strides, self.padding, self.dilation_rate, groups
        return convolve(inputs, kernel, self.bias, *geometry, self.activation)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        lengths = self.slide(input_shape, self.kernel_size, self.strides, self.padding, self.dilation_rate)
        self.require_channels(input_shape)
        return (input_shape[0], *lengths, self.filters)

    def require_channels(self, shape: tuple) -> None:
        """Fail if the layer was built for another number of channels."""
        if self.channels is not None and shape[-1] != self.channels:
            self.fail(f"expected inputs of shape {self.expected(self.channels)}, got {shape}")


class Conv1D(Convolution):
    """Convolution over time; arguments as for Convolution, and padding="causal": no output sees a later input.

    Shapes: (batch, time, channels) -> (batch, output time, filters); kernel (kernel_size, channels / groups, filters),
    bias (filters,).
    """

    rank = 1
    paddings = ("valid", "same", "causal")
    aliases = ("Convolution1D",)


class Conv2D(Convolution):
    """Convolution over height and width; arguments as for Convolution.

    Shapes: (batch, height, width, channels) -> (batch, output height, output width, filters);
    kernel (kernel_height, kernel_width, channels / groups, filters), bias (filters,).
    """

    aliases = ("Convolution2D",)

    def call(self, inputs: Tensor, following: Any = None) -> Tensor:
        if following is None:
            return super().call(inputs)
        following.compute_output_shape(self.compute_output_shape(inputs.shape))  # for the errors of both
        geometry = self.strides, self.padding, self.dilation_rate, self.groups
        return conv2d_max_pool(inputs, self.kernel, self.bias, *geometry, self.activation)

    def joins(self, following: Layer | None) -> bool:
        """Only max-pooling of 2 x 2 after a fused activation, where nothing else can see or change what is between."""
        return (
            type(self) is Conv2D
            and type(following) is MaxPooling2D
            and (following.pool_size, following.strides, following.padding) == ((2, 2), (2, 2), "valid")
            and fused_name(self.activation) is not None
            and following.built
            and self.compute_dtype == following.compute_dtype
            and self.activity_regularizer is None
            and following.activity_regularizer is None
            and "call" not in {*vars(self), *vars(following)}
        )


class DepthwiseConv2D(Convolution):
    """A convolution of each channel by itself, with `depth_multiplier` filters; other arguments as for Convolution.

    Shapes: (batch, height, width, channels) -> (batch, output height, output width, channels * depth_multiplier);
    kernel (kernel_height, kernel_width, channels, depth_multiplier), bias (channels * depth_multiplier,).
    """

    def __init__(
        self,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        depth_multiplier: int = 1,
        dilation_rate: Any = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        **kwargs: Any,
    ):
        weights = depthwise_initializer, bias_initializer, depthwise_regularizer, bias_regularizer
        geometry = kernel_size, strides, padding, dilation_rate
        super().__init__(depth_multiplier, *geometry, 1, activation, use_bias, *weights, **kwargs)
        self.depth_multiplier = depth_multiplier

    def kernel_shape(self, channels: int) -> tuple:
        return (*self.kernel_size, channels, self.depth_multiplier)

    def add_bias(self, filters: int) -> None:
        super().add_bias(self.kernel.shape[2] * filters)

    def call(self, inputs: Tensor) -> Tensor:
        self.compute_output_shape(inputs.shape)
        return self.activated(inputs, as_grouped(self.kernel), inputs.shape[-1])

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        *shape, multiplier = super().compute_output_shape(input_shape)
        return (*shape, None if input_shape[-1] is None else input_shape[-1] * multiplier)


class SeparableConv2D(Convolution):
    """A depthwise convolution, then a convolution with a window of 1 that mixes the channels.

    Shapes: (batch, height, width, channels) -> (batch, output height, output width, filters);
    depthwise_kernel (kernel_height, kernel_width, channels, depth_multiplier),
    pointwise_kernel (1, 1, channels * depth_multiplier, filters), bias (filters,).
    Arguments as for Convolution, the kernel's once for each of the two kernels.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        dilation_rate: Any = 1,
        depth_multiplier: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        pointwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        pointwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        **kwargs: Any,
    ):
        weights = depthwise_initializer, bias_initializer, depthwise_regularizer, bias_regularizer
        geometry = kernel_size, strides, padding, dilation_rate
        super().__init__(filters, *geometry, 1, activation, use_bias, *weights, **kwargs)
        self.require_positive_integers(depth_multiplier=depth_multiplier)
        self.depth_multiplier = depth_multiplier
        self.pointwise = pointwise_initializer, pointwise_regularizer

    def build(self, input_shape: tuple) -> None:
        channels = self.read_channels(input_shape)
        shape = (*self.kernel_size, channels, self.depth_multiplier)
        mixed = (1, 1, channels * self.depth_multiplier, self.filters)
        make, regularizer = self.initializers[0], self.regularizers[0]
        self.depthwise_kernel = self.add_weight(shape, make, "depthwise_kernel", regularizer=regularizer)
        make, regularizer = self.pointwise
        self.pointwise_kernel = self.add_weight(mixed, make, "pointwise_kernel", regularizer=regularizer)
        self.add_bias(self.filters)

    def call(self, inputs: Tensor) -> Tensor:
        self.compute_output_shape(inputs.shape)
        geometry = self.strides, self.padding, self.dilation_rate, inputs.shape[-1]
        between = conv2d(inputs, as_grouped(self.depthwise_kernel), None, *geometry)
        return conv2d(between, self.pointwise_kernel, self.bias, activation=self.activation)


class Conv2DTranspose(Convolution):
    """The transpose of Conv2D, which makes images larger: it maps what Conv2D would give back to what it took.

    Shapes: (batch, height, width, channels) -> (batch, output height, output width, filters); the output height is
    height * stride with padding="same", and max(kernel_height - stride, 0) more with "valid".
    kernel (kernel_height, kernel_width, filters, channels), bias (filters,).
    Arguments as for Convolution, without groups.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        dilation_rate: Any = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        **kwargs: Any,
    ):
        weights = kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer
        geometry = kernel_size, strides, padding, dilation_rate
        super().__init__(filters, *geometry, 1, activation, use_bias, *weights, **kwargs)

    def kernel_shape(self, channels: int) -> tuple:
        return (*self.kernel_size, self.filters, channels)

    def call(self, inputs: Tensor) -> Tensor:
        self.compute_output_shape(inputs.shape)
        geometry = self.strides, self.padding, self.dilation_rate
        return conv2d_transpose(inputs, self.kernel, self.bias, *geometry, self.activation)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        if len(input_shape) != 4:
            self.fail(f"expected inputs of shape {self.expected()}, got {input_shape}")
        self.require_channels(input_shape)
        axes = zip(input_shape[1:3], self.kernel_size, self.strides, self.dilation_rate)
        lengths = [None if axis[0] is None else transposed_length(*axis, self.padding) for axis in axes]
        return (input_shape[0], *lengths, self.filters)


def as_grouped(kernel: Tensor) -> Tensor:
    """A depthwise kernel (height, width, channels, multiplier) as one of `channels` groups."""
    height, width, channels, multiplier = kernel.shape
    return kernel.reshape(height, width, 1, channels * multiplier)


Convolution1D, Convolution2D = Conv1D, Conv2D
