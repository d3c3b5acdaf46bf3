"""The mean of an array, such as that of a loss over a batch, and its transpose."""

from dlgpu.backend.dispatch import array_namespace, kernel


@kernel
def mean_of_all(x):
    """sum(x) / size for a floating x of any shape: (), of its dtype."""
    return array_namespace(x).asarray(x.mean())


@kernel
def spread(value, count, shape):
    """value / count everywhere in `shape`, for a floating value (), which need not become an array of its own."""
    return array_namespace(value).broadcast_to(value / count, shape)
