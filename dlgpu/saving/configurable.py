"""Objects that can be named, described as JSON, and built again: layers, losses, optimizers, schedules and the like."""

import functools
import inspect
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar

import numpy as np

from dlgpu.errors import unknown_name

kinds: dict[str, type["Configurable"]] = {}
functions: dict[str, Callable] = {}
_met: ContextVar[Any] = ContextVar("objects met while describing, and their definitions", default=None)


class Configurable:
    """Remembers its constructor's arguments, and registers its subclasses by name.

    A direct subclass is a kind (Layer, Loss, ...) with a registry of its own; `Loss.get("mse")` looks names up there.
    A class is found by its name, its name in snake_case, and each of its own `aliases`, in any case. A class that only
    others build on says `class Pooling(Layer, abstract=True)` and has no name.
    """

    registry: ClassVar[dict[str, type["Configurable"]]]
    aliases: ClassVar[tuple[str, ...]] = ()
    _varying: ClassVar[tuple[str, ...]] = ("_arguments",)  # attributes on which no recorded step depends
    _arguments: dict[str, Any]

    def __init_subclass__(cls, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if Configurable in cls.__bases__:
            cls.registry = {}
            kinds[cls.__name__] = cls
            return
        if abstract:
            return
        known = cls.registry.get(cls.__name__)
        # a user's class may not take the name of one of dlgpu's own, but may be defined again in a notebook
        if known is None or not known.__module__.startswith("dlgpu.") or known.__module__ == cls.__module__:
            cls.registry[cls.__name__] = cls

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        self = super().__new__(cls)
        try:
            bound = _signature(cls.__init__).bind(*args, **kwargs)
        except TypeError as error:
            cls._refuse(set(kwargs) - set(cls._known_arguments()))
            if args or kwargs:
                raise TypeError(f"{cls.__name__}: {error}") from None
            return self  # as copies and pickles are made; else __init__ raises the same error
        self._arguments = bound.arguments
        for parameter in bound.signature.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                self._arguments |= self._arguments.pop(parameter.name, {})
        return self

    def __init__(self, **kwargs: Any):
        """The end of the constructors' chain, to which a kind's own hands on what it does not know.

        It goes on with a mixin that comes after the kind among a class's bases, unless that needs arguments which are
        not there: then it is called by its name, later.
        """
        if kwargs:
            self._refuse(kwargs.keys() - set(self._known_arguments()))
        order = type(self).__mro__
        after = (vars(c).get("__init__") for c in order[order.index(Configurable) + 1 :])
        constructor = next(filter(None, after))  # object's at the least
        if not inspect.isfunction(constructor):
            self._refuse(kwargs)
            return
        try:
            _signature(constructor).bind(**kwargs)
        except TypeError:
            self._refuse(kwargs)
        else:
            super().__init__(**kwargs)

    @classmethod
    def _refuse(cls, unknown: Iterable[str]) -> None:
        for name in unknown:
            raise TypeError(f"{cls.__name__}: {unknown_name('argument', name, cls._known_arguments())}")

    @classmethod
    def _known_arguments(cls) -> list[str]:
        """The names that the constructor takes; with **kwargs, those of the constructors below it too."""
        found: dict[str, None] = {}
        for constructor in (vars(c)["__init__"] for c in cls.__mro__ if "__init__" in vars(c)):
            parameters = _signature(constructor).parameters.values()
            found |= {p.name: None for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
        return list(found)

    @classmethod
    def get(cls, identifier: Any) -> Any:
        """The object that `identifier` means: an instance, a class, a name, a configuration, or None.

        Raises:
            ValueError: an unknown name; the message names the nearest known one.
        """
        if identifier is None or isinstance(identifier, cls):
            return identifier
        if isinstance(identifier, str):
            return cls.class_named(identifier)()
        if isinstance(identifier, dict):
            return deserialize(identifier)
        if isinstance(identifier, type) and issubclass(identifier, cls):
            return identifier()
        raise TypeError(f"expected the name of a {cls._kind().lower()} or a {cls._kind()}, got {identifier!r}")

    @classmethod
    def class_named(cls, name: str) -> Any:
        """The class registered under a name of this kind; as it is written, if there are several in other cases."""
        if name in cls.registry:
            return cls.registry[name]
        names = {
            alias.lower(): c
            for key, c in cls.registry.items()
            for alias in (key, c.__name__, snake_case(c.__name__), *vars(c).get("aliases", ()))
        }
        if name.lower() not in names:
            raise ValueError(unknown_name(cls._kind().lower(), name, cls.registry, spellings=names))
        return names[name.lower()]

    @classmethod
    def _kind(cls) -> str:
        return next(c.__name__ for c in cls.__mro__ if Configurable in c.__bases__)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as JSON values, from which `from_config` builds the object again."""
        return {name: serialize(value) for name, value in self._arguments.items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """A new object of this class from `get_config()`."""
        arguments, signature = {name: deserialize(value) for name, value in config.items()}, _signature(cls.__init__)
        rest = {name: arguments.pop(name) for name in config if name not in signature.parameters}
        bound = inspect.BoundArguments(signature, OrderedDict(arguments))
        return cls(*bound.args, **bound.kwargs, **rest)


@functools.cache
def _signature(constructor: Callable) -> inspect.Signature:
    """What a constructor takes after the object itself."""
    found = inspect.signature(constructor)
    first, *others = found.parameters.values()
    return found if first.kind is first.VAR_POSITIONAL else found.replace(parameters=others)


def snake_case(name: str) -> str:
    """`MaxPooling2D` as `max_pooling2d`, `LSTM` as `lstm`, `SimpleRNN` as `simple_rnn`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def serialize(value: Any) -> Any:
    """`value` as something that `json` can write and `deserialize` reads.

    A function of the user's is described by its name, under which `custom_objects` must hold it for `deserialize`.

    Raises:
        TypeError: it holds something else, such as a lambda.
    """
    if isinstance(value, Configurable):
        return _describe(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [serialize(v) for v in value]
    if isinstance(value, dict):
        return {key: serialize(v) for key, v in value.items()}
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return np.dtype(value).name
    name = getattr(value, "__name__", "")
    if functions.get(name) is value:
        return name
    if inspect.isroutine(value) and name.isidentifier() and name not in functions:
        _numbered(value)
        return {"function": name}
    raise TypeError(
        f"cannot describe {value!r} as JSON: use a function with a name of its own, or a Configurable class"
    )


def _describe(value: Configurable) -> dict[str, Any]:
    cls, number = type(value), _numbered(value)
    known = cls.registry.get(cls.__name__, cls)
    if known.__module__.startswith("dlgpu.") and known.__module__ != cls.__module__:
        raise TypeError(f"{known} would be loaded instead of {cls}: give it another name")
    described: dict[str, Any] = {"kind": value._kind(), "class": cls.__name__, "config": value.get_config()}
    if number is not None:
        described["number"] = number
    return described


def _numbered(value: Any) -> int | None:
    """The number of an object in this description; it is kept with its number, so that no other can have its id.

    Raises:
        TypeError: another class or function of its name is in this description: they could not be told apart.
    """
    if _met.get() is None:
        return None
    met, definitions = _met.get()
    if id(value) not in met:
        configurable = isinstance(value, Configurable)
        kind, definition = (value._kind().lower(), type(value)) if configurable else ("function", value)
        known = definitions.setdefault((kind, definition.__name__), definition)
        if known != definition:
            raise TypeError(
                f"two definitions of the {kind} {definition.__name__!r}, {known} and {definition}, would be loaded as "
                "one: give one of them another name, or use one definition"
            )
        met[id(value)] = len(met), value
    return met[id(value)][0]


def deserialize(value: Any) -> Any:
    """The value that `serialize` described.

    Raises:
        ValueError: a class or a function that is not known here.
    """
    if isinstance(value, list):
        return [deserialize(v) for v in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"function"}:
        return function_named(value["function"])
    if not {"kind", "class", "config"} <= value.keys():
        return {key: deserialize(v) for key, v in value.items()}
    if value["kind"] not in kinds:
        raise ValueError(unknown_name("kind of object", value["kind"], kinds))
    number = value.get("number")
    if _met.get() is None or number is None:
        return kinds[value["kind"]].class_named(value["class"]).from_config(value["config"])
    met, _ = _met.get()
    if number not in met:
        met[number] = kinds[value["kind"]].class_named(value["class"]).from_config(value["config"])
    return met[number]


def function_named(name: str, kind: str = "function") -> Callable:
    """The function known under a name; a ValueError names the nearest known one, and the kind that was looked for."""
    if name not in functions:
        raise ValueError(unknown_name(kind, name, functions))
    return functions[name]


@contextmanager
def one_description() -> Iterator[dict]:
    """Inside the `with`, an object that is met again has the same number when described, and is made once.

    Gives the dictionary of (kind, name) -> class or function that describing fills.
    """
    definitions: dict = {}
    token = _met.set(({}, definitions))
    try:
        yield definitions
    finally:
        _met.reset(token)


@contextmanager
def known_objects(objects: Mapping[str, Any] | Iterable | None) -> Iterator[None]:
    """Inside the `with`, `deserialize` finds these classes and functions under these names, or else their own.

    Raises:
        TypeError: one is neither a function nor a class of a kind such as Layer.
    """
    before: list[tuple[dict, str, Any]] = []
    found: Any = [] if objects is None else objects
    named = [*found.items()] if isinstance(found, Mapping) else [(item.__name__, item) for item in found]
    for name, item in named:
        configurable = isinstance(item, type) and issubclass(item, Configurable)
        if not configurable and not inspect.isroutine(item):
            raise TypeError(f"custom_objects: expected functions and subclasses of Layer and the like, got {item!r}")
        place: dict[str, Any] = item.registry if configurable else functions
        before.append((place, name, place.get(name)))
    try:
        for (place, name, _), (_, item) in zip(before, named):
            place[name] = item
        yield
    finally:
        for place, name, item in before:
            if item is None:
                place.pop(name, None)
            else:
                place[name] = item
