"""Capture and replay of graphs, as strict as CUDA's: what must not be captured raises, and nothing runs meanwhile.

While a stream captures, work on it is noted and not done: results hold garbage. A launch does all of it again on the
memory that was there then, in the order of the stream that it is launched on.
"""

import weakref

import numpy as np

from cupy import _order


class Graph:
    """What `end_capture` returns. Only the stand-in says how many `nodes`, kernels and copies, it has."""

    def __init__(self, notes, pools, lent, nodes):
        self._notes, self._pools, self._lent, self.nodes = notes, pools, lent, nodes

    def launch(self, stream=None):
        from cupy.cuda import get_current_stream

        line = (stream or get_current_stream())._line
        if _order.local.capture is not None:
            raise NotImplementedError("the stand-in launches no graph while it captures another")
        if any(pool() is None for pool in self._pools):
            raise _order.Race("the pool that this graph works in is gone, and its memory may be used by others")
        line.work()
        for uses, _ in self._notes:
            for memory, writes in uses:
                memory.use(line, writes)
        _order.run(line.clock)
        with np.errstate(all="ignore"):
            for _, function in self._notes:
                function()
        for pooled, host in self._lent:
            if pooled() is None:  # the pool may give it to other graphs, too
                garbage(host)


class Capture:
    """A capture in progress in this thread."""

    def __init__(self, stream):
        self.stream, self.notes, self.pools, self.lent, self.nodes, self.broken = stream, [], [], [], 0, False

    def note(self, uses, function, nodes=1):
        """Some work: the memory that it uses, (memory, writes) each, what it does, and what that adds to a graph."""
        self.notes.append((uses, function))
        self.nodes += nodes

    def allocated(self, array):
        """An array was made. The graph refers to its address, which keeps nothing alive."""
        if _order.local.allocator is None:
            self.illegal("an allocation from the default pool, which may give the memory to others")
        pooled = array._pointer.mem
        self.pools.append(weakref.ref(pooled.pool))
        self.lent.append((weakref.ref(pooled), array._host))
        self.note([(array._memory, True)], lambda: None, nodes=0)

    def illegal(self, what):
        """Something that cannot be captured: the capture is lost, too."""
        self.broken = True
        from cupy.cuda.runtime import CUDARuntimeError

        raise CUDARuntimeError(f"cudaErrorStreamCaptureUnsupported: operation not permitted while capturing: {what}")


def launch(work):
    """Work that another library does on the current stream, on addresses: a capture notes it, else it is done."""
    from cupy.cuda import get_current_stream

    capture = capturing()
    if capture is not None:
        return capture.note([], work)
    line = get_current_stream()._line
    line.work()
    _order.run(line.clock)  # copies on which it waits
    work()


def capturing(what=None):
    """The capture in progress, if the current stream is the one that is captured.

    Args:
        what: an operation that cannot be captured.
    """
    from cupy.cuda import get_current_stream

    capture = _order.local.capture
    if capture is None:
        return None
    if get_current_stream() is not capture.stream:
        capture.illegal(what or "work on another stream, which knows nothing of the capture")
    if what is not None:
        capture.illegal(what)
    return capture


def again(target, function):
    """Work that makes anew what an array of the host holds."""

    def redo():
        target[...] = function()

    return redo


def garbage(host):
    """Fill an array of the host with what nobody has written."""
    host[...] = {"f": np.nan, "b": True}.get(host.dtype.kind, 85)
    return host
