"""What a step changes before its update, put back where it fails."""

from collections.abc import Callable
from typing import Any

from dlgpu.ops.random import Generator, default_generator
from dlgpu.tensor import Tensor


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
