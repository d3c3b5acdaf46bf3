"""Windows that slide over time, or height and width: how many fit, how far to pad, and what each of them sees.

Along one axis, output o of a window sees at its position k the input o * stride + k * dilation - before, where
(before, after) is the padding. Everything here is about lengths and indices, and so the same on every device.
"""

from collections.abc import Iterator, Sequence
from typing import Any

Pair = tuple[int, int]
AXES = {1: ("time",), 2: ("height", "width")}
BLOCK_BYTES = 1 << 20  # what a kernel unfolds at a time: stays in a core's cache


def numbers(value: Any, rank: int, argument: str, least: int = 1) -> tuple[int, ...]:
    """An argument that is one integer for all of `rank` axes, or one for each, as a tuple.

    Raises:
        ValueError: another number of them, or one that is no integer or less than `least`.
    """
    values = (value,) * rank if isinstance(value, int) else value
    try:
        found = tuple(int(v) for v in values)
    except (TypeError, ValueError):
        found = ()
    if len(found) != rank or min(found) < least or any(f != v for f, v in zip(found, values)):
        many = f"an integer or {rank} integers" if rank > 1 else "an integer"
        raise ValueError(f"{argument} must be {many} of at least {least}, got {value!r}")
    return found


def padding_pairs(
    padding: Any, size: Sequence[int], window: Sequence[int], strides: Sequence[int], dilation: Sequence[int] = (1, 1)
) -> tuple[Pair, ...]:
    """(before, after) for each axis of `size`, from a padding's name or from numbers.

    "valid" is none; "same" gives ceil(length / stride) outputs, with the odd one at the end, as TensorFlow does;
    "causal", for one axis only, lets no output see a later input.

    Raises:
        ValueError: another name, or not a pair of numbers of at least 0 for each axis.
    """
    if isinstance(padding, str):
        if padding == "valid":
            return ((0, 0),) * len(size)
        if padding == "same":
            return tuple(map(_same, size, window, strides, dilation))
        if padding == "causal" and len(size) == 1:
            return ((span(window[0], dilation[0]) - 1, 0),)
        causal = '"causal", ' if len(size) == 1 else ""
        raise ValueError(f'padding must be "valid", "same", {causal}or numbers, got {padding!r}')
    pairs = padding if isinstance(padding, (list, tuple)) else ()
    if len(size) == 1 and len(pairs) == 2 and isinstance(pairs[0], int):
        pairs = [padding]
    if len(pairs) != len(size):
        raise ValueError(f"padding must be {len(size)} pairs (before, after), got {padding!r}")
    return tuple(numbers(pair, 2, "each padding", least=0) for pair in pairs)  # type: ignore[misc]


def _same(length: int, window: int, stride: int, dilation: int) -> Pair:
    outputs = -(-length // stride)
    total = max((outputs - 1) * stride + span(window, dilation) - length, 0)
    return total // 2, total - total // 2


def span(window: int, dilation: int = 1) -> int:
    """The length from a window's first value to its last one."""
    return (window - 1) * dilation + 1


def require_fit(
    size: Sequence[int], window: Sequence[int], padding: Sequence[Pair], dilation: Sequence[int] = (1, 1)
) -> None:
    """Raise a ValueError if no window fits into the padded input."""
    for axis, n, w, pad, d in zip(AXES[len(size)], size, window, padding, dilation):
        if n == 0 or n + sum(pad) < span(w, d):
            spread = f" with dilation {d}, so {span(w, d)} long," if d > 1 else ""
            raise ValueError(f"a window of {w}{spread} does not fit into an input of {axis} {n} with padding {pad}")


def output_size(
    size: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[Pair],
    dilation: Sequence[int] = (1, 1),
) -> tuple[int, ...]:
    """The number of windows along each axis."""
    lengths = zip(size, window, strides, padding, dilation)
    return tuple((n + sum(pad) - span(w, d)) // stride + 1 for n, w, stride, pad, d in lengths)


def taps(
    size: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[Pair],
    dilation: Sequence[int] = (1, 1),
) -> Iterator[tuple[int, int, tuple, tuple]]:
    """Each position of a window in turn, row by row, with what it sees of an input of `size` (height, width).

    Yields:
        row and column in the window; an index of (batch, output height, output width, ...): the windows whose value
        there lies in the input and not in the padding; an index of (batch, height, width, ...): those values.
    """
    outputs = output_size(size, window, strides, padding, dilation)
    rows, columns = (
        [_seen(k * dilation[a] - padding[a][0], size[a], outputs[a], strides[a]) for k in range(window[a])]
        for a in (0, 1)
    )
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            yield i, j, (slice(None), row[0], column[0]), (slice(None), row[1], column[1])


def _seen(offset: int, length: int, outputs: int, stride: int) -> tuple[slice, slice]:
    """The outputs o for which o * stride + offset is in [0, length), and those inputs."""
    first = max(0, -(offset // stride))
    count = max(0, min(outputs, (length - 1 - offset) // stride + 1) - first)
    start = first * stride + offset
    return slice(first, first + count), slice(start, start + max(0, (count - 1) * stride + 1), stride)


def batch_blocks(batch: int, bytes_per_sample: int) -> Iterator[slice]:
    """Slices that cover a batch, each of as many samples as fit in BLOCK_BYTES, and at least one."""
    step = max(1, BLOCK_BYTES // max(1, bytes_per_sample))
    return (slice(start, min(start + step, batch)) for start in range(0, batch, step))
