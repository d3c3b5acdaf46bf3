"""Stand-in for `cupy.cuda.memory`: devices of limited memory, and pools that take it and keep what is freed.

No address is ever given twice: only numbers of bytes are kept here. See `_graph` for what becomes of a graph's.
"""

from collections import defaultdict
from contextlib import contextmanager

from cupy import _order
from cupy.cuda import runtime

BLOCK = 512  # bytes, to multiples of which CuPy rounds


class OutOfMemoryError(MemoryError):
    def __init__(self, size, total, limit=0):
        self._size, self._total, self._limit = size, total, limit
        limited = f", limit set to: {limit:,} bytes" if limit else ""
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes{limited}).")


class Memory:
    """Memory of the device, as cudaMalloc gives it."""

    size = device_id = 0

    def __init__(self, size):
        self.device_id = _order.local.device
        if runtime.taken[self.device_id] + size > runtime.capacity:
            raise runtime.CUDARuntimeError("cudaErrorMemoryAllocation: out of memory")
        runtime.taken[self.device_id] += size
        self.size = size

    def __del__(self):
        runtime.taken[self.device_id] -= self.size


class MemoryPointer:
    """What an allocator returns; the stand-in's arrays only keep it."""

    def __init__(self, mem, offset):
        self.mem = mem


class Pooled:
    """A part of a pool's memory that is in use."""

    def __init__(self, pool, arena, size):
        self.pool, self.arena, self.size = pool, arena, size
        arena.used += size

    def __del__(self):
        self.arena.used -= self.size


class Arena:
    """The memory of a pool on one device for one stream: the largest that it needed at once, in any pieces."""

    def __init__(self):
        self.used, self.taken = 0, []

    total = property(lambda self: sum(pointer.mem.size for pointer in self.taken))


class MemoryPool:
    def __init__(self, allocator=None):
        self._allocator = allocator or (lambda size: MemoryPointer(Memory(size), 0))
        self._arenas = defaultdict(Arena)
        self._limits = defaultdict(int)

    def malloc(self, size):
        from cupy.cuda import get_current_stream

        size = -(-size // BLOCK) * BLOCK
        arena = self._arenas[_order.local.device, get_current_stream().ptr]
        lack = arena.used + size - arena.total
        if lack > 0:
            arena.taken.append(self._more(lack, size))
        return MemoryPointer(Pooled(self, arena, size), 0)

    def _more(self, lack, size):
        total, limit = self.total_bytes(), self.get_limit()
        if limit and total + lack > limit:
            raise OutOfMemoryError(size, total, limit)
        for _ in range(2):
            try:
                return self._allocator(lack)
            except runtime.CUDARuntimeError as error:
                if "cudaErrorMemoryAllocation" not in str(error):
                    raise
                self.free_all_blocks()
        raise OutOfMemoryError(size, total, limit)

    def _here(self):
        return [arena for (device, _), arena in self._arenas.items() if device == _order.local.device]

    def free_all_blocks(self, stream=None):
        for arena in self._here():
            free = arena.total - arena.used
            for pointer in list(arena.taken):
                given = min(free, pointer.mem.size)
                free -= given
                pointer.mem.size -= given
                runtime.taken[pointer.mem.device_id] -= given
            arena.taken = [pointer for pointer in arena.taken if pointer.mem.size]

    def used_bytes(self):
        return sum(arena.used for arena in self._here())

    def free_bytes(self):
        return self.total_bytes() - self.used_bytes()

    def total_bytes(self):
        return sum(arena.total for arena in self._here())

    def set_limit(self, size=None, fraction=None):
        self._limits[_order.local.device] = size or 0

    def get_limit(self):
        return self._limits[_order.local.device]


default_memory_pool = MemoryPool()


def allocated(size):
    """Memory for an array, from the allocator that counts here."""
    return (_order.local.allocator or default_memory_pool.malloc)(size)


@contextmanager
def using_allocator(allocator=None):
    before, _order.local.allocator = _order.local.allocator, allocator
    try:
        yield
    finally:
        _order.local.allocator = before
