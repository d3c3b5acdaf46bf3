"""Random initializers. Drawn on the host, so that weights begin equal on every device."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dlgpu.initializers.base import Initializer
from dlgpu.ops.random import Generator, default_generator

# The standard deviation of a standard normal distribution that is cut off at -2 and 2.
TRUNCATED_STDDEV = 0.87962566103423978


class RandomUniform(Initializer):
    """Uniform in [minval, maxval).

    Args:
        minval, maxval: the range.
        seed: an integer, for the same values at every call.
    """

    aliases = ("uniform",)

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None):
        self.minval = minval
        self.maxval = maxval
        self.seed = seed

    def __call__(self, shape: Sequence[int], dtype: Any = np.float32) -> np.ndarray:
        return _uniform(shape, self.minval, self.maxval, dtype, self.seed)


class RandomNormal(Initializer):
    """Normally distributed.

    Args:
        mean, stddev: of the distribution.
        seed: an integer, for the same values at every call.
    """

    aliases = ("normal",)

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None):
        self.mean = mean
        self.stddev = stddev
        self.seed = seed

    def __call__(self, shape: Sequence[int], dtype: Any = np.float32) -> np.ndarray:
        return _normal(shape, self.mean, self.stddev, dtype, self.seed)


class TruncatedNormal(RandomNormal):
    """Normally distributed, but values two standard deviations or more from the mean are drawn again.

    Args:
        mean, stddev: of the distribution before it is cut.
        seed: an integer, for the same values at every call.
    """

    def __call__(self, shape: Sequence[int], dtype: Any = np.float32) -> np.ndarray:
        return _truncated_normal(shape, self.mean, self.stddev, dtype, self.seed)


class VarianceScaling(Initializer):
    """Mean 0 and variance scale / n, with n the number of a unit's inputs, of its outputs, or their mean.

    Args:
        scale: above 0.
        mode: "fan_in", "fan_out" or "fan_avg".
        distribution: "truncated_normal" (alias "normal"), "untruncated_normal" or "uniform".
        seed: an integer, for the same values at every call.
        input_axes, output_axes: the weight's axes along which inputs and outputs lie; by default the last but one and
            the last, each times the receptive field, which is all axes before them.
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ):
        name = type(self).__name__
        if scale <= 0:
            raise ValueError(f"{name}: scale must be positive, got {scale}")
        if mode not in ("fan_in", "fan_out", "fan_avg"):
            raise ValueError(f"{name}: mode must be 'fan_in', 'fan_out' or 'fan_avg', got {mode!r}")
        distribution = "truncated_normal" if distribution == "normal" else distribution
        if distribution not in ("uniform", "truncated_normal", "untruncated_normal"):
            raise ValueError(
                f"{name}: distribution must be 'uniform', 'truncated_normal' or 'untruncated_normal', "
                f"got {distribution!r}"
            )
        self.scale = scale
        self.mode = mode
        self.distribution = distribution
        self.seed = seed
        self.input_axes = input_axes
        self.output_axes = output_axes

    def __call__(self, shape: Sequence[int], dtype: Any = np.float32) -> np.ndarray:
        fan_in, fan_out = fans(shape, self.input_axes, self.output_axes)
        count = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, count)
        if self.distribution == "uniform":
            limit = math.sqrt(3 * variance)
            return _uniform(shape, -limit, limit, dtype, self.seed)
        if self.distribution == "untruncated_normal":
            return _normal(shape, 0.0, math.sqrt(variance), dtype, self.seed)
        return _truncated_normal(shape, 0.0, math.sqrt(variance) / TRUNCATED_STDDEV, dtype, self.seed)


class _Preset(VarianceScaling, abstract=True):
    """A VarianceScaling whose scale, mode and distribution are given."""

    preset: tuple[float, str, str]

    def __init__(
        self,
        seed: int | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ):
        super().__init__(*self.preset, seed, input_axes, output_axes)


class GlorotUniform(_Preset):
    """Uniform in +-sqrt(6 / (fan_in + fan_out))  (Glorot & Bengio, 2010)."""

    preset = 1.0, "fan_avg", "uniform"


class GlorotNormal(_Preset):
    """Truncated normal of variance 2 / (fan_in + fan_out)  (Glorot & Bengio, 2010)."""

    preset = 1.0, "fan_avg", "truncated_normal"


class LecunUniform(_Preset):
    """Uniform in +-sqrt(3 / fan_in)  (LeCun et al., 1998)."""

    preset = 1.0, "fan_in", "uniform"


class LecunNormal(_Preset):
    """Truncated normal of variance 1 / fan_in  (Klambauer et al., 2017)."""

    preset = 1.0, "fan_in", "truncated_normal"


class HeUniform(_Preset):
    """Uniform in +-sqrt(6 / fan_in)  (He et al., 2015)."""

    preset = 2.0, "fan_in", "uniform"


class HeNormal(_Preset):
    """Truncated normal of variance 2 / fan_in  (He et al., 2015)."""

    preset = 2.0, "fan_in", "truncated_normal"


class Orthogonal(Initializer):
    """A random matrix with orthonormal columns or, where there are more of them than rows, orthonormal rows.

    All axes but the last are taken together as rows (Saxe, McClelland & Ganguli, 2014).

    Args:
        gain: a factor on it.
        seed: an integer, for the same values at every call.
    """

    aliases = ("OrthogonalInitializer",)

    def __init__(self, gain: float = 1.0, seed: int | None = None):
        self.gain = gain
        self.seed = seed

    def __call__(self, shape: Sequence[int], dtype: Any = np.float32) -> np.ndarray:
        if len(shape) < 2:
            raise ValueError(f"Orthogonal: expected a shape of two axes or more, got {tuple(shape)}")
        rows, columns = math.prod(shape[:-1]), shape[-1]
        drawn = _normal((max(rows, columns), min(rows, columns)), 0.0, 1.0, np.float64, self.seed)
        q, r = np.linalg.qr(drawn)
        # the signs make every such matrix equally likely
        q *= np.where(np.diag(r) < 0, -1, 1)
        q = q if rows >= columns else q.T
        return (self.gain * q.reshape(shape)).astype(dtype)


def fans(
    shape: Sequence[int], input_axes: Sequence[int] | None = None, output_axes: Sequence[int] | None = None
) -> tuple[int, int]:
    """The numbers of inputs and of outputs of a unit whose weight has this shape; see VarianceScaling."""
    if input_axes is not None and output_axes is not None:
        return math.prod(shape[axis] for axis in input_axes), math.prod(shape[axis] for axis in output_axes)
    if len(shape) < 2:
        return (shape[0], shape[0]) if shape else (1, 1)
    field = math.prod(shape[:-2])
    return field * shape[-2], field * shape[-1]


def _generator(seed: int | None) -> Generator:
    return default_generator() if seed is None else Generator(seed)


def _drawn(dtype: Any) -> Any:
    """The dtype to draw in: narrower ones than float32 are rounded afterwards."""
    return np.float64 if np.dtype(dtype) == np.float64 else np.float32


def _uniform(shape: Sequence[int], low: float, high: float, dtype: Any, seed: int | None) -> np.ndarray:
    return _generator(seed).uniform(tuple(shape), low, high, _drawn(dtype), "cpu").astype(dtype, copy=False)


def _normal(shape: Sequence[int], mean: float, stddev: float, dtype: Any, seed: int | None) -> np.ndarray:
    return _generator(seed).normal(tuple(shape), mean, stddev, _drawn(dtype), "cpu").astype(dtype, copy=False)


def _truncated_normal(shape: Sequence[int], mean: float, stddev: float, dtype: Any, seed: int | None) -> np.ndarray:
    generator = _generator(seed)
    drawn = generator.normal(tuple(shape), dtype=_drawn(dtype), device="cpu")
    flat = drawn.reshape(-1)
    outside = np.flatnonzero(np.abs(flat) >= 2)
    while outside.size:
        flat[outside] = generator.normal(outside.size, dtype=_drawn(dtype), device="cpu")
        outside = outside[np.abs(flat[outside]) >= 2]
    return (mean + stddev * drawn).astype(dtype, copy=False)
