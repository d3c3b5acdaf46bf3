"""Random numbers on any device from a state of two integers, and dropout."""

import math
import operator
import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from dlgpu.backend import recorder
from dlgpu.backend.devices import Device, current_device, device
from dlgpu.backend.reference import random as kernels
from dlgpu.ops.operands import floating
from dlgpu.tensor import Tensor, record

_taking = threading.Lock()


class Generator:
    """A stream of random numbers: Philox 4x32-10, keyed by the seed, at a position that only moves forward.

    The whole state is two integers. The same state gives the same bits on every device, save for normals, which may
    differ in the last place. The methods return plain arrays, of the current device or of `device`.

    Args:
        seed: an integer in [0, 2**64); from the operating system's entropy by default.
    """

    def __init__(self, seed: int | None = None):
        self.reset(seed)

    def reset(self, seed: int | None = None) -> None:
        """Begin anew with a seed.

        Raises:
            ValueError: the seed is not in [0, 2**64).
        """
        seed = int.from_bytes(os.urandom(8), "little") if seed is None else operator.index(seed)
        if not 0 <= seed < 2**64:
            raise ValueError(f"expected a seed in [0, 2**64), got {seed}")
        self.seed, self.counter = seed, 0

    @property
    def state(self) -> tuple[int, int]:
        """(seed, counter): settable, to go on from where a checkpoint was."""
        return self.seed, self.counter

    @state.setter
    def state(self, state: Sequence[int]) -> None:
        seed, counter = map(operator.index, state)
        if not (0 <= seed < 2**64 and 0 <= counter < 2**128):
            raise ValueError(f"expected a seed in [0, 2**64) and a counter in [0, 2**128), got {seed} and {counter}")
        self.seed, self.counter = seed, counter

    def take(self, words: int) -> tuple[int, int]:
        """Reserve random words (a multiple of 4) and return the (seed, counter) at which they begin."""
        drawer = recorder.drawing()
        return self.advance(words) if drawer is None else drawer.draw(self, words)

    def advance(self, words: int) -> tuple[int, int]:
        """Reserve random words at once, whether a step is being recorded or not."""
        with _taking:
            start = self.state
            self.counter = (self.counter + -(-words // 4)) % 2**128
        return start

    def uniform(
        self, shape: Any = (), low: float = 0.0, high: float = 1.0, dtype: Any = np.float32, device: Any = None
    ) -> Any:
        """Uniform in [low, high), on a grid of 2**24 points, or 2**53 for float64; rounding may reach `high`."""
        with _place(device) as place:
            out = place.empty(shape, dtype)
            kernels.random_uniform(out, low, high, *self.take(out.size * _words(out)))
        return out

    def normal(
        self, shape: Any = (), mean: float = 0.0, stddev: float = 1.0, dtype: Any = np.float32, device: Any = None
    ) -> Any:
        """Normally distributed with this mean and standard deviation."""
        with _place(device) as place:
            out = place.empty(shape, dtype)
            kernels.random_normal(out, mean, stddev, *self.take((out.size + 1) * _words(out)))
        return out

    def integers(
        self, low: int, high: int | None = None, shape: Any = (), dtype: Any = np.int64, device: Any = None
    ) -> Any:
        """Integers in [low, high), or in [0, low) if `high` is left out.

        Raises:
            ValueError: the range is empty or longer than 2**32.
        """
        low, high = (0, low) if high is None else (low, high)
        if not 0 < high - low <= 2**32:
            raise ValueError(f"expected a range of 1 to 2**32 integers, got [{low}, {high})")
        with _place(device) as place:
            out = place.empty(shape, dtype)
            kernels.random_integers(out, low, high, *self.take(out.size * 2))
        return out

    def bernoulli(self, shape: Any = (), probability: float = 0.5, device: Any = None) -> Any:
        """Booleans that are true with this probability, to 2**-32.

        Raises:
            ValueError: the probability is not in [0, 1].
        """
        if not 0 <= probability <= 1:
            raise ValueError(f"expected a probability in [0, 1], got {probability}")
        with _place(device) as place:
            out = place.empty(shape, bool)
            start = self.take(out.size)
            if probability == 1:
                out[...] = True
            else:
                kernels.random_bernoulli(out, probability, *start)
        return out

    def permutation(self, n: int, device: Any = "cpu") -> Any:
        """The integers 0 ... n - 1 in random order, (n,) int64; on the host, to shuffle data there, by default."""
        with _place(device) as place:
            out = place.empty(n, np.int64)
            kernels.random_permutation(out, *self.take(2 * n))
        return out

    def __repr__(self) -> str:
        return f"Generator(seed={self.seed}, counter={self.counter})"


_default = Generator()


def default_generator() -> Generator:
    """The process's generator, from which everything draws that has no seed of its own."""
    return _default


def set_random_seed(seed: int) -> None:
    """Begin the process's random numbers anew: the same seed gives the same bits."""
    _default.reset(operator.index(seed))


def dropout(x: Any, rate: float, generator: Generator | None = None, noise_shape: Any = None) -> Tensor:
    """Zero a share `rate` of the values, and divide the others by 1 - rate so that the expectation stays.

    The mask is not kept: the gradient draws it again.

    Args:
        x: floating, any shape.
        rate: in [0, 1]; at 0, x itself.
        generator: the default one if left out.
        noise_shape: the shape of the mask, 1 along axes on which values fall together; None stands for x's length.
    Raises:
        ValueError: the rate is not in [0, 1], or `noise_shape` does not fit x.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"expected a dropout rate in [0, 1], got {rate}")
    x = floating(x)
    if rate == 0:
        return x
    shape = x.shape
    if noise_shape is not None:
        shape = tuple(own if n is None else n for n, own in zip(noise_shape, x.shape))
        if len(noise_shape) != x.ndim or any(n not in (1, own) for n, own in zip(shape, x.shape)):
            raise ValueError(f"noise_shape {tuple(noise_shape)} does not fit inputs of shape {x.shape}")
    if rate == 1:
        return x * 0
    return _dropped(x, rate, *(generator or _default).take(math.prod(shape)), shape)


def _dropped(x: Tensor, rate: float, seed: int, counter: int, shape: tuple) -> Tensor:
    """Dropout with a certain mask; it is linear, and its own transpose."""
    array = kernels.dropout(x.array, rate, seed, counter, shape)
    return record(array, (x,), lambda grad: (_dropped(grad, rate, seed, counter, shape),))


def _place(where: str | Device | None) -> Device:
    """The device to draw on: the current one, if none is named."""
    return current_device() if where is None else device(where)


def _words(out: Any) -> int:
    """How many words a floating value takes."""
    return 2 if out.dtype == np.float64 else 1
