"""Input: where the graph of a model begins."""

from dlgpu.layers.names import unique_name
from dlgpu.layers.symbol import Symbol


def Input(shape: tuple, dtype: str = "float32", name: str | None = None) -> Symbol:
    """A symbol for the input of a model.

    Args:
        shape: of one sample, without the batch; None where a length is not fixed.
        dtype: "int32" for what an Embedding reads.
        name: by which a dictionary of arrays may give it.
    """
    return Symbol((None, *shape), dtype, name=name or unique_name("input"))
