"""What convolution and pooling share: a window that slides over time, or over height and width."""

from collections.abc import Sequence
from typing import Any

from dlgpu.backend import windows
from dlgpu.layers.base import Layer


class Windowed(Layer, abstract=True):
    """A layer whose window slides over the axes between batch and channels, of which there are `rank`."""

    rank = 2
    paddings: tuple[str, ...] = ("valid", "same")

    def numbers(self, value: Any, argument: str, least: int = 1) -> tuple[int, ...]:
        """An argument as a tuple of one integer for each axis."""
        try:
            return windows.numbers(value, self.rank, argument, least)
        except ValueError as error:
            return self.fail(str(error))

    def padding_name(self, padding: Any) -> str:
        """The argument `padding`, checked."""
        name = padding.lower() if isinstance(padding, str) else padding
        if name not in self.paddings:
            self.fail(f"padding must be one of {', '.join(map(repr, self.paddings))}, got {padding!r}")
        return name

    def slide(
        self,
        shape: tuple,
        window: Sequence[int],
        strides: Sequence[int],
        padding: str,
        dilation: Sequence[int] = (1, 1),
    ) -> tuple:
        """The number of windows along each axis of inputs of `shape`, None where the length is unknown."""
        if len(shape) != self.rank + 2:
            self.fail(f"expected inputs of shape {self.expected()}, got {shape}")
        # an unknown length is taken for one that fits
        size = [windows.span(w, d) if n is None else n for n, w, d in zip(shape[1:-1], window, dilation)]
        pairs = windows.padding_pairs(padding, size, window, strides, dilation)
        try:
            windows.require_fit(size, window, pairs, dilation)
        except ValueError as error:
            self.fail(str(error))
        counts = windows.output_size(size, window, strides, pairs, dilation)
        return tuple(None if n is None else count for n, count in zip(shape[1:-1], counts))

    def expected(self, channels: Any = "channels") -> str:
        """The shape of the inputs in words."""
        return f"(batch, {', '.join(windows.AXES[self.rank])}, {channels})"
