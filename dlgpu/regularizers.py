"""Regularizers: penalties on weights, added to the loss."""

import math
from typing import Any

import numpy as np

from dlgpu.backend.dispatch import array_namespace
from dlgpu.ops.elementwise import absolute, maximum, square
from dlgpu.ops.linear import matmul
from dlgpu.saving.configurable import Configurable
from dlgpu.tensor import Tensor, wrap


class Regularizer(Configurable):
    """A function of a weight to a Tensor of one element."""

    def __call__(self, weight: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} does not define __call__(weight)")

    @classmethod
    def get(cls, identifier: Any) -> Any:
        """The regularizer that `identifier` means: a Regularizer, its class, a name, a configuration, a function of a
        weight, or None.

        Raises:
            ValueError: an unknown name; the message names the nearest known one.
        """
        if callable(identifier) and not isinstance(identifier, (type, Regularizer)):
            return identifier
        return super().get(identifier)


def get(identifier: Any) -> Any:
    """The regularizer that `identifier` means; see `Regularizer.get`."""
    return Regularizer.get(identifier)


class L1(Regularizer):
    """l1 * sum(|weight|)

    Args:
        l1: at least 0.
    """

    def __init__(self, l1: float = 0.01):
        self.l1 = _factor(self, "l1", l1)

    def __call__(self, weight: Tensor) -> Tensor:
        return absolute(weight).sum() * self.l1


class L2(Regularizer):
    """l2 * sum(weight**2)

    Args:
        l2: at least 0.
    """

    def __init__(self, l2: float = 0.01):
        self.l2 = _factor(self, "l2", l2)

    def __call__(self, weight: Tensor) -> Tensor:
        return square(weight).sum() * self.l2


class L1L2(Regularizer):
    """l1 * sum(|weight|) + l2 * sum(weight**2)

    Args:
        l1, l2: at least 0.
    """

    aliases = ("l1_l2",)

    def __init__(self, l1: float = 0.0, l2: float = 0.0):
        self.l1 = _factor(self, "l1", l1)
        self.l2 = _factor(self, "l2", l2)

    def __call__(self, weight: Tensor) -> Tensor:
        penalty = square(weight).sum() * self.l2
        return penalty + absolute(weight).sum() * self.l1 if self.l1 else penalty


class OrthogonalRegularizer(Regularizer):
    """factor * the mean of |cosine| over all pairs of the matrix's rows, or of its columns.

    Args:
        factor: at least 0.
        mode: "rows" or "columns".
    """

    def __init__(self, factor: float = 0.01, mode: str = "rows"):
        if mode not in ("rows", "columns"):
            raise ValueError(f"OrthogonalRegularizer: mode must be 'rows' or 'columns', got {mode!r}")
        self.factor = _factor(self, "factor", factor)
        self.mode = mode

    def __call__(self, weight: Tensor) -> Tensor:
        if weight.ndim != 2:
            raise ValueError(f"OrthogonalRegularizer: expected a matrix, got a weight of shape {weight.shape}")
        rows = weight if self.mode == "rows" else weight.T
        # a row of zeros is left as it is
        unit = rows * maximum(square(rows).sum(axis=1, keepdims=True), 1e-24) ** -0.5
        count = len(rows)
        others = 1 - array_namespace(rows.array).eye(count, dtype=rows.dtype)
        cosines = absolute(matmul(unit, unit.T)) * wrap(others)
        return cosines.sum() * (self.factor / max(count * (count - 1), 1))


# the names that Keras has beside
l1, l2, l1_l2, orthogonal_regularizer = L1, L2, L1L2, OrthogonalRegularizer


def _factor(regularizer: Regularizer, what: str, value: Any) -> float:
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not is_number or not 0 <= value < math.inf:
        raise ValueError(f"{type(regularizer).__name__}: {what} must be a number of at least 0, got {value!r}")
    return float(value)
