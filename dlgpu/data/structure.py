"""Values that come alone, in lists, or in dictionaries: the inputs and outputs of models."""

from collections.abc import Callable
from typing import Any


def map_structure(function: Callable, value: Any) -> Any:
    """`function` of a value, or of each in a list, tuple or dictionary, as a list or dictionary; None stays None."""
    if isinstance(value, (list, tuple)):
        return [map_structure(function, v) for v in value]
    if isinstance(value, dict):
        return {key: map_structure(function, v) for key, v in value.items()}
    return None if value is None else function(value)


def leaves(value: Any) -> list:
    """All values of a structure in order, without the Nones."""
    if isinstance(value, (list, tuple)):
        return [leaf for v in value for leaf in leaves(v)]
    if isinstance(value, dict):
        return [leaf for v in value.values() for leaf in leaves(v)]
    return [] if value is None else [value]


def named_leaves(value: Any, name: str) -> list[tuple[str, Any]]:
    """All values of a structure with their names: x, x[0] or x['a']."""
    if isinstance(value, (list, tuple)):
        return [leaf for i, v in enumerate(value) for leaf in named_leaves(v, f"{name}[{i}]")]
    if isinstance(value, dict):
        return [leaf for key, v in value.items() for leaf in named_leaves(v, f"{name}[{key!r}]")]
    return [] if value is None else [(name, value)]


def map_shapes(function: Callable, value: Any) -> Any:
    """`function` of a shape, which is a tuple, or of each shape in a list or dictionary, in a list or dictionary."""
    if isinstance(value, list):
        return [map_shapes(function, v) for v in value]
    if isinstance(value, dict):
        return {key: map_shapes(function, v) for key, v in value.items()}
    return function(value)
