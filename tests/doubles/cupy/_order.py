"""Which work happens before which: streams, events, and what they owe to each other.

Each stream counts its work. A clock says, for each stream, up to which count its work is known to be done; events carry
clocks from one stream to another, and to the host. Work on an array must know of the work on it before: else, on a GPU,
they would race. A copy from pinned memory is done as late as it may be, so that a buffer written too early shows.
"""

import itertools
import threading


class Race(AssertionError):
    """Two streams, or a stream and the host, use the same memory with nothing that orders them."""


class _Local(threading.local):
    def __init__(self):
        self.device = 0
        self.streams = {}
        self.capture = None
        self.allocator = None
        self.waits = self.sends = 0  # how often the host has waited for a device, and sent an array there


local = _Local()
host = {}  # the clock of the host: what it has waited for
_waiting = []  # copies not done yet: (stream, count, function)
_numbers = itertools.count()


class Line:
    """The work of one stream."""

    def __init__(self, device):
        self.device, self.number, self.count, self.clock = device, next(_numbers), 0, {}

    def work(self):
        """One more piece of work; the host starts it, so what the host knows is done."""
        learn(self.clock, host)
        self.count += 1
        self.clock[self.number] = self.count
        return self.count


class Memory:
    """One allocation: where it is, and who used it last."""

    __slots__ = ("device", "reads", "write")

    def __init__(self, device):
        self.device, self.write, self.reads = device, None, {}

    def use(self, line, writes):
        """Work of this line reads it, or writes to it.

        Raises:
            Race: nothing says that the work before has ended.
        """
        before = [self.write] if self.write else []
        if writes:
            before += self.reads.items()
        for number, count in before:
            if line.clock.get(number, 0) < count:
                raise Race("an array is used on one stream while another may still be at work on it: wait for an event")
        if writes:
            self.write, self.reads = (line.number, line.count), {}
        else:
            self.reads[line.number] = line.count


def learn(clock, more):
    """A clock that knows what `more` knows too."""
    for number, count in more.items():
        if clock.get(number, 0) < count:
            clock[number] = count


def wait(clock):
    """The host waits for all that this clock knows."""
    learn(host, clock)
    run(clock)


def later(line, function):
    """Do this when somebody waits for it."""
    _waiting.append((line.number, line.count, function))


def run(clock):
    """Do the copies that this clock says are done."""
    due = [entry for entry in _waiting if clock.get(entry[0], 0) >= entry[1]]
    for entry in due:
        _waiting.remove(entry)
        entry[2]()
