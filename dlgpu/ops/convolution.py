"""Convolution over time or over height and width, its transpose, and all their derivatives.

Without bias and activation, convolution, its data gradient and its kernel gradient are linear in each of their two
inputs, and each one's derivatives are the other two: derivatives of any order go through the same three kernels.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from dlgpu.backend import windows
from dlgpu.backend.reference import convolution as kernels
from dlgpu.ops.activation import Activation, checked_bias, fused_name
from dlgpu.ops.activation import activation as fused_activation
from dlgpu.ops.differentiation import with_composite
from dlgpu.ops.operands import astype, floating, raw, together
from dlgpu.ops.pooling import max_pool
from dlgpu.ops.shape import reshape
from dlgpu.tensor import Tensor, record, wrap


class Geometry(NamedTuple):
    """How a kernel lies on its input: everything that the three kernels take beside arrays."""

    strides: tuple[int, ...]
    padding: tuple[windows.Pair, ...]
    dilation: tuple[int, ...]
    groups: int


def conv2d(
    x: Any,
    kernel: Any,
    bias: Tensor | None = None,
    strides: int | Sequence[int] = 1,
    padding: Any = "valid",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    activation: Activation = "linear",
) -> Tensor:
    """activation(convolution(x, kernel) + bias); see the kernel `convolution` for the equation.

    Args:
        x: (batch, height, width, channels), floating.
        kernel: (kernel_height, kernel_width, channels / groups, filters).
        bias: (filters,), or None.
        strides, dilation: of height and width, or one number for both.
        padding: "valid", "same" or ((top, bottom), (left, right)).
        groups: into so many parts channels and filters are cut; each part of the filters sees its part of the channels.
        activation: the name of a fused activation, or a function, which runs in the same pass if it is a fused one.
    Returns:
        (batch, output height, output width, filters).
    Raises:
        ValueError: the shapes do not go together, or the kernel does not fit into the padded input.
    """
    name = fused_name(activation)
    if name is None:
        return activation(conv2d(x, kernel, bias, strides, padding, dilation, groups))  # type: ignore[operator]
    x, kernel, geometry = _placed(x, kernel, strides, padding, dilation, groups)
    inputs = x, kernel, checked_bias(kernel, bias, name)
    return _fused(kernels.convolution, kernels.convolution_backward, lambda y: y, inputs, name, geometry)


def conv2d_max_pool(
    x: Any,
    kernel: Any,
    bias: Tensor | None = None,
    strides: int | Sequence[int] = 1,
    padding: Any = "valid",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    activation: Activation = "linear",
) -> Tensor:
    """The largest values of `conv2d` in windows of 2 x 2, `max_pool(conv2d(...), 2)`, in one pass where there is one.

    Args:
        x, kernel, bias, strides, padding, dilation, groups, activation: as for `conv2d`.
    Returns:
        (batch, output height // 2, output width // 2, filters).
    Raises:
        ValueError: as for `conv2d`, or its output is smaller than a window.
    """
    name = fused_name(activation)
    if name is None:
        return max_pool(conv2d(x, kernel, bias, strides, padding, dilation, groups, activation), 2)
    x, kernel, geometry = _placed(x, kernel, strides, padding, dilation, groups)
    inputs = x, kernel, checked_bias(kernel, bias, name)
    size = windows.output_size(x.shape[1:3], kernel.shape[:2], *geometry[:3])
    windows.require_fit(size, kernels.POOLING[0], kernels.POOLING[2])
    forward, backward = kernels.convolution_pooled, kernels.convolution_pooled_backward
    return _fused(forward, backward, lambda y: max_pool(y, 2), inputs, name, geometry)


def conv1d(
    x: Any,
    kernel: Any,
    bias: Tensor | None = None,
    strides: int | Sequence[int] = 1,
    padding: Any = "valid",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    activation: Activation = "linear",
) -> Tensor:
    """activation(convolution(x, kernel) + bias) over time: `conv2d` of images of height 1.

    Args:
        x: (batch, time, channels), floating.
        kernel: (kernel_time, channels / groups, filters).
        padding: "valid", "same", "causal" (no output sees a later input) or (before, after).
        bias, strides, dilation, groups, activation: as for `conv2d`.
    Returns:
        (batch, output time, filters).
    """
    name = fused_name(activation)
    if name is None:
        return activation(conv1d(x, kernel, bias, strides, padding, dilation, groups))  # type: ignore[operator]
    x, kernel = _operands(x, kernel)
    if x.ndim != 3 or kernel.ndim != 3:
        raise ValueError(
            "conv1d: expected x (batch, time, channels) and kernel (kernel_time, channels / groups, filters), "
            f"got {x.shape} and {kernel.shape}"
        )
    strides, dilation = windows.numbers(strides, 1, "strides"), windows.numbers(dilation, 1, "dilation")
    padding = ((0, 0), *windows.padding_pairs(padding, x.shape[1:2], kernel.shape[:1], strides, dilation))
    image, flat = reshape(x, (len(x), 1, *x.shape[1:])), reshape(kernel, (1, *kernel.shape))
    out = conv2d(image, flat, bias, (1, *strides), padding, (1, *dilation), groups, name)
    return reshape(out, (len(x), *out.shape[2:]))


def conv2d_transpose(
    x: Any,
    kernel: Any,
    bias: Tensor | None = None,
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
    dilation: int | Sequence[int] = 1,
    activation: Activation = "linear",
) -> Tensor:
    """activation(transposed convolution + bias): maps (height, width) to what `conv2d` would map to (height, width).

    Args:
        x: (batch, height, width, channels), floating.
        kernel: (kernel_height, kernel_width, filters, channels).
        bias: (filters,), or None.
        padding: "valid" or "same"; see `transposed_length` for the output's height and width.
        strides, dilation, activation: as for `conv2d`.
    Returns:
        (batch, output height, output width, filters).
    """
    name = fused_name(activation)
    if name is None:
        return activation(conv2d_transpose(x, kernel, bias, strides, padding, dilation))  # type: ignore[operator]
    x, kernel = _operands(x, kernel)
    if x.ndim != 4 or kernel.ndim != 4 or x.shape[3] != kernel.shape[3]:
        raise ValueError(
            "conv2d_transpose: expected x (batch, height, width, channels) and kernel (kernel_height, kernel_width, "
            f"filters, channels), got {x.shape} and {kernel.shape}"
        )
    strides, dilation = windows.numbers(strides, 2, "strides"), windows.numbers(dilation, 2, "dilation")
    window = kernel.shape[:2]
    size = tuple(transposed_length(*n, padding) for n in zip(x.shape[1:3], window, strides, dilation))
    geometry = Geometry(strides, windows.padding_pairs(padding, size, window, strides, dilation), dilation, 1)
    z = _data_gradient(x, kernel, size, geometry)
    return z if bias is None and name == "linear" else fused_activation(z, name, bias)


def transposed_length(length: int, window: int, stride: int, dilation: int, padding: str) -> int:
    """The output's length of a transposed convolution along one axis: the longest that `conv2d` maps to `length`."""
    return length * stride if padding == "same" else length * stride + max(windows.span(window, dilation) - stride, 0)


def _fused(
    forward: Callable, backward: Callable, then: Callable, inputs: tuple, name: str, geometry: Geometry
) -> Tensor:
    """A convolution and what a kernel does after it in the same pass: the bias, the activation, and `then`.

    Args:
        forward: returns the output and what `backward` takes after x and kernel, first what is kept of the activation.
        inputs: x, kernel and bias.
    """
    x, kernel, bias = inputs
    output, saved, *more = forward(x.array, kernel.array, raw(bias), name, *geometry)
    if name == "linear":
        saved = None  # any array will do for its derivative

    def vjp(grad: Tensor) -> tuple:
        kept = grad.array if saved is None else saved
        needed = (x.requires_grad, kernel.requires_grad, bias is not None and bias.requires_grad)
        grads = backward(grad.array, x.array, kernel.array, kept, *more, name, needed, *geometry)
        return tuple(None if g is None else wrap(g) for g in grads)

    def composite(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        return then(fused_activation(_convolve(x, kernel, geometry), name, bias))

    return record(output, inputs, with_composite(vjp, composite, inputs))


def _convolve(x: Tensor, kernel: Tensor, geometry: Geometry) -> Tensor:
    size, window = x.shape[1:3], kernel.shape[:2]
    return record(
        kernels.convolution(x.array, kernel.array, None, "linear", *geometry)[0],
        (x, kernel),
        (
            lambda grad: _data_gradient(grad, kernel, size, geometry),
            lambda grad: _kernel_gradient(x, grad, window, geometry),
        ),
    )


def _data_gradient(grad: Tensor, kernel: Tensor, size: tuple, geometry: Geometry) -> Tensor:
    window = kernel.shape[:2]
    return record(
        kernels.convolution_data_gradient(grad.array, kernel.array, size, *geometry),
        (grad, kernel),
        (
            lambda x: _convolve(x, kernel, geometry),
            lambda x: _kernel_gradient(x, grad, window, geometry),
        ),
    )


def _kernel_gradient(x: Tensor, grad: Tensor, window: tuple, geometry: Geometry) -> Tensor:
    size = x.shape[1:3]
    return record(
        kernels.convolution_kernel_gradient(x.array, grad.array, window, *geometry),
        (x, grad),
        (
            lambda kernel: _data_gradient(grad, kernel, size, geometry),
            lambda kernel: _convolve(x, kernel, geometry),
        ),
    )


def _placed(
    x: Any, kernel: Any, strides: Any, padding: Any, dilation: Any, groups: int
) -> tuple[Tensor, Tensor, Geometry]:
    """The operands of `conv2d`, checked, and how one lies on the other."""
    x, kernel = _operands(x, kernel)
    if x.ndim != 4 or kernel.ndim != 4:
        raise ValueError(
            "conv2d: expected x (batch, height, width, channels) and kernel (kernel_height, kernel_width, "
            f"channels / groups, filters), got {x.shape} and {kernel.shape}"
        )
    if groups < 1 or kernel.shape[2] * groups != x.shape[3] or kernel.shape[3] % groups:
        raise ValueError(
            f"conv2d: a kernel of shape {kernel.shape} in {groups} groups does not go with {x.shape[3]} channels: "
            "it needs channels / groups inputs, and filters that divide by groups"
        )
    strides, dilation = windows.numbers(strides, 2, "strides"), windows.numbers(dilation, 2, "dilation")
    window = kernel.shape[:2]
    padding = windows.padding_pairs(padding, x.shape[1:3], window, strides, dilation)
    windows.require_fit(x.shape[1:3], window, padding, dilation)
    return x, kernel, Geometry(strides, padding, dilation, groups)


def _operands(x: Any, kernel: Any) -> tuple[Tensor, Tensor]:
    """Both as floating Tensors of one dtype."""
    x, kernel = map(floating, together(x, kernel))
    if x.dtype != kernel.dtype:
        common = np.result_type(x.dtype, kernel.dtype)
        x, kernel = astype(x, common), astype(kernel, common)
    return x, kernel
