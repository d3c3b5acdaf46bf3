"""Stand-in for `cupy.cuda`: two devices that compute on the host, and streams whose order is checked."""

import functools
import time

import numpy as np

from cupy import _graph, _order
from cupy._graph import Graph
from cupy.cuda import compiler, memory, runtime
from cupy.cuda.memory import Memory, MemoryPointer, MemoryPool, using_allocator

MULTIPROCESSORS = 2


class Device:
    """A device; in a `with`, the current one."""

    def __init__(self, device=None):
        self.id = _order.local.device if device is None else getattr(device, "id", device)
        if not 0 <= self.id < runtime.getDeviceCount():
            raise runtime.CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self._before = []

    def use(self):
        _order.local.device = self.id

    def __enter__(self):
        self._before.append(_order.local.device)
        self.use()
        return self

    def __exit__(self, *exception):
        _order.local.device = self._before.pop()

    @property
    def attributes(self):
        from dlgpu.backend.emulator import launcher

        return {
            "ComputeCapabilityMajor": 9,
            "ComputeCapabilityMinor": 0,
            "ClockRate": 1000,
            "MultiProcessorCount": MULTIPROCESSORS,
            "MaxSharedMemoryPerBlockOptin": launcher.SHARED,
        }

    @property
    def compute_capability(self):
        return "90"

    def synchronize(self):
        _graph.capturing("waiting for a device")
        _order.local.waits += 1
        for line in list(Stream.lines):
            _order.wait(line.clock)

    def __int__(self):
        return self.id

    def __eq__(self, other):
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self):
        return hash(self.id)

    def __repr__(self):
        return f"<CUDA Device {self.id}>"


class Stream:
    """A line of work. Those made with non_blocking, and only those are offered, know nothing of the null stream."""

    lines = []

    def __init__(self, null=False, non_blocking=False, ptds=False, priority=None):
        if not (null or non_blocking) or ptds:
            raise NotImplementedError("the stand-in has the null stream and non-blocking ones")
        self._line = _order.Line(_order.local.device)
        self.lines.append(self._line)
        self.device_id = _order.local.device
        self.ptr = 0 if null else self._line.number + 1
        self._before = []

    def __enter__(self):
        self._before.append(_order.local.streams.get(_order.local.device))
        _order.local.streams[_order.local.device] = self
        return self

    def __exit__(self, *exception):
        _order.local.streams[_order.local.device] = self._before.pop()

    def record(self, event=None):
        event = event or Event()
        event._clock, event._time = dict(self._line.clock), time.perf_counter()
        return event

    def begin_capture(self, mode=None):
        if not self.ptr or _order.local.capture is not None:
            raise runtime.CUDARuntimeError("cudaErrorStreamCaptureUnsupported: the legacy stream, or one too many")
        _order.local.capture = _graph.Capture(self)

    def end_capture(self):
        capture, _order.local.capture = _order.local.capture, None
        if capture is None or capture.stream is not self:
            raise runtime.CUDARuntimeError("cudaErrorIllegalState: the operation cannot be performed in this state")
        if capture.broken:
            raise runtime.CUDARuntimeError(
                "cudaErrorStreamCaptureInvalidated: operation failed due to an earlier error"
            )
        return Graph(capture.notes, capture.pools, capture.lent, capture.nodes)

    def is_capturing(self):
        return _order.local.capture is not None and _order.local.capture.stream is self

    def wait_event(self, event):
        _order.learn(self._line.clock, event._clock)

    def synchronize(self):
        _graph.capturing("waiting for a stream")
        _order.local.waits += 1
        _order.wait(self._line.clock)


class Event:
    """A place in a line of work, to wait for."""

    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self._clock, self._time, self._timed = {}, None, not disable_timing

    def record(self, stream=None):
        (stream or _null(_order.local.device)).record(self)

    def synchronize(self):
        _graph.capturing("waiting for an event")
        _order.local.waits += 1
        _order.wait(self._clock)


def get_elapsed_time(start_event, end_event):
    for event in (start_event, end_event):
        if event._time is None or not event._timed:
            raise runtime.CUDARuntimeError("cudaErrorInvalidResourceHandle: invalid resource handle")
        if any(_order.host.get(number, 0) < count for number, count in event._clock.items()):
            raise runtime.CUDARuntimeError("cudaErrorNotReady: device not ready")
    return (end_event._time - start_event._time) * 1e3


class PinnedMemoryPointer(bytearray):
    """Page-locked memory of the host. As in CuPy it may be larger than was asked for."""


class PinnedMemoryPool:
    def malloc(self, size):
        return PinnedMemoryPointer(b"\xa5" * max(512, -(-size // 512) * 512))


default_pinned_memory_pool = PinnedMemoryPool()
_pinned = [default_pinned_memory_pool.malloc]


def alloc_pinned_memory(size):
    return _pinned[-1](size)


def set_pinned_memory_allocator(allocator=None):
    _pinned[:] = [allocator or PinnedMemoryPool().malloc]


def is_pinned(array):
    """Whether a NumPy array lies in pinned memory."""
    while isinstance(array, (np.ndarray, memoryview)):
        array = array.base if isinstance(array, np.ndarray) else array.obj
    return isinstance(array, PinnedMemoryPointer)


def get_current_stream(device_id=-1):
    device = _order.local.device if device_id < 0 else device_id
    return _order.local.streams.get(device) or _null(device)


@functools.cache
def _null(device):
    """The stream on which a device works unless another one is named."""
    with Device(device):
        return Stream(null=True)
