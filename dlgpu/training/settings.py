"""What a recorded step takes for constant: settings of layers, losses and the like, and what their functions read."""

import sys
from collections.abc import Iterable, Iterator
from types import CodeType, FunctionType
from typing import Any

import numpy as np

from dlgpu.backend.precision import tf32_allowed
from dlgpu.saving.configurable import Configurable

CONSTANT = (int, float, complex, str, bytes, type(None))
LIBRARIES = ("dlgpu", "numpy", "cupy", "builtins")  # whose functions and classes are not looked into
DEPTH = 4  # of lists in dictionaries in ...
LONG = 1000  # of longer ones only the length is looked at
# no recording depends on these
VARYING = {"built", "history", "stop_training", "_applied", "_skipped", "_rate", "_learning_rate", "_loaded", "_own"}
VARYING |= {"_arguments"}


class Settings:
    """A look at the attributes of objects, at lists and dictionaries in them, and at what a user's functions refer to.

    Two looks are equal if all numbers, names and switches are, and everything else is the very same.

    Args:
        objects: these.
        weights: of which each must be where it was.
    """

    def __init__(self, objects: Iterable = (), weights: Iterable = ()):
        objects = list(objects)
        self._listed = {id(o) for o in objects}
        self._values = [(_The(o), *self._attributes(o, DEPTH), *self._methods(type(o))) for o in objects]
        self._values += [(_The(w), _The(w.array)) for w in weights]
        self._values.append((tf32_allowed(),))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Settings) and self._values == other._values

    def _look(self, value: Any, depth: int) -> Any:
        if isinstance(value, CONSTANT):
            return type(value), value
        if depth == 0 or id(value) in self._listed:
            return _The(value)
        if isinstance(value, (list, tuple, set, frozenset, dict)) and len(value) > LONG:
            return _The(value), len(value)
        if isinstance(value, (list, tuple, set, frozenset)):
            return type(value), [self._look(v, depth - 1) for v in value]
        if isinstance(value, dict):
            return type(value), [(self._look(k, depth - 1), self._look(v, depth - 1)) for k, v in value.items()]
        if isinstance(value, np.random.Generator):
            return _The(value), repr(value.bit_generator.state)
        if isinstance(value, FunctionType):
            return _The(value), *self._read_by(value, depth - 1)
        if isinstance(value, Configurable) or (hasattr(value, "__dict__") and _is_users(type(value))):
            return _The(value), *self._attributes(value, depth - 1)
        return _The(value)

    def _attributes(self, value: Any, depth: int) -> list:
        return [(name, self._look(v, depth)) for name, v in vars(value).items() if name not in VARYING]

    def _methods(self, kind: type) -> Iterator:
        for cls in kind.__mro__:
            if _is_users(cls):
                yield from (self._look(f, DEPTH) for f in vars(cls).values() if isinstance(f, FunctionType))

    def _read_by(self, function: FunctionType, depth: int) -> Iterator:
        """Looks at the global variables that a function names, and at those of the functions around it."""
        if _is_users(function):
            names = {name for code in _codes(function.__code__) for name in code.co_names}
            yield from ((n, self._look(function.__globals__[n], depth)) for n in names & function.__globals__.keys())
            yield [self._look(value, depth) for cell in function.__closure__ or () for value in _content(cell)]


class _The:
    """This very object."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _The) and self.value is other.value


def _content(cell: Any) -> list:
    """A cell's content; none while its variable has no value."""
    try:
        return [cell.cell_contents]
    except ValueError:
        return []


def _is_users(definition: Any) -> bool:
    return (definition.__module__ or "").partition(".")[0] not in LIBRARIES


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
