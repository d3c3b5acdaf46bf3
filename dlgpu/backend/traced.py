"""Arrays that note what is done with them, so that it can be done again.

While a recording is active, a step's arrays are `Traced`: each NumPy function, ufunc and method that computes is noted,
with results on memory that stays. Views need no note. What reads a value (`float(x)`, `if x > 0`) or makes arrays whose
shape goes by values (`x[x > 0]`) cannot be replayed, and the recording says so.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from dlgpu.backend.recorder import Drawn, Recording, active, kept


def kernel_results(recording: Recording, function: Callable, own_calls: bool, args: tuple, kwargs: dict) -> Any:
    """A kernel's results: of a column that notes its own calls, or of a reference, which is noted as one call."""
    if recording.inside:  # one that a kernel's own code calls
        return function(*args, **kwargs)
    args, kwargs = _map(plain, args), _map(plain, kwargs)
    if own_calls:
        recording.inside = True
        try:
            return _map(traced, function(*args, **kwargs))
        finally:
            recording.inside = False
    with recording.paused():
        found = function(*args, **kwargs)
    return _noted_results(recording, function, args, kwargs, found)


def _noted_results(recording: Recording, function: Callable, args: tuple, kwargs: dict, found: Any) -> Any:
    results = _map(recording.result, found)
    recording.add(_again, function, _Noted(args), _Noted(kwargs), _Noted(results))
    return _map(traced, results)


class _Noted:
    """A structure of arguments in which drawn numbers are replaced at each replay."""

    def __init__(self, structure: Any):
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
        if target.shape != value.shape:
            raise RuntimeError(
                f"a replayed step made an array of shape {value.shape} that was recorded with {target.shape}: "
                "where shapes go by values, use compile(run_eagerly=True)"
            )
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


def plain_results(value: Any) -> Any:
    """A kernel's results as ordinary arrays."""
    return _map(plain, value)


def traced(array: Any) -> Any:
    """An array whose computations are noted."""
    return np.asarray(array).view(Traced)


class Traced(np.ndarray):
    """An array that notes each computation on it in the active recording."""

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        recording = active()
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
        if method == "__call__" and not kwargs and ufunc not in (np.maximum, np.minimum):  # these take no third array
            recording.add(ufunc, *inputs, *targets)
        else:
            note = partial(function, out=tuple(map(kept, targets)), **_map(kept, kwargs))
            recording.add(note, *inputs)
        if out is not None:
            return out[0] if len(out) == 1 else out
        return traced(targets[0]) if len(targets) == 1 else tuple(map(traced, targets))

    def __array_function__(self, function, types, args, kwargs):
        args, kwargs = _map(plain, args), _map(plain, kwargs)
        recording = active()
        if recording is None:
            return function(*args, **kwargs)
        return _noted(recording, function, args, kwargs)

    def _method(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """A method that computes or copies, outside of ufuncs."""
        function = getattr(np.ndarray, name)
        recording = active()
        if recording is None:
            return function(plain(self), *_map(plain, args), **_map(plain, kwargs))
        return _noted(recording, function, (plain(self), *_map(plain, args)), _map(plain, kwargs))

    def __setitem__(self, key, value):
        own = plain(self)
        key, value = _map(plain, key), _map(plain, value)
        own[key] = value
        recording = active()
        if recording is not None:
            if key is Ellipsis or (isinstance(key, slice) and key == slice(None)):
                recording.add(np.copyto, own, value)
            else:
                recording.add(_set, own, _Noted(key), value)


def _set(array: Any, key: _Noted, value: Any) -> None:
    array[key.now()] = value


def _noted(recording: Recording, function: Callable, args: tuple, kwargs: dict) -> Any:
    """The results of an array function; views are left alone, other results are made anew at each replay."""
    before = [a for a in _leaves((args, kwargs)) if a.size]
    if function in SHAPED_BY_VALUES or (function is np.ndarray.__getitem__ and _masks(args[1])):
        recording.replayable = False
    found = function(*args, **kwargs)
    if found is None:  # such as copyto, which writes into its arguments
        args = tuple(a if isinstance(a, np.ndarray) else _map(kept, a) for a in args)
        recording.add(partial(function, **_map(kept, kwargs)) if kwargs else function, *args)
        return None
    if isinstance(found, np.ndarray) and any(np.may_share_memory(found, a) for a in before):
        if any(found is o for o in _leaves(kwargs.get("out"))):
            recording.add(_do, function, _Noted(args), _Noted(kwargs))
        return traced(found)
    if function in FILLED and found.size:
        made = recording.result(found)
        recording.add(np.copyto, made, found.flat[0])
        return traced(made)
    if not isinstance(found, (np.ndarray, np.generic, tuple, list)):
        return found  # shapes, dtypes and the like
    return _noted_results(recording, function, args, kwargs, found)


FILLED = (np.zeros_like, np.ones_like, np.empty_like)  # one value everywhere, and the same at each replay


SHAPED_BY_VALUES = (
    *(np.nonzero, np.flatnonzero, np.argwhere, np.extract, np.compress, np.unique, np.trim_zeros),
    *(np.union1d, np.intersect1d, np.setdiff1d, np.setxor1d),
    *(np.ndarray.nonzero, np.ndarray.compress),
)


def _masks(key: Any) -> bool:
    return any(a.dtype == bool for a in _leaves(key if isinstance(key, tuple) else (key,)))


def _do(function: Callable, args: _Noted, kwargs: _Noted) -> None:
    function(*args.now(), **kwargs.now())


def _leaves(value: Any) -> list:
    found: list = []
    _map(found.append, value)
    return [a for a in found if isinstance(a, np.ndarray)]


def _methods() -> None:
    for name in ["__float__", "__int__", "__bool__", "__index__", "__complex__", "item", "tolist", "tobytes"]:

        def read(self, *args, _name=name):
            recording = active()
            if recording is not None:
                recording.replayable = False
            return getattr(plain(self), _name)(*args)

        setattr(Traced, name, read)
    names = """__getitem__ astype copy reshape ravel flatten take repeat argmax argmin argsort cumsum cumprod dot
    nonzero choose compress searchsorted trace diagonal swapaxes transpose squeeze round fill sort partition
    put byteswap"""
    for name in names.split():

        def method(self, *args, _name=name, **kwargs):
            return self._method(_name, *args, **kwargs)

        setattr(Traced, name, method)


_methods()
