"""What a step adds to an epoch's sums, which are float64: float32 cannot count past 2**24 samples."""

import numpy as np

from dlgpu.backend.dispatch import array_namespace, kernel


@kernel
def add_scaled(total, value, factor):
    """total += factor value

    Args:
        total: () float64.
        value: an array of one element.
        factor: a number.
    """
    total += value.astype(total.dtype).reshape(()) * factor


@kernel
def add_binary_matches(total, count, y_true, y_pred, threshold):
    """total += the share of each sample's values for which (y_pred > threshold) == y_true; count += the samples.

    Args:
        total, count: () float64.
        y_true, y_pred: labels and predictions of one shape, (samples, ...), samples > 0.
        threshold: a number.
    """
    matches = (y_pred > threshold) == y_true
    total += array_namespace(matches).count_nonzero(matches) / (matches.size / len(matches))
    count += len(matches)


@kernel
def count_each(places, length):
    """How often each of 0 ... length - 1 is among `places`: (length,) int64.

    Args:
        places: (n,), integers in [0, length).
    """
    return array_namespace(places).bincount(places, minlength=length).astype(np.int64, copy=False)
