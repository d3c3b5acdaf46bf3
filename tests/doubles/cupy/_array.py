"""Stand-in for `cupy.ndarray`: a NumPy array that may not be used as one, with CuPy's rules for what may meet what."""

import functools

import numpy as np

from cupy import _graph, _order
from cupy.cuda import Device, get_current_stream, is_pinned
from cupy.cuda.memory import allocated

SCALARS = (bool, int, float, complex, np.generic)
NO_CONVERSION = "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct one explicitly"


def _unpickled(values):
    from cupy import array

    return array(values)


class ndarray:
    """An array on a device. What a NumPy array does beyond what is here, CuPy's does not do, or not in the same way."""

    __slots__ = ("_host", "_memory", "_pointer", "base")
    __module__ = "cupy"
    __hash__ = None
    __array_priority__ = 100

    # -- what it is

    shape = property(lambda self: self._host.shape)
    strides = property(lambda self: self._host.strides)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    itemsize = property(lambda self: self._host.itemsize)
    nbytes = property(lambda self: self._host.nbytes)
    T = property(lambda self: self.transpose())
    device = property(lambda self: Device(self._memory.device))
    data = property(lambda self: Pointer(self._host.ctypes.data))
    flags = property(lambda self: Flags(self))

    # -- the way to the host

    def get(self, stream=None, order="C", out=None, blocking=True):
        _graph.capturing("a copy to the host")
        _order.local.waits += 1
        line = (stream or get_current_stream(self._memory.device))._line
        line.work()
        self._used(line, False)
        _order.wait(line.clock)
        if out is not None:
            out[...] = self._host
            return out
        return np.array(self._host, order=order)

    def __reduce__(self):
        return _unpickled, (self.get(),)

    def set(self, arr, stream=None):
        _graph.capturing("a copy from the host")
        _order.local.sends += 1
        if not isinstance(arr, np.ndarray) or arr.dtype != self.dtype:
            raise TypeError(f"{type(arr)} cannot be set to an array of {self.dtype}")
        if arr.shape != self.shape or not self.flags.c_contiguous:
            raise ValueError(f"cannot set {arr.shape} to {self.shape}, contiguous: {self.flags.c_contiguous}")
        line = (stream or get_current_stream(self._memory.device))._line
        line.work()
        self._used(line, True)
        if is_pinned(arr):
            host = self._host
            _order.later(line, lambda: np.copyto(host, arr))
        else:
            np.copyto(self._host, arr)

    def item(self):
        if self.size != 1:
            raise ValueError("can only convert an array of size 1 to a Python scalar")
        return self.get().item()

    def tolist(self):
        return self.get().tolist()

    def __array__(self, dtype=None, copy=None):
        raise TypeError(NO_CONVERSION)

    def __bool__(self):
        return bool(self.get())

    def __int__(self):
        return int(self.get())

    def __float__(self):
        return float(self.get())

    def __len__(self):
        return len(self._host)

    def __iter__(self):
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def __repr__(self):
        return repr(self.get())

    def __str__(self):
        return str(self.get())

    def __format__(self, spec):
        return format(self.get(), spec)

    def __deepcopy__(self, memo):
        return self.copy()

    # -- other libraries

    @property
    def __cuda_array_interface__(self):
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "descr": self.dtype.descr,
            "stream": 1,
            "version": 3,
            "strides": None if self.flags.c_contiguous else self.strides,
            "data": (self._host.ctypes.data if self.size else 0, False),
        }

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        if copy or dl_device not in (None, self.__dlpack_device__()):
            raise BufferError("the stand-in hands its memory over where it is")
        return Capsule(self)

    def __dlpack_device__(self):
        return 2, self._memory.device  # 2 is kDLCUDA

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        import cupy

        found = getattr(cupy, ufunc.__name__, None)
        if method != "__call__" or found is None:
            return NotImplemented
        if not all(isinstance(x, (ndarray, np.ndarray, *SCALARS)) for x in inputs):
            return NotImplemented
        if "out" in kwargs:
            kwargs["out"] = kwargs["out"][0]
        return found(*inputs, **kwargs)

    def __array_function__(self, func, types, args, kwargs):
        import cupy

        found = getattr(cupy, func.__name__, None)
        if func.__module__ != "numpy" or found is None or not all(t in (ndarray, np.ndarray) for t in types):
            return NotImplemented
        return found(*args, **kwargs)

    # -- parts

    def __getitem__(self, key):
        arrays, place = self._places(key)
        if not arrays:
            return self._made(self._host[place([])])
        if any(a.dtype.kind == "b" for a in arrays):
            _graph.capturing("a result whose shape goes by values")
        return self._made(work([self, *arrays], [], lambda host, *indices: host[place(indices)]))

    def __setitem__(self, key, value):
        if isinstance(value, (np.ndarray, list, tuple)) and np.size(value) != 1:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        arrays, place = self._places(key)
        host = self._host  # a graph that notes this keeps no array
        work([value, *arrays], [self], lambda v, *indices: host.__setitem__(place(indices), v))

    def _places(self, key):
        """The arrays in an index, and a function from their values to the index for the array on the host.

        As in CuPy, integers of an array wrap around instead of failing.
        """
        items = list(key) if isinstance(key, tuple) else [key]
        items = [np.array(i, None if i else int) if isinstance(i, list) else i for i in items]
        arrays = [i for i in items if isinstance(i, (ndarray, np.ndarray))]
        kinds = {a.dtype.kind for a in arrays}
        if kinds - set("iub"):
            raise IndexError(f"arrays used as indices must be of integer or boolean type, got {kinds}")
        if "b" in kinds and len(arrays) > 1:
            raise ValueError("currently, CuPy only supports slices that consist of one boolean array.")
        if not all(
            i is None or i is Ellipsis or isinstance(i, (slice, int, np.integer, ndarray, np.ndarray)) for i in items
        ):
            raise IndexError(f"only integers, slices, ellipsis, None and arrays are valid indices, got {key!r}")
        masks = [getattr(i, "dtype", None) == np.bool_ for i in items]
        taken = [0 if i is None or i is Ellipsis else i.ndim if m else 1 for i, m in zip(items, masks)]
        axis, lengths = 0, []
        for item, count in zip(items, taken):
            if item is Ellipsis:
                axis += self.ndim - sum(taken)
            if isinstance(item, (ndarray, np.ndarray)):
                lengths.append(self.shape[axis] if item.dtype.kind != "b" else 0)
            axis += count
        if any(isinstance(a, np.ndarray) for a in arrays):
            _graph.capturing("indices of the host")

        def place(indices):
            wrapped = iter([i % n if n else i for i, n in zip(indices, lengths)])
            return tuple(next(wrapped) if isinstance(i, (ndarray, np.ndarray)) else i for i in items)

        return arrays, place

    # -- methods: their arguments are held to signatures.txt

    def _made(self, host):
        """An array of a result: a view of this one where they share memory."""
        shared = isinstance(host, np.ndarray) and host.base is not None and np.may_share_memory(host, self._host)
        return made(host, self._memory, self if self.base is None else self.base) if shared else made(host)

    def _used(self, line, writes):
        if self._memory.device != line.device:
            raise ValueError(
                f"The device where the array resides ({self._memory.device}) is different from the current device "
                f"({line.device})."
            )
        self._memory.use(line, writes)

    def fill(self, value):
        self[...] = value

    def sort(self, axis=-1, kind=None):
        if not self.flags.c_contiguous:
            raise NotImplementedError("Sorting non-contiguous array is not supported.")
        _graph.capturing("a sort, which waits for the device")
        work([], [self], lambda: self._host.sort(axis=axis, kind="stable"))

    def take(self, indices, axis=None, out=None):
        return self._made(work([self, np_indices(indices)], [], lambda x, i: x.take(i, axis=axis, mode="wrap")))

    def reshape(self, *shape, order="C", copy=None):
        return self._laid(lambda x: x.reshape(*shape, order=order))

    def transpose(self, *axes):
        return self._made(self._host.transpose(*axes))

    def swapaxes(self, axis1, axis2):
        return self._made(self._host.swapaxes(axis1, axis2))

    def squeeze(self, axis=None):
        return self._made(self._host.squeeze(axis))

    def ravel(self, order="C"):
        return self._laid(lambda x: x.ravel(order))

    def _laid(self, function):
        """A view where NumPy gives one, which costs nothing; else work that copies."""
        found = function(self._host)
        shared = not found.size or np.may_share_memory(found, self._host)
        return self._made(found if shared else work([self], [], function))

    def view(self, dtype=None, type=None):
        return self._made(self._host.view() if dtype is None else self._host.view(dtype))

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        if casting is not None or subok is not None:
            raise TypeError("casting is not supported yet")
        if not copy and np.dtype(dtype) == self.dtype:
            return self
        return made(work([self], [], lambda x: x.astype(supported(dtype), order=order)))

    def copy(self, order="C"):
        return made(work([self], [], lambda x: x.copy(order)))


class Pointer:
    """Where an array begins."""

    def __init__(self, ptr):
        self.ptr = ptr


class Flags:
    """What CuPy says of an array's layout; there is no `writeable`."""

    def __init__(self, array):
        self.c_contiguous = array._host.flags.c_contiguous
        self.f_contiguous = array._host.flags.f_contiguous
        self.owndata = array.base is None


class Capsule:
    """What `__dlpack__` gives here; only the stand-in's own `from_dlpack` can read it."""

    def __init__(self, array):
        self.array = array


def made(host, memory=None, base=None):
    """An array of the device around one of the host."""
    array = object.__new__(ndarray)
    array._host, array.base = np.asarray(host), base
    supported(array._host.dtype)
    array._memory = memory or _order.Memory(_order.local.device)
    array._pointer = None if memory is not None else allocated(array.nbytes)
    capture = _graph.capturing() if memory is None else None
    if capture is not None:
        capture.allocated(array)
    elif memory is None:
        line = get_current_stream()._line
        line.work()
        array._memory.use(line, True)
    return array


def work(reads, writes, function):
    """`function` of the arrays of the host behind `reads`, as one piece of work on the current stream."""
    capture = _graph.capturing()
    if capture is not None:
        return _noted(capture, reads, writes, function)
    line = get_current_stream()._line
    line.work()
    for array in _arrays(reads):
        array._used(line, False)
    for array in writes:
        array._used(line, True)
    _order.run(line.clock)
    with np.errstate(all="ignore"):  # a GPU does not warn
        return function(*[bare(r) for r in reads])


def _noted(capture, reads, writes, function):
    """Work that waits for the launch of a graph. What it makes is of a shape that must be known now."""
    uses = [(a._memory, False) for a in _arrays(reads)] + [(a._memory, True) for a in writes]
    read = [bare(r) for r in reads]
    if writes:
        capture.note(uses, lambda: function(*read))
        return None
    with np.errstate(all="ignore"):
        found = function(*read)
    results = found if isinstance(found, tuple) else (found,)
    if all(isinstance(r, (np.ndarray, np.generic)) for r in results) and not _view(results, read):
        results = tuple(np.array(r) for r in results)
        several = isinstance(found, tuple)
        for place, made_now in enumerate(results):
            take = functools.partial(lambda p: function(*read)[p] if several else function(*read), place)
            capture.note(uses, _graph.again(made_now, take))
            _graph.garbage(made_now)
        return results if several else results[0]
    return found


def _view(results, read):
    return any(np.may_share_memory(r, a) for r in results for a in read if isinstance(a, np.ndarray) and a.size)


def _arrays(values):
    for value in values:
        if isinstance(value, ndarray):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _arrays(value)


def bare(value):
    """What NumPy computes with, for an argument of a function of CuPy's."""
    if isinstance(value, (list, tuple)):
        return type(value)(bare(v) for v in value)
    return value._host if isinstance(value, ndarray) else value


def np_indices(value):
    """Indices that CuPy would put on the device by itself."""
    return value if isinstance(value, ndarray) else np.asarray(value)


def supported(dtype):
    """The dtype, if CuPy has it."""
    dtype = np.dtype(dtype)
    if dtype.char not in "?bhilqBHILQefdFD" and dtype.name != "bfloat16":
        raise ValueError(f"Unsupported dtype {dtype}")
    return dtype
