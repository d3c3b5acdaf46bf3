"""Steps of a GPU that can be repeated: each is captured into a CUDA graph, whose launch does all of it again.

A graph's arguments are fixed when it is captured, so what changes from step to step is in the device's memory: the
optimizer's numbers (see update.py), where random numbers begin, and where the batch is. The graph begins by gathering
the batch into arrays of its own: from the data set, which stays on the device if it is small enough, or from where
the batch was sent to. It ends by moving on the place in the data set and the generators, as the host does on its
side; only where the host is somewhere else, as after a shuffle, it writes a few words before the launch. A graph of
several steps brings each but the first its learning rate, too, from a list that the host wrote.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from threading import get_ident
from time import perf_counter
from typing import Any
from weakref import WeakSet

import numpy as np

from dlgpu.backend.cuda.geometry import BLOCK, blocks_for
from dlgpu.backend.cuda.resident import Resident, aligned
from dlgpu.backend.cuda.source import source
from dlgpu.backend.held import replaced
from dlgpu.backend.memory import is_shortage
from dlgpu.backend.recorder import drawn_by

SOURCES = 64  # random generators that a step may draw from
INPUTS = 3  # that `gather_batch` gathers: x, y and weights of most models
RATES = 15  # learning rates that `write_rates` writes: those of the steps of a graph but the first
WORDS = {16: "uint4", 8: "unsigned long long", 4: "unsigned", 2: "unsigned short", 1: "unsigned char"}


class Repeater:
    """Captures steps; see dlgpu.backend.repeater.

    The memory that steps need between their beginning and their end is one pool's, and serves all graphs: none leaves
    anything there, and none runs beside another, as all are launched on one stream.
    """

    most = 8
    tells = True
    at_once = 1 + RATES

    def __init__(self, index: int):
        self.index = index
        self.cupy = import_module("cupy")
        self.resident: Resident | None = None
        self._graphs: WeakSet = WeakSet()  # whose memory the pool must not give back
        with self.cupy.cuda.Device(index):
            self.pool = self.cupy.cuda.MemoryPool(taken)
            # the default stream cannot be captured; and what is freed on one stream a pool gives to that one only
            self.stream = self.cupy.cuda.Stream(non_blocking=True)

    def record(self, run: Callable[[list], None], batch: Any, send: Callable[[Any], list], held: list) -> "Captured":
        """Do a step so that it can be repeated with other batches, if that is possible."""
        with self.cupy.cuda.Device(self.index):
            arrays = send(batch)
            self.cupy.get_default_memory_pool().free_all_blocks()  # steps as they are written have left it there
            made = Captured(self, arrays, batch.samples)
            try:
                made.capture(run, held)
            except Exception as error:  # an error of the step itself comes again
                made.problem = f"{type(error).__name__}: {error}"
            if made.problem is None:
                self._graphs.add(made)
                made.load(batch, send)
                made.replay()
            else:  # not above, where the error still holds what was made
                if not self._graphs:
                    self.pool.free_all_blocks()
                run(arrays)
            return made

    def holdings(self) -> dict[str, int]:
        """Bytes by what they are for; captured steps have a pool of their own."""
        with self.cupy.cuda.Device(self.index):
            data = 0 if self.resident is None else sum(a.nbytes for a in self.resident.arrays)
            return {"the data set": data, "captured steps": self.pool.total_bytes()}

    def at_home(self, batch: Any, inputs: list) -> Resident | None:
        """The data set of the batch, on the device; None if it is too large or not a data set."""
        data = getattr(batch, "data", None)
        if data is None or (batch.order is None and type(batch.rows) is not slice):
            return None
        if self.resident is None or self.resident.data is not data:
            self.resident = None  # its memory is free before the next one comes
            self.resident = Resident(self.cupy, data, [i.dtype for i in inputs])
        return self.resident if self.resident.fits else None


class Distance(int):
    """How far a draw of a captured step begins from where the generator is before the step.

    Attributes:
        state: (3,) uint64 on the device, the generator's seed and counter then.
    """

    state: Any


class Captured:
    """A step that was captured, with all memory that it needs.

    Attributes:
        inputs: the arrays into which the graph gathers its batch.
        problem: why it could not be captured; None if it was.
        sources: of the random numbers that it draws.
        graph: of one step.
    """

    def __init__(self, repeater: Repeater, arrays: list, samples: int):
        self.repeater, self.cupy, self.samples = repeater, repeater.cupy, samples
        self.problem: str | None = None
        self.sources: list = []
        self._first: list[tuple[int, int]] = []  # of each source, its state before the step that is captured
        self._drawn: list[int] = []  # of each source, how many blocks a step draws
        self._at: list = []  # of each source, where the device is
        self.graph: Any = None
        self._used: list = []  # arrays that the graphs read and write
        with self.cupy.cuda.using_allocator(repeater.pool.malloc):
            self.inputs = [self.cupy.empty(a.shape, a.dtype) for a in arrays]
            self._table = self.cupy.zeros(2 + len(arrays), np.uint64)
            self._states = self.cupy.zeros((SOURCES, 3), np.uint64)
            self._totals = self.cupy.zeros((SOURCES, 2), np.uint64)
            self._rates = self.cupy.zeros(RATES, np.float64)
        self._readers: Any = None  # addresses of the optimizer's learning rates
        self._words = [0] * (2 + len(arrays))  # what the table holds
        self._later: list[float] | None = None  # the learning rates that the device has
        self._kept: Any = None  # what the table points at, until the launch

    # -- capture

    def capture(self, run: Callable[[list], None], held: list) -> None:
        """Capture a step, without doing it.

        Raises:
            Exception: the step does what cannot be captured, such as to read a value.
        """
        self.graph = self._graph(run, held, 1)
        for i, blocks in enumerate(self._drawn):
            self._write(self._totals, 2 * i, [blocks % 2**64, blocks >> 64])

    def capture_group(self, run: Callable[[list], None], held: list, count: int, rates: list) -> Any:
        """A graph of so many steps; None if that cannot be.

        Args:
            run, held: see Repeater.record.
            count: how often it runs.
            rates: arrays whose first number is the learning rate.
        """
        with self.cupy.cuda.Device(self.repeater.index):
            try:
                if self._readers is None:
                    with self.cupy.cuda.using_allocator(self.repeater.pool.malloc):
                        readers = self.cupy.empty(len(rates), np.uint64)
                    self._write(readers, 0, [a.data.ptr for a in rates])
                    self._readers = readers
                return self._graph(run, held, count)
            except Exception:  # too little memory, or a layer that has changed: single steps go on as they are
                return None

    def _graph(self, run: Callable[[list], None], held: list, count: int) -> Any:
        graph: list = []
        with replaced(held, lambda array: array) as used, self._capturing(graph):
            for number in range(count):
                self._step(run, number, number + 1 == count)
        self._used += used
        return graph[0]

    def _step(self, run: Callable[[list], None], number: int, last: bool) -> None:
        self._first = [s.state for s in self.sources]
        self._gather()
        try:
            with drawn_by(self):
                run(self.inputs)
        finally:
            drawn = [(s.counter - first) % 2**128 for s, (_, first) in zip(self.sources, self._first)]
            for generator, first in zip(self.sources, self._first):
                generator.state = first
        if self.graph is not None and drawn != self._drawn:
            raise RuntimeError("the step does not draw the same random numbers each time")
        self._drawn = drawn
        args = (self._table, self.samples, self._states, self._totals, len(self.sources))
        rate = (None, None, 0) if last else (self._rates[number:], self._readers, len(self._readers))
        source("graph.cu").launch("move_on", 1, 32, (*args, *rate))

    @contextmanager
    def _capturing(self, graph: list) -> Iterator[None]:
        """What is done inside joins a graph, which is put into the list."""
        cuda = self.cupy.cuda
        pool, thread = self.cupy.get_default_pinned_memory_pool(), get_ident()

        def page_locked(size: int) -> Any:
            """A copy from the host would have it, and the graph read it again when it has long been given to others."""
            if get_ident() != thread:
                return pool.malloc(size)
            raise RuntimeError(
                "it copies values from the host, such as a NumPy array: make them an array of the GPU once"
            )

        cuda.set_pinned_memory_allocator(page_locked)
        try:
            stream = self.repeater.stream
            with stream, cuda.using_allocator(self.repeater.pool.malloc):
                stream.begin_capture()
                try:
                    yield
                except BaseException:
                    with suppress(Exception):  # it says again that the capture is lost, but must be called
                        stream.end_capture()
                    raise
                graph.append(stream.end_capture())
        finally:
            cuda.set_pinned_memory_allocator(pool.malloc)

    def _gather(self) -> None:
        for first in range(0, len(self.inputs), INPUTS):
            outs = self.inputs[first : first + INPUTS]
            widths, none = [out.nbytes // max(1, len(out)) for out in outs], [None] * (INPUTS - len(outs))
            word = next(size for size in WORDS if not any(width % size for width in widths))
            sizes = [width // word for width in widths] + [0] * len(none)
            args = (self._table, first, *outs, *none, len(outs[0]), *sizes)
            grid = blocks_for(len(outs[0]) * max(sizes)), len(outs)
            source("graph.cu").launch("gather_batch", grid, BLOCK, args, defines=(f"WORD={WORDS[word]}",))

    def draw(self, generator: Any, words: int) -> tuple:
        """The seed of a generator and a Distance, at which random words begin in each launch."""
        found = [i for i, s in enumerate(self.sources) if s is generator]
        if not found:
            if len(self.sources) == SOURCES:
                raise RuntimeError(f"the step draws from more than {SOURCES} random generators")
            self.sources.append(generator)
            self._first.append(generator.state)
            self._at.append(None)
        i = found[0] if found else len(self.sources) - 1
        seed, counter = generator.advance(words)
        if seed != self._first[i][0]:
            raise RuntimeError("the step sets the seed of a random generator")
        distance = Distance((counter - self._first[i][1]) % 2**128)
        distance.state = self._states[i]
        return seed, distance

    # -- replay

    def load(self, batch: Any, send: Callable[[Any], list]) -> bool:
        """Let the graph find another batch; False: nothing that the step reads of it could have been missed."""
        if not self.load_first(batch):
            with self.cupy.cuda.Device(self.repeater.index):
                sent = [aligned(self.cupy, a) for a in send(batch)]
                self._point(sent, [0, 0, *(a.data.ptr for a in sent)])
        return False

    def load_first(self, batch: Any) -> bool:
        """Let a graph find its first batch, and all that follow, where they stay; False: they do not."""
        with self.cupy.cuda.Device(self.repeater.index):
            home = self.repeater.at_home(batch, self.inputs)
            if home is not None:
                self._point(home, home.words(batch))
        return home is not None

    def replay(self) -> None:
        """Launch a step on the batch that was loaded; the host does not wait for it."""
        self._launch(self.graph, 1)

    def replay_group(self, graph: Any, rates: list[float]) -> None:
        """Launch several steps, from the batch that was loaded on, with these learning rates.

        The first one's is there already, where the optimizer reads it.
        """
        later = rates[1:]
        if later != self._later:
            self._later = None
            with self.cupy.cuda.Device(self.repeater.index):
                args = (self._rates, len(later), *later, *[0.0] * (RATES - len(later)))
                source("graph.cu").launch("write_rates", 1, 1, args)
            self._later = later
        self._launch(graph, len(rates))

    def _launch(self, graph: Any, count: int) -> None:
        with self.cupy.cuda.Device(self.repeater.index):
            at = []
            for i, (generator, blocks) in enumerate(zip(self.sources, self._drawn)):
                seed, counter = generator.advance(4 * blocks * count)
                if self._at[i] != (seed, counter):
                    self._write(self._states, 3 * i, [seed, counter % 2**64, counter >> 64])
                self._at[i] = None
                at.append((seed, (counter + count * blocks) % 2**128))
            # a launch that Ctrl-C ends may have moved the device on, or not: then all is written anew
            words, self._words = self._words, [-1] * len(self._words)
            graph.launch()
            words[1] += count * self.samples
            self._words, self._at = words, at
            self._kept = None  # whatever takes its memory now comes later on the same stream

    def timed(self) -> float:
        """Launch a step, and wait for it; the seconds that it took."""
        with self.cupy.cuda.Device(self.repeater.index):
            stream = self.cupy.cuda.get_current_stream()
            stream.synchronize()
            start = perf_counter()
            self.replay()
            stream.synchronize()
            return perf_counter() - start

    def again(self, run: Callable[[list], None], arrays: list, held: list) -> bool:
        """Do the step as it is written; whether it can still be repeated."""
        run(arrays)
        with self.cupy.cuda.Device(self.repeater.index):
            self.cupy.get_default_memory_pool().free_all_blocks()  # the graph has memory of its own
        return True

    def _point(self, kept: Any, words: list[int]) -> None:
        """Write the table, and keep what it points at."""
        self._kept = kept
        self._write(self._table, 0, words, self._words)
        self._words = words

    def _write(self, target: Any, start: int, words: list[int], known: list[int] | None = None) -> None:
        """target[start : start + len(words)] = words, if they are not those that are known to be there."""
        for first in range(0, len(words), 4):
            some = words[first : first + 4]
            if known is None or some != known[first : first + 4]:
                args = (target, start + first, len(some), *some, *[0] * (4 - len(some)))
                source("graph.cu").launch("write_words", 1, 4, args)


def taken(size: int) -> Any:
    """Memory of the device, for a pool of graphs.

    A pool answers CUDA's own error by giving back what is free, and asks once more; but graphs use that.
    """
    cuda = import_module("cupy").cuda
    try:
        return cuda.MemoryPointer(cuda.Memory(size), 0)
    except cuda.runtime.CUDARuntimeError as error:
        if not is_shortage(error):
            raise
        raise MemoryError("there is too little memory for a graph beside what is in use") from None
