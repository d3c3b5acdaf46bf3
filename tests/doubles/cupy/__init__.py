"""A stand-in for CuPy on a machine without a GPU, for tests only: `PYTHONPATH=tests/doubles:. DLGPU_DEVICE=cuda`.

Arrays are NumPy's in disguise, and kernels run in dlgpu's emulator. It has only such names and arguments as the real
CuPy has (signatures.txt, which tests/parity compares with it) and is as strict: nothing converts by itself, arrays of
the host are no operands, indices wrap around, and streams must be ordered by events. `empty` is filled with garbage.
"""

import builtins
import ctypes
import functools
import importlib.util
from pathlib import Path

import numpy as np
from numpy import (
    bool_,
    float16,
    float32,
    float64,
    iinfo,
    inf,
    int8,
    int16,
    int32,
    int64,
    nan,
    newaxis,
    pi,
    uint8,
    uint16,
    uint32,
    uint64,
)

__version__ = "14.2.0"

from cupy import _array, _graph, _order, cuda, lib
from cupy._array import SCALARS, Capsule, made, ndarray, supported, work
from cupy._raw import RawModule
from cupy.cuda import driver as _driver

_spec = importlib.util.spec_from_file_location("_cupy_signatures", Path(__file__).parents[1] / "signatures.py")
_signatures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_signatures)

LOOPS = "?bhilqBHILQefd"


class ufunc:
    """An elementwise function, with the loops of CuPy's."""

    def __init__(self, name, loops):
        self.__name__, self._numpy = name, getattr(np, name)
        self.nin = loops[0].index("-")
        self._loops = [(p[: self.nin], p[-1]) for p in loops if set(p) <= set(LOOPS + "->")]
        self._known = {}

    def __call__(self, *args, **kwargs):
        if kwargs.keys() - {"out", "dtype", "casting", "where"}:
            raise TypeError(f"Wrong arguments {kwargs}")
        args, out = args[: self.nin], args[self.nin] if len(args) > self.nin else kwargs.pop("out", None)
        for value in (*args, out) if out is not None else args:
            if not isinstance(value, (ndarray, *SCALARS)):
                raise TypeError(f"Unsupported type {type(value)}")
        if len(args) < self.nin or (out is not None and not isinstance(out, ndarray)):
            raise TypeError(f"{self.__name__}: expected {self.nin} operands and an array for out")
        where = kwargs.pop("where", True)
        options = {**kwargs, **({} if out is None else {"out": out._host})}
        result = work(
            [*args, where], [] if out is None else [out], lambda *a: self._numpy(*a[:-1], where=a[-1], **options)
        )
        if out is None:
            self._check([getattr(a, "dtype", type(a)) for a in args], result.dtype, kwargs.get("dtype"))
        return made(result) if out is None else out

    def _check(self, types, got, dtype):
        """NumPy's result must be of the dtype that CuPy's first fitting loop gives."""
        key = (*types, dtype)
        if key not in self._known and "bfloat16" not in map(str, types):
            numbers = [t for t in types if isinstance(t, np.dtype)]
            weak = np.result_type(*numbers) if numbers else None
            taken = [
                t if isinstance(t, np.dtype) else np.result_type(weak, t(0)) if weak is not None else np.dtype(t)
                for t in types
            ]
            self._known[key] = next(
                out
                for ins, out in self._loops
                if (np.dtype(out) == dtype if dtype else all(np.can_cast(t, i) for t, i in zip(taken, ins)))
            )
        wanted = self._known.get(key)
        if wanted is not None and np.dtype(wanted) != got:
            raise AssertionError(f"{self.__name__} of {types}: CuPy gives {np.dtype(wanted)}, NumPy {got}")

    def reduceat(self, array, indices, axis=0, dtype=None, out=None):
        if self.__name__ != "add":
            raise NotImplementedError("`reduceat` only supported for add")
        return made(work([array, indices], [], lambda a, i: self._numpy.reduceat(a, i, axis, dtype)))


def _creation(name):
    def make(*args, **kwargs):
        host = getattr(np, name)(*(_array.bare(a) for a in args), **kwargs)
        supported(host.dtype)
        if name.startswith("empty"):
            _graph.garbage(host)
        return _constant(host, nodes=not name.startswith("empty"))

    return make


def _constant(host, nodes=1):
    """An array of these values, which a graph writes at each launch."""
    capture = _graph.capturing()
    found, values = made(host), host.copy()
    if capture is not None:
        capture.note([(found._memory, True)], _graph.again(found._host, lambda: values), nodes)
        _graph.garbage(found._host)
    return found


# cuBLAS cannot be captured, nor what waits for the device
_UNCAPTURED = {"argsort", "bincount", "nonzero", "sort", "unique"}


def _function(name):
    def call(*args, **kwargs):
        if name == "matmul" and _graph.capturing() is not None and args[0].dtype.kind == "f":
            raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
        if name in _UNCAPTURED:
            _graph.capturing(f"{name}, which waits for the device")
        values = [*args, *kwargs.values()]
        if not any(True for _ in _array._arrays(values)) or any(isinstance(v, np.ndarray) for v in _flat(values)):
            raise TypeError(f"{name}: only cupy.ndarray is supported")
        out = kwargs.pop("out", None)
        options = {} if out is None else {"out": out._host}
        names = list(kwargs)
        result = work(
            [*args, *kwargs.values()],
            [] if out is None else [out],
            lambda *a: getattr(np, name)(*a[: len(args)], **dict(zip(names, a[len(args) :])), **options),
        )
        return out if out is not None else _result(result, args[0])

    return call


def _flat(values):
    for value in values:
        yield from _flat(value) if isinstance(value, (list, tuple)) else (value,)


def _result(result, first):
    if isinstance(result, (int, tuple, np.dtype)):  # ndim, shape, result_type
        return result
    return first._made(result) if isinstance(first, ndarray) else made(result)


def _method(name):
    def call(self, *args, **kwargs):
        out = kwargs.pop("out", None)
        options = {} if out is None else {"out": out._host}
        result = work(
            [self, *args], [] if out is None else [out], lambda x, *a: getattr(x, name)(*a, **kwargs, **options)
        )
        return out if out is not None else tuple(map(made, result)) if isinstance(result, tuple) else made(result)

    return call


def _array_from(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    if not isinstance(obj, ndarray) and hasattr(obj, "__cuda_array_interface__"):
        _graph.capturing("memory of another library's")
        obj = _foreign(obj)
    if isinstance(obj, ndarray):
        obj = obj if obj._memory.device == _order.local.device else made(obj.get())
        return obj if not copy and dtype in (None, obj.dtype) else obj.astype(dtype or obj.dtype)
    host = np.array(obj, dtype=supported(np.asarray(obj).dtype if dtype is None else dtype))
    capture = _graph.capturing()
    if not host.ndim or capture is None:
        return _constant(host)
    pinned = np.frombuffer(cuda.alloc_pinned_memory(host.nbytes), host.dtype, host.size).reshape(host.shape)
    pinned[...], found = host, made(host)
    capture.note([(found._memory, True)], _graph.again(found._host, lambda: pinned))
    for host in (pinned, found._host):  # the pool gives the pinned memory to the next copy
        _graph.garbage(host)
    return found


def _foreign(obj):
    """The memory of another library's array on the device, not copied."""
    about = obj.__cuda_array_interface__
    dtype, (pointer, _) = np.dtype(about["typestr"]), about["data"]
    strides = about["strides"] or np.empty(about["shape"], dtype).strides
    extent = builtins.sum((n - 1) * s for n, s in zip(about["shape"], strides)) + dtype.itemsize
    data = (ctypes.c_byte * extent).from_address(pointer)
    return made(np.ndarray(about["shape"], dtype, data, strides=strides), base=obj)


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    return _array_from(a, dtype, copy, order)


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    return a.get(stream, order, out) if isinstance(a, ndarray) else np.asarray(a)


def from_dlpack(array, *, device=None, copy=None):
    if array.__dlpack_device__()[0] != 2:
        raise ValueError("the array is not on a CUDA device")
    capsule = array.__dlpack__(stream=1)
    if not isinstance(capsule, Capsule):
        raise TypeError("the stand-in cannot read this capsule")
    return capsule.array._made(capsule.array._host.view())


def get_default_memory_pool():
    return cuda.memory.default_memory_pool


def get_default_pinned_memory_pool():
    return cuda.default_pinned_memory_pool


def ascontiguousarray(a, dtype=None):
    same = a.flags.c_contiguous and dtype in (None, a.dtype)
    return a if same else made(work([a], [], lambda x: np.array(x, dtype, order="C")))


def copyto(dst, src, casting="same_kind", where=None):
    if isinstance(src, np.ndarray) and src.size != 1:
        raise ValueError("non-scalar numpy.ndarray cannot be used for copyto")
    work([src, True if where is None else where], [dst], lambda s, w: np.copyto(dst._host, s, casting, where=w))


def searchsorted(a, v, side="left", sorter=None):
    if not isinstance(v, (int, float, complex, ndarray)):
        raise NotImplementedError("Only python scalars or ndarrays are supported for v")
    return made(work([a, v], [], lambda x, y: np.searchsorted(x, y, side)))


def take_along_axis(a, indices, axis):
    return made(work([a, indices], [], lambda x, i: np.take_along_axis(x, i % x.shape[axis], axis)))


def where(condition, x=None, y=None):
    for value in (x, y):
        if not isinstance(value, (ndarray, *SCALARS)):
            raise TypeError(f"Unsupported type {type(value)}")
    return made(work([condition, x, y], [], np.where))


class _Grid:
    def __getitem__(self, key):
        return [made(a) for a in np.ogrid[key]]


ogrid = _Grid()


def _strict(implementation, name, signature, method=False):
    """The implementation behind a check that CuPy's own would take these arguments."""
    scope = {"float": float}
    exec(f"def check{signature}: pass", scope)
    check = scope["check"]

    def call(*args, **kwargs):
        check(*args[method:], **kwargs)
        return implementation(*args, **kwargs)

    call.__name__ = name
    return call


_CREATION = {"arange", "empty", "eye", "empty_like", "full", "full_like", "ones", "ones_like", "zeros", "zeros_like"}
array = _array_from

for _name, _text in _signatures.recorded().items():
    if _text.startswith("ufunc "):
        globals()[_name] = ufunc(_name, _text.split()[1:])
    elif _name.startswith("ndarray."):
        _own = _name[8:]
        if _own[0] != "_":
            setattr(ndarray, _own, _strict(vars(ndarray).get(_own) or _method(_own), _own, _text, True))
    elif "." not in _name and _name != "RawModule":
        _made = globals().get(_name) or (_creation(_name) if _name in _CREATION else _function(_name))
        globals()[_name] = _strict(_made, _name, _text)
lib.stride_tricks.as_strided = _strict(
    lambda x, *a, **k: x._made(np.lib.stride_tricks.as_strided(x._host, *a, **k)),
    "as_strided",
    _signatures.recorded()["lib.stride_tricks.as_strided"],
)


def _operators():
    """The operators of arrays, which leave operands that opt out, such as dlgpu's Tensor, to themselves."""
    names = "add sub:subtract mul:multiply truediv:true_divide floordiv:floor_divide mod:remainder pow:power"
    names += " matmul and:bitwise_and or:bitwise_or xor:bitwise_xor lshift:left_shift rshift:right_shift"

    def operator(function, kind):
        def call(self, other):
            if getattr(other, "__array_ufunc__", self) is None:
                return NotImplemented
            if kind == "i":
                return function(self, other, out=self)
            return function(other, self) if kind == "r" else function(self, other)

        return call

    for own, _, known in (n.partition(":") for n in names.split()):
        function = globals()[known or own]
        for kind in ("", "r", "i"):
            if (kind, own) != ("i", "matmul"):
                setattr(ndarray, f"__{kind}{own}__", operator(function, kind))
    compared = {"lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"}
    for own, known in {**compared, "eq": "equal", "ne": "not_equal"}.items():
        setattr(ndarray, f"__{own}__", operator(globals()[known], ""))
    for own, known in {"neg": "negative", "abs": "absolute", "invert": "invert"}.items():
        setattr(ndarray, f"__{own}__", functools.partialmethod(lambda self, function: function(self), globals()[known]))
    ndarray.__hash__ = None


_operators()
