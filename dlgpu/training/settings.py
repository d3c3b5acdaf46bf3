"""What a recorded step takes for constant: settings of layers, losses and the like, and what their functions read."""

import functools
import os
import pickle
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from itertools import chain
from types import (
    BuiltinMethodType,
    CodeType,
    FunctionType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any
from weakref import ProxyTypes

import numpy as np

from dlgpu.backend.precision import tf32_allowed
from dlgpu.backend.repeater import digest
from dlgpu.saving.configurable import Configurable
from dlgpu.tensor import Tensor

CONSTANT = (int, float, complex, str, bytes, type(None))
LISTS = (list, tuple, set, frozenset, deque)
PARTS = {  # of what Python wraps around a user's functions and objects
    BuiltinMethodType: ("__self__",),
    MethodType: ("__self__", "__func__"),
    classmethod: ("__func__",),
    functools.partial: ("func", "args", "keywords"),
    property: ("fget",),
    staticmethod: ("__func__",),
}
LIBRARIES = {"dlgpu", "numpy", "cupy", *sys.stdlib_module_names}  # whose functions and objects are not looked into
MOST = 20_000  # values: those that come after are only told from others
SAMPLE = 1 << 18  # elements of an array


class Settings:
    """A look at the attributes of objects, at what is in them, and at what a user's functions refer to.

    Two looks are equal if all numbers, names, switches, NumPy arrays and states of random generators are, and
    everything else is the very same. A look that met an iterator equals no other: its next value is a new one.

    Args:
        objects: these.
        changing: objects and arrays of which the contents do not matter.
    """

    def __init__(self, objects: Iterable = (), changing: Iterable = ()):
        self._values: list = [tf32_allowed()]
        skipped, met = {id(value) for value in changing}, dict[int, int]()
        found = list(objects)  # keeps all alive, so that an id means one value
        for value in found:
            if issubclass(type(value), CONSTANT):
                self._values.append((type(value), value))
            elif id(value) in met:
                self._values.append(met[id(value)])
            else:
                met[id(value)] = len(met)
                inside = [] if id(value) in skipped or len(found) > MOST else list(_inside(value, type(value)))
                self._values.append((_itself(value, type(value)), len(inside)))
                found += inside

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Settings) and self._values == other._values


class _The:
    """This very object."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _The) and self.value is other.value


class _Once:
    """What is not the same again."""

    def __eq__(self, other: object) -> bool:
        return False


def _itself(value: Any, kind: type) -> Any:
    """What two values must have alike, beside what is in them."""
    if issubclass(kind, (*LISTS, dict)):
        return kind, len(value)
    return _Once() if hasattr(kind, "__next__") and kind not in ProxyTypes else _The(value)


def _inside(value: Any, kind: type) -> Iterable:
    """The values that this one is made of, or reads."""
    if issubclass(kind, LISTS):
        return value if len(value) <= MOST else ()
    if issubclass(kind, dict):
        return chain.from_iterable(value.items()) if len(value) <= MOST else ()
    if issubclass(kind, np.ndarray):
        sample = value.flat[:: 1 + value.size // SAMPLE]
        return sample.tolist() if sample.dtype.hasobject else (digest(sample),)
    if issubclass(kind, Tensor):
        return (value.array,)
    if kind in PARTS:
        return [getattr(value, name) for name in PARTS[kind]]
    if kind.__module__ == "random" or kind.__module__.startswith("numpy.random"):
        return (pickle.dumps(value),)
    if kind is ContextVar:
        return (value.get(None),)
    if kind is FunctionType:
        return _read_by(value) if _is_users(value.__module__) else ()
    if issubclass(kind, type):
        return (*vars(value).values(), *value.__bases__) if _is_users(value.__module__) else ()
    if issubclass(kind, (Configurable, SimpleNamespace)) or _is_users(kind.__module__):
        return _attributes(value, kind)
    return ()


def _attributes(value: Any, kind: type) -> Iterator:
    """Names and values of an object's attributes, and its class."""
    varying = {name for c in kind.__mro__ for name in vars(c).get("_varying", ())}
    slots = [name for c in kind.__mro__ for name, slot in vars(c).items() if type(slot) is MemberDescriptorType]
    found = dict(_attribute(value, "__dict__") or {}) | {name: _attribute(value, name) for name in slots}
    for name, part in found.items():
        if name not in varying:
            yield from (name, part)
    yield kind


def _attribute(value: Any, name: str) -> Any:
    try:
        return getattr(value, name)
    except Exception:  # a user's own __getattr__ may raise anything
        return None


def _read_by(function: FunctionType) -> Iterator:
    """What a function refers to: its defaults, variables of the functions around it, global ones, and modules'."""
    yield from (function.__code__, function.__defaults__, function.__kwdefaults__, vars(function))
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # its variable has no value yet
            yield cell.cell_contents
    names = dict.fromkeys(name for code in _codes(function.__code__) for name in code.co_names)
    if not names.keys().isdisjoint(("environ", "getenv")):
        yield dict(os.environ)
    spaces = [function.__globals__, sys.modules]
    for space in spaces:
        for value in (space[name] for name in names if name in space):
            yield value
            if type(value) is ModuleType and _is_users(value.__name__) and all(vars(value) is not s for s in spaces):
                spaces.append(vars(value))


def _is_users(module: str | None) -> bool:
    return (module or "").partition(".")[0] not in LIBRARIES


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _codes(inner)


def drawn() -> tuple:
    """The states of Python's and of NumPy's random numbers: who has drawn some draws others the next time."""
    python, numpy = sys.modules.get("random"), sys.modules.get("numpy.random")  # who draws has imported them
    state = numpy and numpy.get_state()
    return python and python.getstate(), state and (state[1].tobytes(), *state[2:])
