"""Layers that add noise while a model is trained, and do nothing else."""

import math
from typing import Any

from dlgpu.layers.base import Layer, SameShape
from dlgpu.ops.random import Generator, default_generator, dropout
from dlgpu.tensor import Tensor


class Noise(SameShape, Layer, abstract=True):
    """A layer that draws from the process's generator or, given a seed, from one of its own."""

    def __init__(self, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.seed = seed
        self._own = None if seed is None else Generator(seed)

    @property
    def generator(self) -> Generator:
        """Where the noise comes from."""
        return self._own or default_generator()

    def noise(self, inputs: Tensor, mean: float, stddev: float) -> Any:
        """An array of normal numbers, of the inputs' shape, dtype and device."""
        return self.generator.normal(inputs.shape, mean, stddev, inputs.dtype, inputs.device)

    def require(self, what: str, value: Any, below_one: bool = False) -> float:
        """`value` as a number in [0, 1], or [0, 1)."""
        if not isinstance(value, (int, float)) or not (0 <= value < 1 or (value == 1 and not below_one)):
            self.fail(f"{what} must be in [0, 1{')' if below_one else ']'}, got {value!r}")
        return value


class Dropout(Noise):
    """Zero a share of the inputs at random, and divide the others by 1 - rate; only while training.

    Args:
        rate: the share to drop, in [0, 1].
        noise_shape: the shape of the mask, 1 along axes on which values fall together; None stands for the inputs'
            own length.
        seed: an integer, for a mask sequence of its own.
    """

    def __init__(self, rate: float, noise_shape: Any = None, seed: int | None = None, **kwargs: Any):
        super().__init__(seed, **kwargs)
        self.rate = self.require("rate", rate)
        if noise_shape is not None:
            if isinstance(noise_shape, (str, int)):
                self.fail(f"noise_shape must be a tuple of integers or None, got {noise_shape!r}")
            if not all(n is None or (isinstance(n, int) and n > 0) for n in noise_shape):
                self.fail(f"noise_shape must hold positive integers or None, got {noise_shape!r}")
        self.noise_shape = None if noise_shape is None else tuple(noise_shape)

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        if not training or self.rate == 0:
            return inputs
        try:
            return dropout(inputs, self.rate, self.generator, self.mask_shape(inputs))
        except ValueError as error:
            return self.fail(str(error))

    def mask_shape(self, inputs: Tensor) -> tuple | None:
        """The shape of the mask for these inputs."""
        return self.noise_shape


class SpatialDropout1D(Dropout):
    """Dropout of whole channels: (batch, time, channels) inputs, one mask for all times.

    Args:
        rate: the share to drop, in [0, 1].
        seed: an integer, for a mask sequence of its own.
    """

    axes = 1

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any):
        super().__init__(rate, None, seed, **kwargs)

    def mask_shape(self, inputs: Tensor) -> tuple:
        if inputs.ndim != self.axes + 2:
            self.fail(f"expected inputs of {self.axes + 2} axes, got shape {inputs.shape}")
        return (None, *[1] * self.axes, None)


class SpatialDropout2D(SpatialDropout1D):
    """Dropout of whole channels: (batch, height, width, channels) inputs, one mask for all places.

    Args:
        rate: the share to drop, in [0, 1].
        seed: an integer, for a mask sequence of its own.
    """

    axes = 2


class GaussianNoise(Noise):
    """Add normal noise of mean 0; only while training.

    Args:
        stddev: of the noise, in [0, 1].
        seed: an integer, for a noise sequence of its own.
    """

    def __init__(self, stddev: float, seed: int | None = None, **kwargs: Any):
        super().__init__(seed, **kwargs)
        self.stddev = self.require("stddev", stddev)

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        return inputs + self.noise(inputs, 0.0, self.stddev) if training and self.stddev else inputs


class GaussianDropout(Noise):
    """Multiply by normal noise of mean 1 and standard deviation sqrt(rate / (1 - rate)); only while training.

    Args:
        rate: as of Dropout, in [0, 1).
        seed: an integer, for a noise sequence of its own.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any):
        super().__init__(seed, **kwargs)
        self.rate = self.require("rate", rate, below_one=True)

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        if not training or self.rate == 0:
            return inputs
        return inputs * self.noise(inputs, 1.0, math.sqrt(self.rate / (1 - self.rate)))
