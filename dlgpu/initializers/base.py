"""Initializer: how a weight begins; and those that give the same values at every call."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dlgpu.saving.configurable import Configurable
from dlgpu.tensor import Tensor

WINDOWS = {"hann": np.hanning, "hamming": np.hamming, "blackman": np.blackman}


class Initializer(Configurable):
    """A function of (shape, dtype) to a NumPy array.

    The random ones draw from the process's generator, or, given a `seed`, the same values at every call.
    """

    def __call__(self, shape: Sequence[int], dtype: Any = np.float32) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__} does not define __call__(shape, dtype)")

    @classmethod
    def get(cls, identifier: Any) -> Any:
        """The initializer that `identifier` means: an Initializer, its class, a name, a configuration, a function of
        (shape, dtype), an array, or None.

        Raises:
            ValueError: an unknown name; the message names the nearest known one.
        """
        if isinstance(identifier, (np.ndarray, Tensor)):
            return Constant(np.asarray(identifier))
        if callable(identifier) and not isinstance(identifier, (type, Initializer)):
            return identifier
        return super().get(identifier)


def get(identifier: Any) -> Any:
    """The initializer that `identifier` means; see `Initializer.get`."""
    return Initializer.get(identifier)


class Zeros(Initializer):
    """All zeros."""

    aliases = ("zero",)

    def __call__(self, shape: Sequence[int], dtype: Any = np.float32) -> np.ndarray:
        return np.zeros(shape, dtype)


class Ones(Initializer):
    """All ones."""

    aliases = ("one",)

    def __call__(self, shape: Sequence[int], dtype: Any = np.float32) -> np.ndarray:
        return np.ones(shape, dtype)


class Constant(Initializer):
    """A given value everywhere, or a given array.

    Args:
        value: a number, or an array that broadcasts to the weight's shape.
    """

    def __init__(self, value: Any = 0.0):
        self.value = value

    def __call__(self, shape: Sequence[int], dtype: Any = np.float32) -> np.ndarray:
        value, shape = np.asarray(self.value, dtype), tuple(shape)
        try:
            return np.broadcast_to(value, shape).copy()
        except ValueError:
            raise ValueError(f"Constant: values of shape {value.shape} do not fit a weight of shape {shape}") from None


class Identity(Initializer):
    """gain on the diagonal of a matrix, zeros beside it.

    Args:
        gain: the factor.
    """

    aliases = ("IdentityInitializer",)

    def __init__(self, gain: float = 1.0):
        self.gain = gain

    def __call__(self, shape: Sequence[int], dtype: Any = np.float32) -> np.ndarray:
        if len(shape) != 2:
            raise ValueError(f"Identity: expected the shape of a matrix, got {tuple(shape)}")
        return np.eye(*shape, dtype=dtype) * np.asarray(self.gain, dtype)


class STFT(Initializer):
    """The Fourier transform of short pieces of a signal as a convolution: window[t] * cos(-2 pi t f / n), or sin.

    The shape is (length of a piece t, 1, frequencies f), with n = 2 * (frequencies - 1).

    Args:
        side: "real" for the cosines or "imag" for the sines.
        window: "hann", "hamming", "blackman", an array of the length of a piece, or None for ones.
        scaling: divide by the window's norm ("density"), by the sum of its absolute values ("spectrum"), or not (None).
        periodic: whether the window is one period of a longer one.
    """

    aliases = ("STFTInitializer",)

    def __init__(
        self, side: str = "real", window: Any = "hann", scaling: str | None = "density", periodic: bool = False
    ):
        for what, value, known in (
            ("side", side, ("real", "imag")),
            ("window", window if isinstance(window, str) else None, (*WINDOWS, None)),
            ("scaling", scaling, ("density", "spectrum", None)),
        ):
            if value not in known:
                raise ValueError(f"STFT: {what} must be one of {', '.join(map(repr, known))}, got {value!r}")
        self.side = side
        self.window = window
        self.scaling = scaling
        self.periodic = periodic

    def __call__(self, shape: Sequence[int], dtype: Any = np.float32) -> np.ndarray:
        if len(shape) != 3:
            raise ValueError(f"STFT: expected a shape (length, 1, frequencies), got {tuple(shape)}")
        length, _, frequencies = shape
        turns = np.outer(np.arange(length), np.arange(frequencies)) / max(2 * (frequencies - 1), 1)
        kernel = np.cos(2 * np.pi * turns) if self.side == "real" else -np.sin(2 * np.pi * turns)
        if self.window is not None:
            window = self._window(length)
            norms = {"density": np.sqrt(np.square(window).sum()), "spectrum": np.abs(window).sum(), None: 1.0}
            kernel *= window[:, None] / norms[self.scaling]
        return np.broadcast_to(kernel[:, None, :], shape).astype(dtype)

    def _window(self, length: int) -> np.ndarray:
        if not isinstance(self.window, str):
            window = np.asarray(self.window, np.float64)
            if window.shape != (length,):
                raise ValueError(f"STFT: expected a window of shape ({length},), got {window.shape}")
            return window
        return WINDOWS[self.window](length + 1)[:-1] if self.periodic else WINDOWS[self.window](length)
