"""Normalization on CUDA: a team of threads a row; channels by tiles and chunks of rows, which are joined in order."""

from dlgpu.backend.cuda.geometry import BLOCK, contiguous, empty, empty_like, rows_geometry
from dlgpu.backend.cuda.source import source
from dlgpu.backend.reference import normalization as reference


@reference.batch_normalization.on("cuda")
def batch_normalization(x, scale, offset, epsilon, mask):
    rows, channels = x.shape
    x, mask = contiguous(x), _or_none(mask)
    mean, variance = empty(x, (channels,)), empty(x, (channels,))
    (tiles, chunks), block = _columns_geometry(rows, channels)
    partial = _accumulators(x, (chunks, 3, channels))
    _launch("batch_moments", (tiles, chunks), block, x.dtype, x, mask, partial, rows, channels)
    _launch("join_moments", tiles, block, x.dtype, partial, mean, variance, channels, chunks)
    return normalize(x, mean, variance, scale, offset, epsilon), mean, variance


@reference.batch_normalization_backward.on("cuda")
def batch_normalization_backward(grad, x, mean, variance, scale, epsilon, mask):
    rows, channels = x.shape
    grad, x, scale, mask = contiguous(grad), contiguous(x), _or_none(scale), _or_none(mask)
    statistics = (contiguous(mean), contiguous(variance))
    sums, grad_scale, grad_offset = _column_sums(grad, x, *statistics, mask, epsilon, by_row=False)
    grad_x = empty_like(x)
    _launch(
        "batch_normalization_backward",
        *_columns_geometry(rows, channels),
        x.dtype,
        *(grad, x, *statistics, scale, mask, sums, grad_x, rows, channels, epsilon),
    )
    return grad_x, grad_scale, grad_offset


@reference.normalize.on("cuda")
def normalize(x, mean, variance, scale, offset, epsilon):
    output = empty_like(x)
    arrays = (contiguous(x), contiguous(mean), contiguous(variance), _or_none(scale), _or_none(offset), output)
    _launch("normalize", *_columns_geometry(*x.shape), x.dtype, *arrays, *x.shape, epsilon)
    return output


@reference.layer_normalization.on("cuda")
def layer_normalization(x, scale, offset, epsilon):
    if not x.size:
        return reference.layer_normalization.reference(x, scale, offset, epsilon)
    output, mean, variance = empty_like(x), empty(x, x.shape[:1]), empty(x, x.shape[:1])
    arrays = (contiguous(x), _or_none(scale), _or_none(offset), output, mean, variance)
    _launch("layer_normalization", *rows_geometry(*x.shape), x.dtype, *arrays, *x.shape, epsilon)
    return output, mean, variance


@reference.layer_normalization_backward.on("cuda")
def layer_normalization_backward(grad, x, mean, variance, scale, epsilon):
    grad_x = empty_like(x)
    arrays = (contiguous(grad), contiguous(x), contiguous(mean), contiguous(variance))
    _launch(
        "layer_normalization_backward",
        *rows_geometry(*x.shape),
        x.dtype,
        *(*arrays, _or_none(scale), grad_x, *x.shape, epsilon),
    )
    _, grad_scale, grad_offset = _column_sums(*arrays, None, epsilon, by_row=True)
    return grad_x, grad_scale, grad_offset


def _column_sums(grad, x, mean, variance, mask, epsilon, by_row):
    """The rows that count, the sums of grad, and of grad * normalized, together (3, channels); and the last two."""
    rows, channels = x.shape
    (tiles, chunks), block = _columns_geometry(rows, channels)
    partial, sums = _accumulators(x, (chunks, 3, channels)), _accumulators(x, (3, channels))
    grad_scale, grad_offset = empty(x, (channels,)), empty(x, (channels,))
    args = (grad, x, mean, variance, mask, partial, rows, channels, epsilon, by_row)
    _launch("gradient_sums", (tiles, chunks), block, x.dtype, *args)
    _launch("join_gradients", tiles, block, x.dtype, partial, sums, grad_scale, grad_offset, channels, chunks)
    return sums, grad_scale, grad_offset


def _columns_geometry(rows, channels):
    """Grid (tiles of columns, chunks of rows) and block (columns, rows); a thread gets some rows if there are many."""
    width = min(32, 1 << max(0, channels - 1).bit_length())
    height = BLOCK // width
    tiles = -(-channels // width)
    chunks = min(-(-rows // (8 * height)), 1024 // max(1, tiles))
    return (tiles, max(1, chunks)), (width, height)


def _accumulators(x, shape):
    return empty(x, shape, "float64" if x.dtype == "float64" else "float32")


def _or_none(x):
    return None if x is None else contiguous(x)


def _launch(name, grid, block, dtype, *args):
    source("normalization.cu").launch(name, grid, block, args, dtype=dtype)
