"""What a step changes, put back: all of it after a trial; where a step fails, what it changes before its update."""

from collections.abc import Callable, Iterable
from typing import Any

from dlgpu.backend import held
from dlgpu.backend.devices import to_host
from dlgpu.backend.repeater import digest
from dlgpu.ops.random import Generator, default_generator
from dlgpu.tensor import Tensor

PIECE = 1 << 18  # bytes


def states_of(layer: Any) -> list[Tensor]:
    """What a stateful layer carries from batch to batch."""
    states = getattr(layer, "states", None)
    return [s for s in states if isinstance(s, Tensor)] if isinstance(states, list) else []


class Passing:
    """What a forward pass of a model changes: weights that are not trained, states of layers and of random generators.

    Its trained weights and its optimizer's state are not among them: their update is the last that a step does.
    """

    def __init__(self, model: Any):
        layers = list(model._with_inner())
        self.weights = [w for w in model.weights if not w.trainable]
        self.carrying = [x for x in layers if "_begun" in vars(x)]
        self.generators = [v for x in layers for v in vars(x).values() if issubclass(type(v), Generator)]

    def noted(self) -> Callable[[], None]:
        """A function that puts all of it back as it is now."""
        tensors = [*self.weights, *(s for x in self.carrying for s in states_of(x))]
        arrays = [(t, t.array, t.array.copy()) for t in tensors]
        carried = [(x, x.states, x._begun) for x in self.carrying]
        generators = [(g, g.state) for g in (default_generator(), *self.generators)]

        def undo() -> None:
            for tensor, array, copy in arrays:
                array[...] = copy
                tensor.array = array
            for layer, states, begun in carried:
                layer.states, layer._begun = states, begun
            for generator, state in generators:
                generator.state = state

        return undo


class Snapshot:
    """Copies of all arrays that a step changes, save for gradients, and the states of random generators."""

    def __init__(self, step: Any, sources: Iterable = ()):
        arrays = (held.read(*place) for place in step.holders() if place[1] != "gradients")
        # weights are views of the flat buffer, which is copied once
        roots = {id(r): r for r in (a.base if hasattr(a.base, "dtype") else a for a in arrays)}
        self._arrays = [piece for root in roots.values() for piece in _pieces(root)]
        self._copies = [array.copy() for array in self._arrays]
        self._sources = [(s, s.state) for s in sources]

    def restore(self) -> None:
        """Put the values back, once: each copy's memory is free again."""
        for array in reversed(self._arrays):
            array[...] = self._copies.pop()
        for source, state in self._sources:
            source.state = state

    def digests(self) -> list:
        """What tells the present values of these arrays and sources from others."""
        return [digest(to_host(a)) for a in self._arrays] + [s.state for s, _ in self._sources]


def _pieces(array: Any) -> list:
    """Parts of a large array: copies of them find room in memory that the process has, but that lies in pieces."""
    count = 1 + array.nbytes // PIECE
    rows = -(-len(array) // count) if array.ndim else 0
    return [array[start : start + rows] for start in range(0, len(array), rows)] if rows else [array]
