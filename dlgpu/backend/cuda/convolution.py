"""Convolution on CUDA: tiles of an implicit matrix product, or one thread a result where a group has few columns."""

from dlgpu.backend.cuda.geometry import BLOCK, blocks_for, contiguous, empty
from dlgpu.backend.cuda.source import source
from dlgpu.backend.reference import convolution as reference
from dlgpu.backend.reference.activation import FROM_INPUT, activation_backward
from dlgpu.backend.windows import output_size

SIDE = 64  # of a tile of results, as in convolution.cu
FEW = 16  # columns of a group, below which a tile would be too empty
ENOUGH_BLOCKS = 512  # to keep every multiprocessor busy
LEAST_SLICE = 256  # pixels; shorter ones cost more to write and sum than they win


@reference.convolution.on("cuda")
def convolution(x, kernel, bias, name, strides, padding, dilation, groups):
    size = output_size(x.shape[1:3], kernel.shape[:2], strides, padding, dilation)
    filters = kernel.shape[3]
    output = empty(x, (len(x), *size, filters))
    z = empty(x, output.shape) if name in FROM_INPUT else None
    tiles = _tiles(len(x) * size[0] * size[1]) * _tiles(filters // groups) * groups
    _launch(
        "convolution_forward",
        _by_line(output) if _few(filters, groups) else (tiles, BLOCK),
        (contiguous(x), contiguous(kernel), None if bias is None else contiguous(bias), output, z),
        (x.shape, output.shape, kernel.shape, strides, padding, dilation, groups),
        name,
        _few(filters, groups),
    )
    return output, (output if z is None else z)


@reference.convolution_backward.on("cuda")
def convolution_backward(grad, x, kernel, saved, name, needed, strides, padding, dilation, groups):
    grad_z = grad if name == "linear" else activation_backward(grad, saved, name)
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
    channels = kernel.shape[2] * groups
    grad_x = empty(grad, (len(grad), *size, channels))
    # One tile's pixels lie a stride apart; there are stride * stride ways to do so, the first having the most pixels.
    pixels = len(grad) * -(-size[0] // strides[0]) * -(-size[1] // strides[1])
    tiles = _tiles(pixels) * strides[0] * strides[1] * _tiles(channels // groups) * groups
    _launch(
        "convolution_data",
        _by_line(grad_x) if _few(channels, groups) else (tiles, BLOCK),
        (contiguous(grad), contiguous(kernel), grad_x),
        (grad_x.shape, grad.shape, kernel.shape, strides, padding, dilation, groups),
        name,
        _few(channels, groups),
    )
    return grad_x


def _weight_gradients(x, grad, window, needed, strides, padding, dilation, groups, name="linear"):
    """The gradients of kernel and bias, None for what is not needed, from one pass over the pixels."""
    filters, shape = grad.shape[3], (*window, x.shape[3] // groups, grad.shape[3])
    pixels = len(grad) * grad.shape[1] * grad.shape[2]
    rows = shape[0] * shape[1] * shape[2] if needed[0] else 0
    few = _few(filters, groups)
    blocks = (rows + 1) * -(-filters // 32) if few else max(1, _tiles(rows)) * _tiles(filters // groups) * groups
    length = max(LEAST_SLICE, -(-pixels * blocks // ENOUGH_BLOCKS))
    slices = max(1, -(-pixels // length))
    partial = empty(x, (slices, rows + 1, filters), "float64" if x.dtype == "float64" else "float32")
    _launch(
        "convolution_weights",
        ((rows + 1, -(-filters // 32), slices) if few else (blocks, slices), BLOCK),
        (contiguous(x), contiguous(grad), partial, rows, needed[1], length),
        (x.shape, grad.shape, shape, strides, padding, dilation, groups),
        name,
        few,
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


def _launch(kernel, grid_and_block, arrays, geometry, name, direct):
    """Launch one of the three kernels that share a geometry: shapes of image, output and kernel, strides and so on."""
    image, output, weights, strides, padding, dilation, groups = geometry
    grid, block = grid_and_block
    before = padding[0][0], padding[1][0]
    sizes = (*image, *output[1:], groups, *weights[:2], *strides, *before, *dilation)
    source("convolution.cu").launch(
        f"{kernel}_direct" if direct else kernel,
        grid=grid,
        block=block,
        args=(*arrays, *sizes),
        dtype=arrays[0].dtype,
        defines=(f"ACTIVATION={name}",),
    )


def _tiles(length):
    return -(-length // SIDE)


def _few(columns, groups):
    return groups > 1 and columns // groups < FEW


def _by_line(images):
    """Grid and block for one thread an element: a block lies within one line of an image."""
    batch, height, width, channels = images.shape
    block = min(BLOCK, max(1, -(-width * channels // 32)) * 32)
    return (batch * height, -(-width * channels // block)), block
