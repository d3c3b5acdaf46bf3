"""Arrays by where they are kept: an attribute of an object, or an item of a dictionary."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


def read(holder: Any, name: str) -> Any:
    """The array that is kept there."""
    return holder[name] if isinstance(holder, dict) else getattr(holder, name)


def write(holder: Any, name: str, array: Any) -> None:
    """Keep an array there."""
    if isinstance(holder, dict):
        holder[name] = array
    else:
        setattr(holder, name, array)


@contextmanager
def replaced(held: Iterable[tuple[Any, str]], view: Callable[[Any], Any]) -> Iterator[list]:
    """Inside the `with` these places keep `view(array)`; after it the arrays that they kept before, which it gives."""
    before = [(holder, name, read(holder, name)) for holder, name in held]
    try:
        for holder, name, array in before:
            write(holder, name, view(array))
        yield [array for _, _, array in before]
    finally:
        for holder, name, array in before:
            write(holder, name, array)
