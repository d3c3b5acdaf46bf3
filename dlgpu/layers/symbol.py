"""Symbols: what stands for a tensor while a functional model is drawn."""

from typing import Any


class Symbol:
    """A tensor to be: its shape (None for an unknown length, the batch first), dtype, and the call that makes it."""

    def __init__(self, shape: tuple, dtype: str = "float32", call: "Call | None" = None, name: "str | None" = None):
        self.shape = tuple(shape)
        self.dtype = dtype
        self.call = call
        self.name = name
        self.mask = None

    @property
    def ndim(self) -> int:
        """The number of dimensions, the batch included."""
        return len(self.shape)

    def __repr__(self) -> str:
        return f"<Symbol shape={self.shape} dtype={self.dtype}>"


class Call:
    """One use of a layer in a graph: `layer(inputs, **arguments)`, where inputs is a Symbol or a list of them."""

    def __init__(self, layer: Any, inputs: Any, arguments: dict, outputs: Any = None):
        self.layer = layer
        self.inputs = inputs
        self.arguments = arguments
        self.outputs = outputs


def is_symbolic(inputs: Any) -> bool:
    """Whether the inputs of a layer are symbols, alone or in a list."""
    return isinstance(inputs, Symbol) or (
        isinstance(inputs, (list, tuple)) and any(isinstance(x, Symbol) for x in inputs)
    )


def map_structure(function: Any, value: Any) -> Any:
    """`function` of a value, or the list of it over a list or tuple of values."""
    return [function(v) for v in value] if isinstance(value, (list, tuple)) else function(value)
