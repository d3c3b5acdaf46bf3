"""Pooling of channels-last images: the largest value or the mean of each window, and their transposed maps.

All take the window's (height, width), strides and padding ((top, bottom), (left, right)); what lies in the padding does
not count. Each window must see some of the input. The batch goes through in blocks that stay in cache.
"""

from dlgpu.backend import windows
from dlgpu.backend.dispatch import array_namespace, kernel


@kernel
def max_pool(x, window, strides, padding):
    """y[n, o, p, c] = the largest x in the window of (o, p), NaN if there is one, and where it is.

    Args:
        x: (batch, height, width, channels).
    Returns:
        values (batch, output height, output width, channels) of x's dtype; indices of that shape, integers: the place
        in the window, row by row, of the first largest value, or of the first NaN if there is one.
    """
    xp = array_namespace(x)
    size = windows.output_size(x.shape[1:3], window, strides, padding)
    shape = (len(x), *size, x.shape[3])
    padded = any(map(any, padding))
    values = xp.full(shape, _lowest(xp, x.dtype), x.dtype) if padded else xp.empty(shape, x.dtype)
    indices = xp.zeros(shape, xp.uint8 if window[0] * window[1] <= 256 else xp.int32)
    if padded:  # begin at the first value in the input: a window may hold only -inf
        top, left = (xp.maximum(pad[0] - stride * xp.arange(n), 0) for n, stride, pad in zip(size, strides, padding))
        indices[...] = (top[:, None] * window[1] + left)[:, :, None]
    for block in windows.batch_blocks(len(x), x.nbytes // max(1, len(x))):
        for k, (_, _, place, source) in enumerate(windows.taps(x.shape[1:3], window, strides, padding)):
            candidate = xp.ascontiguousarray(x[block][source])
            value, index = values[block][place], indices[block][place]
            if k == 0 and not padded:
                value[...] = candidate
                continue
            better = candidate <= value  # false for NaN on either side
            xp.logical_not(better, out=better)
            better &= value == value
            # k only grows; a masked copy is several times slower
            xp.maximum(index, better.view(xp.uint8) * index.dtype.type(k), out=index)
            xp.maximum(value, candidate, out=value)
    return values, indices


@kernel
def max_pool_scatter(grad, indices, size, window, strides, padding):
    """The gradient of max_pool by x: each value of grad goes to where its window's largest value was.

    Args:
        grad: (batch, output height, output width, channels).
        indices: of that shape, from `max_pool`.
        size: (height, width) of x.
    Returns:
        (batch, height, width, channels).
    """
    xp = array_namespace(grad)
    out = xp.empty((len(grad), *size, grad.shape[3]), grad.dtype)
    overlapping = window[0] > strides[0] or window[1] > strides[1]
    for block in windows.batch_blocks(len(out), out.nbytes // max(1, len(out))):
        out[block] = 0  # here and not before the loop, so that the block is in cache
        for k, (_, _, place, source) in enumerate(windows.taps(size, window, strides, padding)):
            target, chosen = out[block][source], indices[block][place] == k
            if overlapping:
                target += _only(xp, grad[block][place], chosen)
            else:
                _only(xp, grad[block][place], chosen, out=target)
    return out


@kernel
def max_pool_gather(x, indices, window, strides, padding):
    """The values of x at `indices`: the transpose of `max_pool_scatter`.

    Args:
        x: (batch, height, width, channels).
        indices: (batch, output height, output width, channels), from `max_pool`.
    Returns:
        (batch, output height, output width, channels).
    """
    xp = array_namespace(x)
    out = xp.zeros(indices.shape, x.dtype)
    for k, (_, _, place, source) in enumerate(windows.taps(x.shape[1:3], window, strides, padding)):
        target = out[place]
        target += _only(xp, x[source], indices[place] == k)
    return out


@kernel
def average_pool(x, window, strides, padding):
    """y[n, o, p, c] = the mean of x over the part of the window of (o, p) that lies in the input.

    Args:
        x: (batch, height, width, channels), floating.
    Returns:
        (batch, output height, output width, channels).
    """
    xp = array_namespace(x)
    size = windows.output_size(x.shape[1:3], window, strides, padding)
    out = xp.zeros((len(x), *size, x.shape[3]), x.dtype)
    for block in windows.batch_blocks(len(x), x.nbytes // max(1, len(x))):
        for _, _, place, source in windows.taps(x.shape[1:3], window, strides, padding):
            target = out[block][place]
            target += x[block][source]
    out /= _counts(xp, x.shape[1:3], size, window, strides, padding).astype(x.dtype)
    return out


@kernel
def average_pool_gradient(grad, size, window, strides, padding):
    """The gradient of average_pool by x: each value of grad, in equal shares to what its window sees.

    Args:
        grad: (batch, output height, output width, channels).
        size: (height, width) of x.
    Returns:
        (batch, height, width, channels).
    """
    xp = array_namespace(grad)
    out = xp.empty((len(grad), *size, grad.shape[3]), grad.dtype)
    share = grad / _counts(xp, size, grad.shape[1:3], window, strides, padding).astype(grad.dtype)
    for block in windows.batch_blocks(len(out), out.nbytes // max(1, len(out))):
        out[block] = 0
        for _, _, place, source in windows.taps(size, window, strides, padding):
            target = out[block][source]
            target += share[block][place]
    return out


def _only(xp, values, chosen, out=None):
    """values where chosen, else 0: their bits times 1 or 0, as NaN times 0 is NaN."""
    bits = f"u{values.dtype.itemsize}"
    return xp.multiply(values.view(bits), chosen, out=None if out is None else out.view(bits)).view(values.dtype)


def _lowest(xp, dtype):
    """The value that no other one of the dtype is below."""
    if dtype.kind in "iu":
        return xp.iinfo(dtype).min
    return False if dtype.kind == "b" else -xp.inf


def _counts(xp, size, outputs, window, strides, padding):
    """(output height, output width, 1): how many values of the input each window sees."""
    rows, columns = (
        xp.minimum(start + window[a], size[a]) - xp.maximum(start, 0)
        for a, start in enumerate(xp.arange(outputs[a]) * strides[a] - padding[a][0] for a in (0, 1))
    )
    return (rows[:, None] * columns)[:, :, None]
