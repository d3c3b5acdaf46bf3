"""What a step changes before its update, put back where it fails."""

from typing import Any

from dlgpu.ops.random import Generator, default_generator
from dlgpu.tensor import Tensor


def states_of(layer: Any) -> list[Tensor]:
    """What a stateful layer carries from batch to batch."""
    states = getattr(layer, "states", None)
    return [s for s in states if isinstance(s, Tensor)] if isinstance(states, list) else []


class Undo:
    """The states of a model's layers and of random generators, and the count of an optimizer, as they are now.

    Weights are not among them: an update is the last that a step does.
    """

    def __init__(self, step: Any):
        layers = list(step.model._with_inner())
        places = [w for w in step.model.weights if not w.trainable] + [s for x in layers for s in states_of(x)]
        self._arrays = [(t, t.array, t.array.copy()) for t in places]
        self._carried = [(x, x.states, x._begun) for x in layers if "_begun" in vars(x)]
        own = [v for x in layers for v in vars(x).values() if isinstance(v, Generator)]
        self._generators = [(g, g.state) for g in (default_generator(), *own)]

    def __call__(self) -> None:
        """Put them back."""
        for tensor, array, copy in self._arrays:
            array[...] = copy
            tensor.array = array
        for layer, states, begun in self._carried:
            layer.states, layer._begun = states, begun
        for generator, state in self._generators:
            generator.state = state
