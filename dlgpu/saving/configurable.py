"""Objects that can be named, described as JSON, and built again: layers, losses, optimizers, schedules and the like."""

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from dlgpu.errors import unknown_name

kinds: dict[str, type["Configurable"]] = {}
functions: dict[str, Callable] = {}


class Configurable:
    """Remembers its constructor's arguments, and registers its subclasses by name.

    A direct subclass is a kind (Layer, Loss, ...) with a registry of its own; `Loss.get("mse")` looks names up there.
    A class is found by its name, its name in snake_case, and each of its `aliases`, in any case.
    """

    registry: ClassVar[dict[str, type["Configurable"]]]
    aliases: ClassVar[tuple[str, ...]] = ()
    _arguments: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if Configurable in cls.__bases__:
            cls.registry = {}
            kinds[cls.__name__] = cls
            return
        known = cls.registry.get(cls.__name__)
        # a user's class may not take the name of one of dlgpu's own, but may be defined again in a notebook
        if known is None or not known.__module__.startswith("dlgpu.") or known.__module__ == cls.__module__:
            cls.registry[cls.__name__] = cls

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        self = super().__new__(cls)
        try:
            bound = _signature(cls).bind(self, *args, **kwargs).arguments
        except TypeError:
            return self  # __init__ raises the same error, with the class's name
        bound.pop("self", None)
        bound.update(bound.pop("kwargs", {}))
        self._arguments = bound
        return self

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
        """The class registered under a name of this kind."""
        names = {
            alias.lower(): c
            for c in cls.registry.values()
            for alias in (c.__name__, snake_case(c.__name__), *c.aliases)
        }
        if name.lower() not in names:
            raise ValueError(unknown_name(cls._kind().lower(), name, [snake_case(n) for n in cls.registry]))
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
        return cls(**{name: deserialize(value) for name, value in config.items()})


@functools.cache
def _signature(cls: type) -> inspect.Signature:
    return inspect.signature(cls.__init__)  # type: ignore[misc]


def snake_case(name: str) -> str:
    """`MaxPooling2D` as `max_pooling2d`, `LSTM` as `lstm`, `SimpleRNN` as `simple_rnn`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def serialize(value: Any) -> Any:
    """`value` as something that `json` can write and `deserialize` reads.

    Raises:
        TypeError: it holds something else, such as a function that is not registered.
    """
    if isinstance(value, Configurable):
        return {"kind": value._kind(), "class": type(value).__name__, "config": value.get_config()}
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
    raise TypeError(f"cannot describe {value!r} as JSON: use one of dlgpu's own by name, or a Configurable class")


def deserialize(value: Any) -> Any:
    """The value that `serialize` described."""
    if isinstance(value, list):
        return [deserialize(v) for v in value]
    if not isinstance(value, dict):
        return value
    if not {"kind", "class", "config"} <= value.keys():
        return {key: deserialize(v) for key, v in value.items()}
    if value["kind"] not in kinds:
        raise ValueError(unknown_name("kind of object", value["kind"], kinds))
    return kinds[value["kind"]].class_named(value["class"]).from_config(value["config"])
