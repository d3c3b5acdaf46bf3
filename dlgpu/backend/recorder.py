"""What a step does to arrays, recorded once and replayed: a flat list of calls on memory that stays where it is.

The kernels of the CPU column note their own calls by `call`, on memory from `empty`; `traced` notes everything else.
"""

import itertools
import math
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

ALIGNMENT = 64  # bytes: a cache line, and the longest vector


class _State(threading.local):
    recording: "Recording | None" = None
    drawing: Any = None


_state = _State()


def call(function: Callable, *args: Any) -> None:
    """function(*args), which writes its results into arrays among the args; recorded, if a step is being recorded."""
    if _state.recording is not None:
        _state.recording.add(function, *args)
    function(*args)


def empty(shape: Any, dtype: Any) -> np.ndarray:
    """An array of undefined values, on memory that a recorded step keeps."""
    return np.empty(shape, dtype) if _state.recording is None else _state.recording.memory.empty(shape, dtype)


def active() -> "Recording | None":
    """The recording in progress in this thread."""
    return _state.recording


def drawing() -> Any:
    """What numbers are to be drawn by, in this thread: a recording or another thing with its `draw`; None outside."""
    return _state.drawing


@contextmanager
def drawn_by(drawer: Any) -> Iterator[None]:
    """Draw numbers by `drawer` inside the `with`, in this thread."""
    outer, _state.drawing = _state.drawing, drawer
    try:
        yield
    finally:
        _state.drawing = outer


class Memory:
    """Blocks for arrays. One is used again as soon as nobody refers to its array any more: at each replay alike.

    Of free blocks only those are kept that a recorded call refers to.
    """

    def __init__(self) -> None:
        self._free: dict[int, list[weakref.ref[np.ndarray]]] = {}

    def empty(self, shape: Any, dtype: Any) -> np.ndarray:
        """An array of undefined values."""
        count = math.prod(shape) if isinstance(shape, tuple) else int(shape)
        size = -(-count * np.dtype(dtype).itemsize // ALIGNMENT) * ALIGNMENT
        if not size:
            return np.empty(shape, dtype)
        free = self._free.setdefault(size, [])
        block = None
        while free and block is None:
            block = free.pop()()
        if block is None:
            block = np.empty(size + ALIGNMENT, np.uint8)
        start = -block.ctypes.data % ALIGNMENT
        array = np.frombuffer(block[start : start + size].data, dtype, count)
        # the base of the array and of all its views is a memoryview, which lives as long as one of them
        _leases[id(array.base)] = Lease()
        weakref.finalize(array.base, _end, id(array.base), free, block).atexit = False
        return array.reshape(shape)


class Lease:
    """An array's right to a block.

    Attributes:
        uses: how many arrays in recorded calls are on it.
    """

    uses = 0


_leases: dict[int, Lease] = {}


def _end(lease: int, free: "list[weakref.ref[np.ndarray]]", block: np.ndarray) -> None:
    del _leases[lease]
    free.append(weakref.ref(block))


def kept(array: np.ndarray) -> np.ndarray:
    """The same values at the same place, without a lease on them: what the recorded call refers to."""
    return _kept(array)[0]


def _kept(array: np.ndarray) -> tuple[np.ndarray, Lease | None]:
    root: Any = array
    while isinstance(root, np.ndarray) and root.base is not None:
        root = root.base
    lease = _leases.get(id(root))
    if lease is None:
        return array.view(np.ndarray), None
    lease.uses += 1
    block = root.obj
    return np.ndarray(array.shape, array.dtype, block, array.ctypes.data - block.ctypes.data, array.strides), lease


class Wide(int):
    """An unsigned number of up to 128 bits; loops get its lower and its upper half."""


class Drawn(Wide):
    """A number that is drawn anew at each replay, such as the position of a random generator."""

    uses: list


def _redraw(draw: Callable[[], tuple], numbers: tuple) -> None:
    for number, value in zip(numbers, draw()):
        for args, place in number.uses:
            args[place] = value


# For functions of NumPy's: (function, args) to the (function, args) that can be joined, where a column has one.
compiled: dict[Callable, Callable[[Callable, Any], tuple[Callable, Any]]] = {}


def _as_it_is(function: Callable, args: Any) -> tuple[Callable, Any]:
    return function, args


def _nothing() -> None:
    pass


def _extent(array: np.ndarray) -> int:
    """How many bytes after its first value its last one ends; more than any buffer has for negative strides."""
    if min(array.strides, default=0) < 0:
        return 1 << 62
    return sum((n - 1) * step for n, step in zip(array.shape, array.strides)) + array.itemsize if array.size else 0


class Recording:
    """The calls of one step.

    Attributes:
        program: (function, args) in order.
        draws: (draw, numbers) in order; these come before the program.
        memory: where the arrays live that the step makes.
        sources: of the numbers that each replay draws.
        replayable: False after something that a list of calls cannot do again.
    """

    def __init__(self, memory: "Memory | None" = None) -> None:
        self.program: list[tuple[Callable, Any]] = []
        self.draws: list[tuple[Callable, tuple]] = []
        self.leases: list[list[Lease | None]] = []  # of each call's arguments
        self.memory = memory or Memory()
        self.sources: list = []
        self.replayable = True
        self.inside = False  # a kernel that notes its own calls

    @contextmanager
    def active(self) -> Iterator[None]:
        """Record what happens inside the `with`, in this thread."""
        outer, _state.recording = _state.recording, self
        try:
            with drawn_by(self):
                yield
        finally:
            _state.recording = outer

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Record nothing inside the `with`."""
        _state.recording = None
        try:
            with drawn_by(None):
                yield
        finally:
            _state.recording = self

    def draw(self, source: Any, words: int) -> tuple:
        """The numbers that `source.advance(words)` gives, now and at each replay; its `state` can be set."""
        draw = partial(source.advance, words)
        numbers = tuple(map(Drawn, draw()))
        for n in numbers:
            n.uses = []
        self.sources.append(source)
        self.draws.append((draw, numbers))
        return numbers

    def replay(self) -> None:
        """Do all of it again."""
        for draw, numbers in self.draws:
            _redraw(draw, numbers)
        for function, args in self.program:
            function(*args)

    def finish(self) -> None:
        """Make one of neighbouring calls whose functions can be joined: they have an attribute `join` for it."""
        self._write_in_place()
        joined: list[tuple[Callable, Any]] = []
        program = [compiled.get(function, _as_it_is)(function, args) for function, args in self.program]
        for join, calls in itertools.groupby(program, key=lambda noted: getattr(noted[0], "join", None)):
            found = list(calls)
            joined += found if join is None else [(join(found), ())]
        self.program = joined

    def _write_in_place(self) -> None:
        """What is made only to be copied somewhere else, as gradients are, is made there."""
        for copying in [n for n, (function, args) in enumerate(self.program) if function is np.copyto]:
            args, lease = self.program[copying][1], self.leases[copying][-1]
            places = [(n, i) for n, leases in enumerate(self.leases) for i, used in enumerate(leases) if used is lease]
            if lease is None or len(args) != 2 or len(places) != lease.uses or places[-1][0] != copying:
                continue
            target, source = args
            same = target.shape == source.shape and target.dtype == source.dtype
            if not (same and target.flags.c_contiguous and source.flags.c_contiguous):
                continue
            offsets = [self.program[n][1][i].ctypes.data - source.ctypes.data for n, i in places]
            ends = [offset + _extent(self.program[n][1][i]) for offset, (n, i) in zip(offsets, places)]
            between = [a for n in range(places[0][0], copying) for a in self.program[n][1] if isinstance(a, np.ndarray)]
            if min(offsets) < 0 or max(ends) > source.nbytes or any(np.may_share_memory(target, a) for a in between):
                continue
            buffer = target.reshape(-1).view(np.uint8)
            for (n, i), offset in zip(places, offsets):
                array = self.program[n][1][i]
                self.program[n][1][i] = np.ndarray(array.shape, array.dtype, buffer, offset, array.strides)
            self.program[copying] = _nothing, []
        done = [n for n, (function, _) in enumerate(self.program) if function is not _nothing]
        self.program = [self.program[n] for n in done]

    def add(self, function: Callable, *args: Any) -> None:
        """Note a call."""
        both = [_kept(a) if isinstance(a, np.ndarray) else (a, None) for a in args]
        own: Any = [a for a, _ in both]
        self.leases.append([lease for _, lease in both])
        for place, number in enumerate(args):
            if isinstance(number, Drawn):
                number.uses.append((own, place))
        self.program.append((function, own))

    def result(self, value: Any) -> Any:
        """`value`, the array or scalar that a call has just made, copied to where each replay is to put it."""
        axes = sorted(range(value.ndim), key=lambda axis: -abs(value.strides[axis]))  # the same order in memory
        made = self.memory.empty(tuple(value.shape[axis] for axis in axes), value.dtype)
        made = made.transpose(np.argsort(axes)) if axes else made
        made[...] = value
        return made
