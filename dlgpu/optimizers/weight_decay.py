"""Weight decay: in the same pass as the update or in one of its own, and which parameters it spares."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from dlgpu.backend.reference import update as kernels
from dlgpu.optimizers.kept import Kept
from dlgpu.parameters import Parameter

_decaying: set[Callable] = set()


def decaying(update: Callable) -> Callable:
    """Mark an `update` that does the weight decay itself, as `self.decay` says; for others it is a pass of its own."""
    _decaying.add(update)
    return update


class WeightDecay:
    """The part of an Optimizer that decays weights, apart from their gradients.

    values -= learning_rate * weight_decay * values
    """

    weight_decay: Any
    update: Any
    kept: list[Kept]
    _undecayed: tuple[set[int], str | None]  # ids of parameters that are spared, and a pattern of names

    @property
    def decay(self) -> float:
        """The weight decay that an `update` marked `decaying` is to do: none where some parameters are spared."""
        if not self.weight_decay or any(self._undecayed) or type(self).update not in _decaying:
            return 0.0
        return self.weight_decay

    def exclude_from_weight_decay(
        self, var_list: Sequence[Parameter] | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """Spare these parameters from weight decay.

        Args:
            var_list: parameters.
            var_names: parts of names: ["bias"] spares all biases.
        """
        self._undecayed = {id(p) for p in var_list or ()}, "|".join(var_names) if var_names else None

    def _decay(self) -> None:
        spared, pattern = self._undecayed
        for kept in self.kept:
            flat = kept.flat
            if not any(self._undecayed):
                kernels.decay_weights(flat.values, kept.scalars, self.weight_decay)
                continue
            for p, where in zip(flat.parameters, flat.slices):
                if id(p) not in spared and not (pattern and re.search(pattern, p.name)):
                    kernels.decay_weights(flat.values[where], kept.scalars, self.weight_decay)
