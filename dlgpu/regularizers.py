"""Regularizers: penalties on weights, added to the loss."""

from dlgpu.saving.configurable import Configurable
from dlgpu.tensor import Tensor


class Regularizer(Configurable):
    """A function of a weight to a Tensor of one element."""

    def __call__(self, weight: Tensor) -> Tensor:
        raise NotImplementedError
