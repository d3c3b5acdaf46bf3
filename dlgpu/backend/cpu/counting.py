"""An epoch's sums on the CPU: one call for what would be several on arrays of 32 values."""

from dlgpu.backend.cpu.arrays import by_reference, compiled, contiguous
from dlgpu.backend.cpu.jit import jit
from dlgpu.backend.recorder import call
from dlgpu.backend.reference import counting as reference


@reference.add_scaled.on("cpu")
def add_scaled(total, value, factor):
    if not compiled(value) or total.dtype.char != "d":
        return by_reference(reference.add_scaled, total, value, factor)
    call(_add_scaled, total, value.reshape(()), factor)


@reference.add_binary_matches.on("cpu")
def add_binary_matches(total, count, y_true, y_pred, threshold):
    if not compiled(y_pred) or total.dtype.char != "d" or y_true.dtype.char == "e" or not y_pred.size:
        return by_reference(reference.add_binary_matches, total, count, y_true, y_pred, threshold)
    y_true, y_pred = contiguous(y_true), contiguous(y_pred)
    call(_add_binary_matches, total, count, y_true.reshape(-1), y_pred.reshape(-1), float(threshold), len(y_pred))


@jit
def _add_scaled(total, value, factor):
    total[()] += value[()] * factor


@jit
def _add_binary_matches(total, count, y_true, y_pred, threshold, samples):
    limit, matches = y_pred.dtype.type(threshold), 0
    for i in range(y_pred.size):
        matches += (y_pred[i] > limit) == y_true[i]
    total[()] += matches / (y_pred.size / samples)
    count[()] += samples
