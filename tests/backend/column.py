"""The column whose kernels are held to their references now. Tests that all columns pass are written once, in `rows`;
each column's folder imports them and says in its conftest which column it is."""

from types import ModuleType
from typing import Any

current: ModuleType | None = None  # a module of the three functions below, and HOST


def agree(name: str, *args: Any, **options: Any) -> None:
    """Assert that a kernel of the column gives what its reference gives; see the columns' own."""
    current.agree(name, *args, **options)


def tried(name: str, *args: Any) -> None:
    """Assert that the column has a kernel, and note that a test compares it on these arguments."""
    current.tried(name, *args)


def on_device(function: Any, *args: Any, **options: Any) -> Any:
    """Call a function of NumPy arrays on the column's device; what it returns and changes comes back to the host."""
    return current.on_device(function, *args, **options)
