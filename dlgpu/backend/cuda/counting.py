"""Histograms on CUDA: a thread a value. CuPy's own wait for the device, which a captured step cannot."""

import numpy as np

from dlgpu.backend.cuda.geometry import BLOCK, blocks_for, contiguous
from dlgpu.backend.cuda.source import source
from dlgpu.backend.dispatch import array_namespace
from dlgpu.backend.reference import counting as reference


@reference.count_each.on("cuda")
def count_each(places, length):
    counts = array_namespace(places).zeros(length, np.uint64)
    args = contiguous(places.astype(np.int64, copy=False)), counts, places.size
    source("counting.cu").launch("count_each", blocks_for(places.size), BLOCK, args)
    return counts.view(np.int64)
