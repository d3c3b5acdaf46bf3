"""Work shared by threads of our own, which native code hands over: Numba's abort when two Python threads enter them.

Each worker has a mailbox, a row of integers. Its state says what may be written there, and by whom:

    ASLEEP   until Python writes WOKEN and wakes the worker, which writes READY
    READY    waiting for work, for a while; whoever replaces this by CLAIMED, at once, may write the other words
    CLAIMED  by who then writes POSTED
    POSTED   plus DONE, until the worker replaces it by RUNNING, or who wrote it takes it back, having done all else
    RUNNING  the worker runs FUNCTION with BLOCK, counts DONE and writes READY

What finds no worker READY is done by the thread that has it. So nobody waits for a thread that has no processor.
"""

import os
import platform
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dlgpu.backend.cpu.native import Loop, Prepared, instructions, invoke, run
from dlgpu.backend.recorder import call, compiled

# NUMBA_NUM_THREADS, or the processors of this process
_affinity = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
_wanted = os.environ.get("NUMBA_NUM_THREADS", "")
THREADS = max(1, int(_wanted)) if _wanted.isdecimal() else len(_affinity(0))

STATE, FUNCTION, BLOCK, DONE, WORDS = 0, 1, 2, 3, 8
ASLEEP, READY, CLAIMED, RUNNING, WOKEN, POSTED = range(6)
TURNS = 1 << 13  # of looking whether the state has changed: some 100 to 200 microseconds
NAPS = 1 << 9  # of some 100 microseconds each, between looks, before a worker sleeps
X86, POSIX = platform.machine().lower() in ("x86_64", "amd64"), os.name == "posix"


def share(loop: Callable, length: int, grain: int, *args: Any) -> None:
    """loop(*args, start, stop) over all of range(length), in parts that threads work on at once; a recorded call.

    Parts begin at multiples of 64, or of 1 in short ranges. Another caller may have the threads, so an item's result
    must not depend on where its part begins.

    Args:
        loop: compiled.
        length: the number of items.
        grain: as many items as are worth a thread: some 10 microseconds of work.
        args: the loop's first arguments.
    """
    if alone(length, grain):
        call(loop, *args, 0, length)
    else:
        call(spread, loop, length, grain, *args)


def alone(length: int, grain: int) -> bool:
    """Whether it does not pay to wake another thread."""
    return length < 2 * grain or THREADS < 2


def spread(loop: Any, length: int, grain: int, *args: Any) -> None:
    """The same, inside of a recorded call."""
    pool.wake()
    run_parts(*_shared(loop, length, grain, args))


def _shared(loop: Any, length: int, grain: int, args: Sequence) -> list:
    """The arguments of `run_parts`."""
    threads = max(1, min(THREADS, length // grain))
    size = -(-length // threads)
    size = -(-size // 64) * 64 if size > 256 else size
    parts = [Prepared(loop, [*args, i, min(i + size, length)]) for i in range(0, length, size)] if length else []
    table = np.array([(part.address, part.place, 0) for part in parts], np.int64).reshape(-1, 3).view(_Table)
    table.parts = parts
    return [pool.mailboxes, table]


class _Table(np.ndarray):
    """The functions and blocks of parts, which it keeps."""

    parts: list


class Worker(threading.Thread):
    """A thread that does what comes to its mailbox."""

    def __init__(self, mailbox: np.ndarray):
        super().__init__(daemon=True, name="dlgpu-worker")
        self.mailbox, self._serve = mailbox, Prepared(serve, [mailbox])
        self.wanted = threading.Lock()
        self.wanted.acquire()
        self.start()

    def run(self) -> None:
        while True:
            self.wanted.acquire()
            self._serve()

    def wake(self) -> None:
        """It will be ready within some 100 microseconds."""
        if self.mailbox[STATE] == ASLEEP:
            self.mailbox[STATE] = WOKEN
            self.wanted.release()


class ThreadPool:
    """The process's workers."""

    def __init__(self) -> None:
        self.mailboxes = np.zeros((max(THREADS - 1, 1), WORDS), np.int64)
        self.workers: list[Worker] = []
        self._most, self._lock = THREADS - 1, threading.Lock()

    def wake(self) -> None:
        """Wake all workers that sleep."""
        with self._lock:  # another thread's worker would do the same mailbox's work again
            while len(self.workers) < self._most:
                try:
                    self.workers.append(Worker(self.mailboxes[len(self.workers)]))
                except RuntimeError:  # no more threads may be started: what they would do is done by others
                    self._most = len(self.workers)
            for worker in self.workers:
                worker.wake()

    def forget(self) -> None:
        """A forked child has none of its parent's threads."""
        self.mailboxes[:] = 0
        self.workers, self._lock = [], threading.Lock()


pool = ThreadPool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool.forget)


# -- in native code


@Loop
def serve(mailbox: Any) -> None:
    turn = 0
    write(mailbox, STATE, READY)
    while True:
        state = read(mailbox, STATE)
        if state >= POSTED and replace(mailbox, STATE, state, RUNNING):
            invoke(mailbox[FUNCTION], mailbox[BLOCK])
            write(mailbox, DONE, mailbox[DONE] + 1)
            write(mailbox, STATE, READY)
            turn = 0
        turn += 1
        if turn < TURNS:
            pause()
        elif turn < TURNS + NAPS:
            nap()
        elif replace(mailbox, STATE, READY, ASLEEP):
            return


@Loop
def run_parts(mailboxes: Any, parts: Any) -> None:
    """Do all parts, rows of a function, a block and a free word: the first here, the others where a worker is ready."""
    turn = 0
    for i in range(1, len(parts)):
        mailbox = mailboxes[min(i, len(mailboxes)) - 1]
        while turn < TURNS and read(mailbox, STATE) == WOKEN:  # Python has just woken it
            turn += 1
            pause()
        parts[i, 2] = -1
        if i <= len(mailboxes) and replace(mailbox, STATE, READY, CLAIMED):
            mailbox[FUNCTION], mailbox[BLOCK], parts[i, 2] = parts[i, 0], parts[i, 1], mailbox[DONE]
            write(mailbox, STATE, POSTED + parts[i, 2])
    for i in range(len(parts)):
        if i == 0 or parts[i, 2] < 0:
            invoke(parts[i, 0], parts[i, 1])
    for i in range(1, len(parts)):
        if parts[i, 2] >= 0 and replace(mailboxes[i - 1], STATE, POSTED + parts[i, 2], CLAIMED):
            write(mailboxes[i - 1], DONE, parts[i, 2] + 1)
            write(mailboxes[i - 1], STATE, READY)
            invoke(parts[i, 0], parts[i, 1])
    for i in range(1, len(parts)):
        turn = 0
        while parts[i, 2] >= 0 and read(mailboxes[i - 1], DONE) == parts[i, 2]:
            turn += 1
            if turn < TURNS:
                pause()
            else:
                nap()


def _place(builder: Any, context: Any, signature: Any, args: Any) -> Any:
    mailbox = context.make_array(signature.args[0])(context, builder, args[0])
    return builder.gep(mailbox.data, [args[1]])


@instructions
def read(typing, mailbox, place):
    """The word at a place, and after it whatever its writer wrote before."""
    from numba import types

    def generate(context, builder, signature, args):
        return builder.load_atomic(_place(builder, context, signature, args), "seq_cst", 8)

    return types.int64(mailbox, types.int64), generate


@instructions
def write(typing, mailbox, place, word):
    """Write the word at a place, after all that was written before."""
    from numba import types

    def generate(context, builder, signature, args):
        builder.store_atomic(args[2], _place(builder, context, signature, args), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(mailbox, types.int64, types.int64), generate


@instructions
def replace(typing, mailbox, place, before, after):
    """Write `after` at a place if `before` is there, with nobody in between; whether it was."""
    from numba import types

    def generate(context, builder, signature, args):
        place = _place(builder, context, signature, args)
        return builder.extract_value(builder.cmpxchg(place, args[2], args[3], "seq_cst", "seq_cst"), 1)

    return types.boolean(mailbox, types.int64, types.int64, types.int64), generate


@instructions
def pause(typing):
    """Let the processor know that this loop waits."""
    from llvmlite import ir
    from numba import types

    def generate(context, builder, signature, args):
        if X86:
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", (), kind), [])
        return context.get_dummy_value()

    return types.void(), generate


@instructions
def nap(typing):
    """Leave the processor to others for some 50 microseconds."""
    from llvmlite import ir
    from numba import types
    from numba.core.cgutils import get_or_insert_function

    def generate(context, builder, signature, args):
        if POSIX:
            integer = ir.IntType(32)
            kind = ir.FunctionType(integer, [integer])
            builder.call(get_or_insert_function(builder.module, kind, "usleep"), [integer(50)])
        return context.get_dummy_value()

    return types.void(), generate


def as_loop(_: Callable, args: Sequence) -> tuple[Callable, list]:
    """What a recorded call of `spread` is."""
    loop, length, grain, *rest = args
    return run_parts, _shared(loop, length, grain, rest)


compiled[spread] = as_loop


class Joined:
    """Calls of loops, (loop, args), made natively one after another: see `Recording.finish`."""

    def __init__(self, calls: Sequence):
        self.calls = [Prepared(loop, args) for loop, args in calls]
        self._shared = any(loop is run_parts for loop, _ in calls)
        self._run = Prepared(run, [np.array([(call.address, call.place) for call in self.calls], np.int64)])

    def __call__(self) -> None:
        self.wake()
        self._run()

    def wake(self) -> None:
        """Wake the workers, if they share one of the calls."""
        if self._shared:
            pool.wake()


Loop.join = Joined
