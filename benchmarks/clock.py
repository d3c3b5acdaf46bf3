"""How long work takes on the current device, and what the device could do at best.

On a GPU the same work is captured many times into one graph, so that what is timed by CUDA's events is the device's
time and not the host's; what cannot be captured is timed as the host launches it. Elsewhere the host's clock counts.
"""

import contextlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import dlgpu

LAUNCHES = 5
COPIED = 1 << 28  # bytes: more than any cache holds
# Fused multiply-adds in a clock of a multiprocessor, dense, by compute capability: float32 as NVIDIA's programming
# guide has them, tensor cores as the architectures' white papers have them (TF32, float16 and bfloat16).
FMA = {
    (7, 5): (64, 0, 512),
    (8, 0): (64, 512, 1024),
    (8, 6): (128, 128, 256),
    (8, 9): (128, 256, 512),
    (9, 0): (128, 1024, 2048),
    (10, 0): (128, 1024, 2048),
    (12, 0): (128, 256, 512),
}


def milliseconds(call: Callable[[], Any], repeats: int = 20) -> float:
    """The median time of a call, after one that is not counted."""
    call()
    if dlgpu.current_device().on_host:
        return statistics.median(_seconds(call) for _ in range(repeats)) * 1e3
    import cupy

    graph = captured(call, repeats)
    times = []
    for _ in range(LAUNCHES):
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        begin.record(cupy.cuda.get_current_stream())
        if graph is not None:
            graph[0].launch()
        else:
            for _ in range(repeats):
                call()
        end.record(cupy.cuda.get_current_stream())
        end.synchronize()
        times.append(cupy.cuda.get_elapsed_time(begin, end))
    return statistics.median(times) / repeats


def captured(call: Callable[[], Any], repeats: int) -> tuple | None:
    """A graph of so many calls and the memory that it needs; None if they cannot be captured."""
    import cupy

    pool, stream = cupy.cuda.MemoryPool(), cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()  # the other stream knows of no work before
    with stream, cupy.cuda.using_allocator(pool.malloc):
        stream.begin_capture()
        try:
            for _ in range(repeats):
                call()
        except Exception:
            with contextlib.suppress(Exception):  # it says again that the capture is lost, but must be called
                stream.end_capture()
            return None
        return stream.end_capture(), pool


def _seconds(call: Callable) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def copy_bandwidth() -> float:
    """Bytes a second of a copy from array to array, each byte read once and written once."""
    device = dlgpu.current_device()
    size = COPIED >> 3 if device.on_host else COPIED
    source, target = (device.asarray(np.zeros(size // 4, np.float32)) for _ in range(2))

    def copy() -> None:
        target[...] = source

    return 2 * size / milliseconds(copy, 5) * 1e3


def peaks() -> dict[str, float]:
    """Operations a second of a GPU by "float32", "tf32" and "16 bit", a multiply-add as two; empty where unknown."""
    device = dlgpu.current_device()
    if device.on_host:
        return {}
    import cupy

    attributes = cupy.cuda.Device(device.index).attributes
    capability = attributes["ComputeCapabilityMajor"], attributes["ComputeCapabilityMinor"]
    clocks = attributes["MultiProcessorCount"] * attributes["ClockRate"] * 1e3  # ClockRate is in kHz
    return {
        kind: 2.0 * fma * clocks for kind, fma in zip(("float32", "tf32", "16 bit"), FMA.get(capability, ())) if fma
    }
