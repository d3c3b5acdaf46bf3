"""Convolution on CUDA: tiles of an implicit matrix product, or one thread a result where a group has few columns.

Products of 16-bit numbers, and of float32 where TF32 is allowed, are taken on tensor cores, and by cuDNN where that is
installed and the faster.
"""

import math
from functools import partial

import numpy as np

from dlgpu.backend.cuda import cudnn
from dlgpu.backend.cuda.geometry import BLOCK, blocks_for, contiguous, empty, empty_wide
from dlgpu.backend.cuda.source import source
from dlgpu.backend.cuda.tensor_cores import Tile, blocks_of, launch, suits
from dlgpu.backend.reference import convolution as reference
from dlgpu.backend.reference.activation import FROM_INPUT, activation_backward
from dlgpu.backend.windows import output_size

PLAIN = Tile(64, 64, 16, 1)  # of convolution.cu
FEW = 16  # columns of a group, below which a tile would be too empty
ENOUGH_BLOCKS = 512  # to keep every multiprocessor busy
LEAST_SLICE = 256  # pixels; shorter ones cost more to write and sum than they win


@reference.convolution.on("cuda")
def convolution(x, kernel, bias, name, strides, padding, dilation, groups):
    size = output_size(x.shape[1:3], kernel.shape[:2], strides, padding, dilation)
    own = partial(_forward, x, kernel, bias, name, size, strides, padding, dilation, groups)
    return cudnn.forward(own, x, kernel, bias, name, size, strides, padding, dilation)


@reference.convolution_pooled.on("cuda")
def convolution_pooled(x, kernel, bias, name, strides, padding, dilation, groups):
    if _few(kernel.shape[3], groups):
        return reference.convolution_pooled.reference(x, kernel, bias, name, strides, padding, dilation, groups)
    size = output_size(x.shape[1:3], kernel.shape[:2], strides, padding, dilation)
    own = partial(_forward, x, kernel, bias, name, size, strides, padding, dilation, groups, pooled=True)
    return cudnn.forward(own, x, kernel, bias, name, size, strides, padding, dilation, then=reference.pooled)


def _forward(x, kernel, bias, name, size, strides, padding, dilation, groups, pooled=False):
    filters, window = kernel.shape[3], 2 if pooled else 1
    output = empty(x, (len(x), size[0] // window, size[1] // window, filters))
    z = empty(x, output.shape) if name in FROM_INPUT else None
    indices = (empty(x, output.shape, np.uint8),) if pooled else ()
    _launch(
        "convolution_pooled" if pooled else "convolution_forward",
        None if _few(filters, groups) else (math.prod(output.shape[:3]) * window**2, filters // groups, groups),
        (contiguous(x), contiguous(kernel), contiguous(bias), output, z, *indices),
        (x.shape, output.shape, kernel.shape, strides, padding, dilation, groups),
        name,
        _by_line(output),
    )
    return output, (output if z is None else z), *indices


@reference.convolution_backward.on("cuda")
def convolution_backward(grad, x, kernel, saved, name, needed, strides, padding, dilation, groups):
    grad_z = activation_backward(grad, saved, name)
    geometry = strides, padding, dilation, groups
    grad_x = _data_gradient(grad_z, kernel, x.shape[1:3], *geometry, name) if needed[0] else None
    if not needed[1] and not needed[2]:
        return grad_x, None, None
    return grad_x, *_weight_gradients(x, grad_z, kernel.shape[:2], needed[1:], *geometry, name)


@reference.convolution_data_gradient.on("cuda")
def convolution_data_gradient(grad, kernel, size, strides, padding, dilation, groups):
    return _data_gradient(grad, kernel, size, strides, padding, dilation, groups)


@reference.convolution_kernel_gradient.on("cuda")
def convolution_kernel_gradient(x, grad, window, strides, padding, dilation, groups):
    return _weight_gradients(x, grad, window, (True, False), strides, padding, dilation, groups)[0]


def _data_gradient(grad, kernel, size, strides, padding, dilation, groups, name="linear"):
    shape = len(grad), *size, kernel.shape[2] * groups
    own = partial(_own_data_gradient, grad, kernel, shape, strides, padding, dilation, groups, name)
    return cudnn.data_gradient(own, grad, kernel, shape, strides, padding, dilation)


def _own_data_gradient(grad, kernel, shape, strides, padding, dilation, groups, name):
    size, channels = shape[1:3], shape[3]
    grad_x = empty(grad, shape)
    # One tile's pixels lie a stride apart; there are stride * stride ways to do so, the first having the most pixels.
    pixels = len(grad) * -(-size[0] // strides[0]) * -(-size[1] // strides[1])
    _launch(
        "convolution_data",
        None if _few(channels, groups) else (pixels, channels // groups, strides[0] * strides[1] * groups),
        (contiguous(grad), contiguous(kernel), grad_x),
        (grad_x.shape, grad.shape, kernel.shape, strides, padding, dilation, groups),
        name,
        _by_line(grad_x),
    )
    return grad_x


def _weight_gradients(x, grad, window, needed, strides, padding, dilation, groups, name="linear"):
    """The gradients of kernel and bias, None for what is not needed."""
    geometry, shape = (strides, padding, dilation), (*window, x.shape[3] // groups, grad.shape[3])
    own = partial(_own_weight_gradients, x, grad, shape, geometry=(*geometry, groups), name=name)
    if not needed[0]:
        return own(needed=needed)
    of_bias = partial(own, needed=(False, True)) if needed[1] else None
    return cudnn.weight_gradients(partial(own, needed=needed), of_bias, x, grad, shape, *geometry)


def _own_weight_gradients(x, grad, shape, needed, geometry, name):
    """Those from one pass over the pixels."""
    filters, groups = grad.shape[3], geometry[-1]
    pixels = len(grad) * grad.shape[1] * grad.shape[2]
    rows = shape[0] * shape[1] * shape[2] if needed[0] else 0
    few, product = _few(filters, groups), (max(1, rows), filters // groups, groups)
    # by the sizes alone, so that sums are taken in the same order everywhere
    blocks = (rows + 1) * -(-filters // 32) if few else blocks_of(PLAIN, *product[:2]) * groups
    length = max(LEAST_SLICE, -(-pixels * blocks // ENOUGH_BLOCKS))
    slices = max(1, -(-pixels // length))
    partial = empty_wide(x, (slices, rows + 1, filters))
    _launch(
        "convolution_weights",
        None if few else product,
        (contiguous(x), contiguous(grad), partial, rows, needed[1], length),
        (x.shape, grad.shape, shape, *geometry),
        name,
        ((rows + 1, -(-filters // 32), slices), BLOCK),
        slices,
    )
    grad_kernel = empty(x, shape) if needed[0] else None
    grad_bias = empty(x, (filters,)) if needed[1] else None
    source("convolution.cu").launch(
        "convolution_weights_sum",
        grid=blocks_for(partial[0].size),
        block=BLOCK,
        args=(partial, grad_kernel, grad_bias, slices, rows, filters),
        dtype=x.dtype,
        defines=(f"ACTIVATION={name}",),
    )
    return grad_kernel, grad_bias


def _launch(kernel, product, arrays, geometry, name, direct, slices=1):
    """Launch one of the kernels that share a geometry: shapes of image, output and kernel, strides and so on.

    Args:
        product: rows and columns of the sums and how many such products there are; None for one thread a result.
        direct: grid and block of that.
        slices: in which the terms are summed.
    """
    image, output, weights, strides, padding, dilation, groups = geometry
    before = padding[0][0], padding[1][0]
    args = (*arrays, *image, *output[1:], groups, *weights[:2], *strides, *before, *dilation)
    if product is not None and suits(arrays[0]):
        runs = arrays[0].shape[-1] // groups, arrays[1].shape[-1] // groups
        launch(f"tensor_{kernel}", product, args, runs, name, slices)
        return
    grid, block = direct if product is None else ((blocks_of(PLAIN, *product[:2]) * product[2], slices), BLOCK)
    source("convolution.cu").launch(
        f"{kernel}_direct" if product is None else kernel,
        grid=grid,
        block=block,
        args=args,
        dtype=arrays[0].dtype,
        defines=(f"ACTIVATION={name}",),
    )


def _few(columns, groups):
    return groups > 1 and columns // groups < FEW


def _by_line(images):
    """Grid and block for one thread an element: a block lies within one line of an image."""
    batch, height, width, channels = images.shape
    block = min(BLOCK, max(1, -(-width * channels // 32)) * 32)
    return (batch * height, -(-width * channels // block)), block
