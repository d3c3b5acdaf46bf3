"""Symbols: what stands for a tensor while a functional model is drawn."""

from typing import Any, NoReturn

from dlgpu.data.structure import leaves


class Symbol:
    """A tensor to be.

    Attributes:
        shape: the batch first; None for a length that is not known.
        dtype: its name.
        call: the call that makes it, None for an input.
        name: of an input.
    """

    mask = None

    def __init__(self, shape: tuple, dtype: str = "float32", call: "Call | None" = None, name: str | None = None):
        self.shape = tuple(shape)
        self.dtype = dtype
        self.call = call
        self.name = name

    @property
    def ndim(self) -> int:
        """The number of dimensions, the batch included."""
        return len(self.shape)

    def _has_no_values(self, *others: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(
            f"{self!r} stands for an array to be, and takes part in layers only: use one, such as Add or Activation, "
            "or write one whose call computes this"
        )

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _has_no_values
    __pow__ = __rpow__ = __matmul__ = __rmatmul__ = __neg__ = __abs__ = __getitem__ = __iter__ = _has_no_values
    __lt__ = __le__ = __gt__ = __ge__ = __array__ = __dlpack_device__ = _has_no_values

    def __repr__(self) -> str:
        return f"<Symbol shape={self.shape} dtype={self.dtype}>"


class Call:
    """One use of a layer in a graph: `layer(inputs, **arguments)`.

    Attributes:
        inputs: a Symbol, or a list or dictionary of them.
        arguments: keyword arguments, among them perhaps further Symbols.
        outputs: the Symbols that it makes.
    """

    def __init__(self, layer: Any, inputs: Any, arguments: dict):
        self.layer = layer
        self.inputs = inputs
        self.arguments = arguments
        self.outputs: list[Symbol] = []

    def output(self, shape: tuple, dtype: str) -> Symbol:
        """One more Symbol that it makes."""
        self.outputs.append(Symbol(shape, dtype, self))
        return self.outputs[-1]

    def symbols(self) -> list[Symbol]:
        """All symbols that the call takes."""
        return [s for s in leaves([self.inputs, self.arguments]) if isinstance(s, Symbol)]


def is_symbolic(inputs: Any) -> bool:
    """Whether the inputs of a layer are symbols."""
    return any(isinstance(x, Symbol) for x in leaves(inputs))
