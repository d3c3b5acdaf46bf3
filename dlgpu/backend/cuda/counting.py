"""What a step counts, on CUDA. CuPy's own histogram waits for the device, which a captured step cannot."""

import numpy as np

from dlgpu.backend.cuda.geometry import BLOCK, blocks_for, contiguous
from dlgpu.backend.cuda.source import STORAGE, source
from dlgpu.backend.dispatch import array_namespace
from dlgpu.backend.reference import counting as reference

ONE_BLOCK = 2**16  # values that one block looks at


@reference.add_scaled.on("cuda")
def add_scaled(total, value, factor):
    if total.dtype != np.float64 or value.dtype.name not in STORAGE:
        return reference.add_scaled.reference(total, value, factor)
    source("counting.cu").launch("add_scaled", 1, 1, (total, contiguous(value), factor), dtype=value.dtype)


@reference.add_binary_matches.on("cuda")
def add_binary_matches(total, count, y_true, y_pred, threshold):
    kinds = total.dtype.name, count.dtype.name, y_true.dtype.name
    if kinds != ("float64", "float64", y_pred.dtype.name) or kinds[2] not in STORAGE or y_pred.size > ONE_BLOCK:
        return reference.add_binary_matches.reference(total, count, y_true, y_pred, threshold)
    args = total, count, contiguous(y_true), contiguous(y_pred), threshold, len(y_pred), y_pred.size
    source("counting.cu").launch("add_binary_matches", 1, BLOCK, args, dtype=y_pred.dtype)


@reference.count_each.on("cuda")
def count_each(places, length):
    counts = array_namespace(places).zeros(length, np.uint64)
    args = contiguous(places.astype(np.int64, copy=False)), counts, places.size
    source("counting.cu").launch("count_each", blocks_for(places.size), BLOCK, args)
    return counts.view(np.int64)
