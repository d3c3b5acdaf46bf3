"""What a step does to arrays, recorded once and replayed: a flat list of calls on memory that stays where it is.

While a recording is active, arrays are `Traced`: NumPy arrays that note each computation on them. Kernels of the CPU
column note their own calls by `call`, on memory from `empty`; a reference is noted as one call. Views of an array need no
note, as their memory stays. What reads a value (`float(x)`, `if x > 0`) cannot be replayed and ends the recording.
"""

import math
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

ALIGNMENT = 64  # bytes: a cache line, and the longest vector


class _State(threading.local):
    recording: "Recording | None" = None


_state = _State()


def call(function: Callable, *args: Any) -> None:
    """function(*args), which writes its results into arrays among the args; recorded, if a step is being recorded."""
    if _state.recording is not None:
        _state.recording.add(function, *args)
    function(*args)


def empty(shape: Any, dtype: Any) -> np.ndarray:
    """An array of undefined values, on memory that a recorded step keeps."""
    return np.empty(shape, dtype) if _state.recording is None else _state.recording.memory.empty(shape, dtype)


def active() -> "Recording | None":
    """The recording in progress in this thread."""
    return _state.recording


class NotReplayable(Exception):
    """The step did something that a list of calls cannot do again."""


class Memory:
    """Blocks for arrays. One is used again as soon as nobody refers to its array any more, in the same order each time."""

    def __init__(self) -> None:
        self._free: dict[int, list[np.ndarray]] = {}

    def empty(self, shape: Any, dtype: Any) -> np.ndarray:
        """An array of undefined values."""
        count = math.prod(shape) if isinstance(shape, tuple) else int(shape)
        size = -(-count * np.dtype(dtype).itemsize // ALIGNMENT) * ALIGNMENT
        if not size:
            return np.empty(shape, dtype)
        free = self._free.setdefault(size, [])
        block = free.pop() if free else _aligned(size)
        array = np.frombuffer(block, dtype, count)
        # the base of the array and of all its views is a memoryview, which lives as long as one of them
        weakref.finalize(array.base, free.append, block).atexit = False
        return array.reshape(shape)


def _aligned(size: int) -> np.ndarray:
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]


def kept(array: np.ndarray) -> np.ndarray:
    """The same values at the same place, without a lease on them: what the recorded call refers to."""
    root = array
    while isinstance(root, np.ndarray) and root.base is not None:
        root = root.base
    block = root.obj if isinstance(root, memoryview) else None
    if not isinstance(block, np.ndarray):
        return array.view(np.ndarray)
    return np.ndarray(array.shape, array.dtype, block, array.ctypes.data - block.ctypes.data, array.strides)


class Drawn(int):
    """A number that is drawn anew at each replay, such as the position of a random generator."""

    uses: list

    @classmethod
    def several(cls, source: Any, draw: Callable[[], tuple]) -> tuple:
        """The numbers that `draw` takes from `source` (whose `state` can be set), now and at each replay."""
        numbers = tuple(map(cls, draw()))
        for n in numbers:
            n.uses = []
        assert _state.recording is not None
        _state.recording.sources.append(source)
        _state.recording.program.append((_redraw, (draw, numbers)))
        return numbers


def _redraw(draw: Callable[[], tuple], numbers: tuple) -> None:
    for number, value in zip(numbers, draw()):
        for args, place in number.uses:
            args[place] = value


class Recording:
    """The calls of one step.

    Attributes:
        program: (function, args) in order.
        memory: where the arrays live that the step makes.
        sources: of the numbers that each replay draws.
    """

    def __init__(self, memory: "Memory | None" = None) -> None:
        self.program: list[tuple[Callable, Any]] = []
        self.memory = memory or Memory()
        self.sources: list = []
        self._inside = False

    @contextmanager
    def active(self) -> Iterator[None]:
        """Record what happens inside the `with`, in this thread."""
        outer, _state.recording = _state.recording, self
        try:
            yield
        finally:
            _state.recording = outer

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Record nothing inside the `with`."""
        _state.recording = None
        try:
            yield
        finally:
            _state.recording = self

    def replay(self) -> None:
        """Do all of it again."""
        for function, args in self.program:
            function(*args)

    def add(self, function: Callable, *args: Any) -> None:
        """Note a call."""
        own: Any = [kept(a) if isinstance(a, np.ndarray) else a for a in args]
        for place, number in enumerate(args):
            if isinstance(number, Drawn):
                number.uses.append((own, place))
        self.program.append((function, own))

    def result(self, value: Any) -> Any:
        """`value`, the array or scalar that a call has just made, copied to where each replay is to put it."""
        axes = sorted(range(value.ndim), key=lambda axis: -abs(value.strides[axis]))  # the same order in memory
        made = self.memory.empty(tuple(value.shape[axis] for axis in axes), value.dtype)
        made = made.transpose(np.argsort(axes)) if axes else made
        made[...] = value
        return made

    def kernel(self, function: Callable, own_calls: bool, args: tuple, kwargs: dict) -> Any:
        """A kernel's results: of a column that notes its own calls, or of a reference, which is one call."""
        if self._inside:  # one that a kernel's own code calls
            return function(*args, **kwargs)
        args, kwargs = _map(plain, args), _map(plain, kwargs)
        if own_calls:
            self._inside = True
            try:
                return _map(traced, function(*args, **kwargs))
            finally:
                self._inside = False
        with self.paused():
            found = function(*args, **kwargs)
        results = _map(lambda a: self.result(a), found)
        self.add(_again, function, _Noted(self, args), _Noted(self, kwargs), _Noted(self, results))
        return _map(traced, results)


class _Noted:
    """A structure of arguments in which drawn numbers are replaced at each replay."""

    def __init__(self, recording: Recording, structure: Any):
        self.items: list = []
        self.shape = self._take(structure)

    def _take(self, value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return type(value)([self._take(v) for v in value])
        if isinstance(value, dict):
            return {k: self._take(v) for k, v in value.items()}
        if isinstance(value, np.ndarray):
            return kept(value)
        if isinstance(value, Drawn):
            self.items.append(value)
            value.uses.append((self.items, len(self.items) - 1))
            return _Place(len(self.items) - 1)
        return value

    def now(self) -> Any:
        return self.shape if not self.items else self._fill(self.shape)

    def _fill(self, value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return type(value)([self._fill(v) for v in value])
        if isinstance(value, dict):
            return {k: self._fill(v) for k, v in value.items()}
        return self.items[value] if isinstance(value, _Place) else value


class _Place(int):
    pass


def _again(function: Callable, args: _Noted, kwargs: _Noted, results: _Noted) -> None:
    _copy(results.shape, function(*args.now(), **kwargs.now()))


def _copy(target: Any, value: Any) -> None:
    if isinstance(target, (tuple, list)):
        for t, v in zip(target, value):
            _copy(t, v)
    elif isinstance(target, np.ndarray):
        target[...] = value


def _map(function: Callable, value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)([_map(function, v) for v in value])
    if isinstance(value, dict):
        return {k: _map(function, v) for k, v in value.items()}
    return function(value) if isinstance(value, (np.ndarray, np.generic)) else value


def plain(array: Any) -> Any:
    """A Traced array as an ordinary one, of the same memory."""
    return array.view(np.ndarray) if isinstance(array, Traced) else array


def traced(array: Any) -> Any:
    """An array whose computations are noted."""
    return np.asarray(array).view(Traced)


class Traced(np.ndarray):
    """An array that notes each computation on it in the active recording."""

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        recording = _state.recording
        inputs = tuple(plain(a) for a in inputs)
        targets = None if out is None else tuple(plain(a) for a in out)
        function = getattr(ufunc, method)
        if recording is None:
            found = function(*inputs, **({} if targets is None else {"out": targets}), **kwargs)
            return found if out is None else out[0] if len(out) == 1 else out
        if method == "at":
            recording.add(partial(function, **kwargs) if kwargs else function, *inputs)
            return function(*inputs, **kwargs)
        kwargs = {k: plain(v) if isinstance(v, np.ndarray) else v for k, v in kwargs.items()}
        if targets is None:
            found = function(*inputs, **kwargs)
            results = found if isinstance(found, tuple) else (found,)
            targets = tuple(recording.result(r) for r in results)
        else:
            function(*inputs, out=targets, **kwargs)
        if method == "__call__" and not kwargs:
            recording.add(ufunc, *inputs, *targets)
        else:
            note = partial(function, out=tuple(map(kept, targets)), **_map(kept, kwargs))
            recording.add(note, *inputs)
        if out is not None:
            return out[0] if len(out) == 1 else out
        return traced(targets[0]) if len(targets) == 1 else tuple(map(traced, targets))

    def __array_function__(self, function, types, args, kwargs):
        args, kwargs = _map(plain, args), _map(plain, kwargs)
        recording = _state.recording
        if recording is None:
            return function(*args, **kwargs)
        return _noted(recording, function, args, kwargs)

    def _method(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """A method that computes or copies, outside of ufuncs."""
        function = getattr(np.ndarray, name)
        if _state.recording is None:
            return function(plain(self), *_map(plain, args), **_map(plain, kwargs))
        return _noted(_state.recording, function, (plain(self), *_map(plain, args)), _map(plain, kwargs))

    def __setitem__(self, key, value):
        own = plain(self)
        key, value = _map(plain, key), _map(plain, value)
        own[key] = value
        if _state.recording is not None:
            if key is Ellipsis or (isinstance(key, slice) and key == slice(None)):
                _state.recording.add(np.copyto, own, value)
            else:
                _state.recording.add(_set, own, _Noted(_state.recording, key), value)

    def _read(self, *args: Any) -> Any:
        if _state.recording is None:
            return getattr(plain(self), "item")()
        raise NotReplayable("a value of an array was read")

    __float__ = __int__ = __bool__ = __index__ = __complex__ = item = tolist = tobytes = _read  # type: ignore[assignment]


def _set(array: Any, key: _Noted, value: Any) -> None:
    array[key.now()] = value


def _noted(recording: Recording, function: Callable, args: tuple, kwargs: dict) -> Any:
    """The results of an array function; views are left alone, other results are made anew at each replay."""
    before = [a for a in _leaves((args, kwargs)) if a.size]
    found = function(*args, **kwargs)
    if found is None:  # such as copyto, which writes into its arguments
        recording.add(partial(function, **_map(kept, kwargs)) if kwargs else function, *_map(kept, args))
        return None
    if isinstance(found, (np.ndarray, np.generic)) and not isinstance(found, np.generic):
        if any(np.may_share_memory(found, a) for a in before):
            if any(found is o for o in _leaves(kwargs.get("out"))):
                recording.add(_do, function, _Noted(recording, args), _Noted(recording, kwargs))
            return traced(found)
    if not isinstance(found, (np.ndarray, np.generic, tuple, list)):
        return found  # shapes, dtypes and the like
    results = _map(recording.result, found)
    recording.add(_again, function, _Noted(recording, args), _Noted(recording, kwargs), _Noted(recording, results))
    return _map(traced, results)


def _do(function: Callable, args: _Noted, kwargs: _Noted) -> None:
    function(*args.now(), **kwargs.now())


def _leaves(value: Any) -> list:
    found: list = []
    _map(found.append, value)
    return [a for a in found if isinstance(a, np.ndarray)]


def _methods() -> None:
    names = """__getitem__ astype copy reshape ravel flatten take repeat argmax argmin argsort cumsum cumprod dot nonzero
    choose compress searchsorted trace diagonal swapaxes transpose squeeze round fill sort partition put byteswap"""
    for name in names.split():

        def method(self, *args, _name=name, **kwargs):
            return self._method(_name, *args, **kwargs)

        setattr(Traced, name, method)


_methods()
