"""Normalization on CUDA: a team of threads a row; channels by tiles and chunks of rows, joined inside the launch."""

from dlgpu.backend.cuda.geometry import MAX_BLOCKS, contiguous, empty_like, empty_wide, rows_geometry
from dlgpu.backend.cuda.source import source
from dlgpu.backend.dispatch import array_namespace
from dlgpu.backend.reference import normalization as reference

THREADS = 512  # in a block, at most, as in the kernel
BLOCKS = 256  # for as many chunks of columns: enough to fill a GPU, few enough to join in every one of them
ROWS = 8  # that a thread sums up before it is worth another block


@reference.batch_normalization.on("cuda")
def batch_normalization(x, scale, offset, epsilon, mask):
    output, mean, variance = empty_like(x), empty_wide(x, x.shape[1:]), empty_wide(x, x.shape[1:])
    arrays = (contiguous(x), contiguous(mask), contiguous(scale), contiguous(offset), output, mean, variance)
    _by_columns("batch_normalization", x, arrays, epsilon, joins=True)
    return output, mean, variance


@reference.batch_normalization_backward.on("cuda")
def batch_normalization_backward(grad, x, mean, variance, scale, epsilon, mask):
    statistics = contiguous(mean), contiguous(variance), contiguous(scale), contiguous(mask)
    gradients = empty_like(x), empty_wide(x, x.shape[1:]), empty_wide(x, x.shape[1:])
    arrays = contiguous(grad), contiguous(x), *statistics, *gradients
    _by_columns("batch_normalization_backward", x, arrays, epsilon, joins=True)
    return gradients


@reference.normalize.on("cuda")
def normalize(x, mean, variance, scale, offset, epsilon):
    output = empty_like(x)
    arrays = (contiguous(x), contiguous(mean), contiguous(variance), contiguous(scale), contiguous(offset), output)
    _by_columns("normalize", x, arrays, epsilon, joins=False)
    return output


@reference.layer_normalization.on("cuda")
def layer_normalization(x, scale, offset, epsilon):
    if not x.size:
        return reference.layer_normalization.reference(x, scale, offset, epsilon)
    output, mean, variance = empty_like(x), empty_wide(x, x.shape[:1]), empty_wide(x, x.shape[:1])
    arrays = (contiguous(x), contiguous(scale), contiguous(offset), output, mean, variance)
    source("normalization.cu").launch(
        "layer_normalization", *rows_geometry(*x.shape), (*arrays, *x.shape, epsilon), dtype=x.dtype
    )
    return output, mean, variance


@reference.layer_normalization_backward.on("cuda")
def layer_normalization_backward(grad, x, mean, variance, scale, epsilon):
    gradients = empty_like(x), empty_wide(x, x.shape[1:]), empty_wide(x, x.shape[1:])
    arrays = contiguous(grad), contiguous(x), contiguous(mean), contiguous(variance), contiguous(scale), *gradients
    team = THREADS if x.shape[1] > 1024 else _tile(x.shape[1])
    _by_columns("layer_normalization_backward", x, arrays, epsilon, joins=True, team=team)
    return gradients


def _by_columns(kernel, x, arrays, epsilon, joins, team=None):
    """Launch a kernel that goes through chunks of columns.

    Args:
        kernel: its name.
        x: (rows, channels).
        arrays: the kernel's first arguments.
        epsilon: its last one.
        joins: whether it joins the chunks, for which its blocks wait for each other.
        team: the threads that share a row, if it goes through the rows too.
    """
    rows, channels = x.shape
    width = _tile(channels)
    threads = min(THREADS, max(32, team or 1, width << max(0, rows - 1).bit_length()))
    tiles = -(-channels // width)
    chunks = max(1, min(-(-rows * width // (ROWS * threads)), BLOCKS // max(1, tiles)))
    if joins:
        arrays = (*arrays, empty_wide(x, (chunks, channels, 3)), array_namespace(x).zeros(1, "uint32"))
    grid = tiles * chunks
    if team:
        grid = min(MAX_BLOCKS, max(grid, -(-rows * team // threads)))
    source("normalization.cu").launch(
        kernel,
        grid if channels else 0,
        (team, threads // team) if team else threads,
        (*arrays, rows, channels, chunks, width, epsilon),
        dtype=x.dtype,
        cooperative=joins,
    )


def _tile(columns):
    """The smallest power of two that holds the columns, up to 32."""
    return min(32, 1 << max(0, columns - 1).bit_length())
