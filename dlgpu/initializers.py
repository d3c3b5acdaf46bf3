"""Initializers: how weights begin. Drawn on the host, so that they are equal on every device."""

from typing import Any

import numpy as np

from dlgpu.saving.configurable import Configurable


class Initializer(Configurable):
    """A function of (shape, dtype) to a NumPy array."""

    def __call__(self, shape: tuple, dtype: Any = np.float32) -> np.ndarray:
        raise NotImplementedError


class Zeros(Initializer):
    """All zeros."""

    def __call__(self, shape: tuple, dtype: Any = np.float32) -> np.ndarray:
        return np.zeros(shape, dtype)


class GlorotUniform(Initializer):
    """Placeholder."""

    def __call__(self, shape: tuple, dtype: Any = np.float32) -> np.ndarray:
        limit = (6 / (shape[0] + shape[-1])) ** 0.5
        return np.random.default_rng().uniform(-limit, limit, shape).astype(dtype)
