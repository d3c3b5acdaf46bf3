"""Convolution of channels-last images with bias and activation, and the transposed maps that are its derivatives.

All take strides, padding ((top, bottom), (left, right)), dilation and groups: the channels and the filters are cut
into `groups` equal parts, and each part of the filters sees only its part of the channels.

The batch goes through in blocks, so that what is made of a block is still in cache when it is used.
"""

from dlgpu.backend import windows
from dlgpu.backend.dispatch import array_namespace, kernel
from dlgpu.backend.reference.activation import FROM_INPUT, activation_backward, bias_activation
from dlgpu.backend.reference.pooling import max_pool, max_pool_scatter

POOLING = (2, 2), (2, 2), ((0, 0), (0, 0))  # window, strides and padding of what may follow in the same pass


@kernel
def convolution(x, kernel, bias, name, strides, padding, dilation, groups):
    """activation(z + bias), where z is the convolution (a cross-correlation, as everywhere in deep learning)

    z[n, o, p, f] = sum_{i, j, c} x[n, o * stride + i * dilation - top, ..., c] * kernel[i, j, c, f]

    with zeros outside of x.

    Args:
        x: (batch, height, width, channels), floating.
        kernel: (kernel_height, kernel_width, channels / groups, filters), of x's dtype.
        bias: (filters,), or None.
        name: one of activation.NAMES.
    Returns:
        output (batch, output height, output width, filters), and what the backward needs, as in `bias_activation`.
    """
    xp = array_namespace(x)
    window, filters = kernel.shape[:2], kernel.shape[3]
    size = windows.output_size(x.shape[1:3], window, strides, padding, dilation)
    output = xp.empty((len(x), *size, filters), x.dtype)
    saved = xp.empty_like(output) if name in FROM_INPUT else output
    weights = kernel.reshape(-1, groups, filters // groups).swapaxes(0, 1)
    for block, columns in _unfolded(x, window, size, strides, padding, dilation, groups):
        z = saved[block]
        xp.matmul(columns, weights, out=_by_group(z, groups))
        activated, _ = bias_activation(z, bias, name, overwrite=True)
        if activated is not z:
            output[block] = activated
    return output, saved


@kernel(composed=True)
def convolution_pooled(x, kernel, bias, name, strides, padding, dilation, groups):
    """The largest value of `convolution` in each window of 2 x 2, as in `max_pool`.

    Args:
        x, kernel, bias, name: as for `convolution`, whose output must be 2 x 2 at least.
    Returns:
        values (batch, output height // 2, output width // 2, filters); what the backward needs of the activation, as in
        `bias_activation`, for all that is pooled or for these values alone; and their indices, as in `max_pool`.
    """
    return pooled(*convolution(x, kernel, bias, name, strides, padding, dilation, groups))


def pooled(output, saved):
    """What `convolution_pooled` returns, of what `convolution` does."""
    values, indices = max_pool(output, *POOLING)
    return values, saved, indices


def convolution_pooled_backward(grad, x, kernel, saved, indices, name, needed, strides, padding, dilation, groups):
    """The gradients of `convolution_pooled` by x, kernel and bias, by other kernels.

    Args:
        grad: (batch, output height // 2, output width // 2, filters).
        x, kernel, saved, indices, name: as given to and returned by `convolution_pooled`.
        needed: three booleans; a gradient that is not needed is None.
    """
    geometry = strides, padding, dilation, groups
    size = windows.output_size(x.shape[1:3], kernel.shape[:2], strides, padding, dilation)
    if name != "linear" and saved.shape == indices.shape:
        grad, name = activation_backward(grad, saved, name), "linear"
    grad = max_pool_scatter(grad, indices, size, *POOLING)
    return convolution_backward(grad, x, kernel, grad if name == "linear" else saved, name, needed, *geometry)


@kernel
def convolution_backward(grad, x, kernel, saved, name, needed, strides, padding, dilation, groups):
    """The gradients of `convolution` by x, kernel and bias, from dz = grad * activation'(z + bias).

    Args:
        grad: (batch, output height, output width, filters).
        x, kernel, saved, name: as given to and returned by `convolution`.
        needed: three booleans; a gradient that is not needed is None.
    """
    xp = array_namespace(grad)
    window, filters = kernel.shape[:2], kernel.shape[3]
    grad_x = xp.empty(x.shape, x.dtype) if needed[0] else None
    grad_kernel = _zero_weights(xp, kernel.shape, groups, x.dtype) if needed[1] else None
    grad_bias = xp.zeros(filters, x.dtype) if needed[2] else None
    for block, columns in _unfolded(x, window, grad.shape[1:3], strides, padding, dilation, groups, needed[1]):
        grad_z = xp.ascontiguousarray(activation_backward(grad[block], saved[block], name))
        if needed[0]:
            _spread(grad_z, kernel, grad_x[block], strides, padding, dilation, groups)
        if needed[1]:
            grad_kernel += xp.matmul(columns.swapaxes(1, 2), _by_group(grad_z, groups))
        if needed[2]:  # the product with ones is a fast sum over rows
            grad_bias += xp.ones(grad_z.size // filters, x.dtype) @ grad_z.reshape(-1, filters)
    return grad_x, _as_kernel(grad_kernel, kernel.shape) if needed[1] else None, grad_bias


@kernel
def convolution_data_gradient(grad, kernel, size, strides, padding, dilation, groups):
    """The gradient of z by x, also called transposed convolution: each value of grad spreads the kernel around it.

    dx[n, o * stride + i * dilation - top, ..., c] += grad[n, o, p, f] * kernel[i, j, c, f]

    Args:
        grad: (batch, output height, output width, filters).
        kernel: (kernel_height, kernel_width, channels / groups, filters).
        size: (height, width) of x.
    Returns:
        (batch, height, width, channels).
    """
    xp = array_namespace(grad)
    out = xp.empty((len(grad), *size, kernel.shape[2] * groups), grad.dtype)
    for block in windows.batch_blocks(len(out), max(out.nbytes, grad.nbytes) // max(1, len(out))):
        _spread(xp.ascontiguousarray(grad[block]), kernel, out[block], strides, padding, dilation, groups)
    return out


@kernel
def convolution_kernel_gradient(x, grad, window, strides, padding, dilation, groups):
    """The gradient of z by the kernel.

    dkernel[i, j, c, f] = sum_{n, o, p} x[n, o * stride + i * dilation - top, ..., c] * grad[n, o, p, f]

    Args:
        x: (batch, height, width, channels).
        grad: (batch, output height, output width, filters).
        window: (kernel_height, kernel_width).
    Returns:
        (kernel_height, kernel_width, channels / groups, filters).
    """
    xp = array_namespace(x)
    shape = (*window, x.shape[3] // groups, grad.shape[3])
    total = _zero_weights(xp, shape, groups, grad.dtype)
    for block, columns in _unfolded(x, window, grad.shape[1:3], strides, padding, dilation, groups):
        total += xp.matmul(columns.swapaxes(1, 2), _by_group(xp.ascontiguousarray(grad[block]), groups))
    return _as_kernel(total, shape)


def _spread(grad, kernel, out, strides, padding, dilation, groups):
    """Write the data gradient of a block to `out`: one product and one shifted sum for each place in the kernel."""
    xp = array_namespace(grad)
    out[...] = 0
    height, width, part, filters = kernel.shape
    rows = _by_group(grad, groups)
    weights = kernel.reshape(height, width, part, groups, filters // groups).transpose(0, 1, 3, 4, 2)
    for i, j, source, place in windows.taps(out.shape[1:3], (height, width), strides, padding, dilation):
        product = xp.matmul(rows, weights[i, j]).swapaxes(0, 1).reshape(*grad.shape[:3], part * groups)
        target = out[place]
        target += product[source]


def _unfolded(x, window, size, strides, padding, dilation, groups, wanted=True):
    """Blocks of the batch, each with the values that its windows see (im2col).

    Yields:
        slice of the batch; one row for each window (groups, samples * output height * output width, kernel_height *
        kernel_width * channels / groups), or None where they are not wanted.
    """
    xp = array_namespace(x)
    height, width, channels = x.shape[1:]
    (top, bottom), (left, right) = padding
    count = window[0] * window[1] * (channels // groups)
    for block in windows.batch_blocks(len(x), size[0] * size[1] * count * groups * x.itemsize):
        if not wanted:
            yield block, None
            continue
        part = x[block]
        if top or bottom or left or right:
            part = xp.zeros((len(part), height + top + bottom, width + left + right, channels), x.dtype)
            part[:, top : top + height, left : left + width] = x[block]
        n, h, w, c = part.strides
        shape = (len(part), *size, *window, groups, channels // groups)
        strided = (n, h * strides[0], w * strides[1], h * dilation[0], w * dilation[1], c * (channels // groups), c)
        seen = xp.lib.stride_tricks.as_strided(part, shape, strided)
        if channels // groups > 4:
            yield block, seen.transpose(5, 0, 1, 2, 3, 4, 6).reshape(groups, -1, count)
        else:  # rows would be copied in runs too short to be fast: copy columns
            yield block, seen.transpose(5, 3, 4, 6, 0, 1, 2).reshape(groups, count, -1).swapaxes(1, 2)


def _by_group(images, groups):
    """(batch, height, width, channels) seen as (groups, batch * height * width, channels / groups)."""
    return images.reshape(-1, groups, images.shape[3] // groups).swapaxes(0, 1)


def _zero_weights(xp, shape, groups, dtype):
    """Zeros for a kernel of this shape, each group's (height * width * channels, filters) together."""
    return xp.zeros((groups, shape[0] * shape[1] * shape[2], shape[3] // groups), dtype)


def _as_kernel(weights, shape):
    """The kernel of this shape from its weights by group."""
    return weights.swapaxes(0, 1).reshape(shape)
