"""Work handed over to threads: all of it is done, once, whoever has the threads."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from dlgpu.backend.cpu import threads
from dlgpu.backend.cpu.jit import jit
from dlgpu.backend.cpu.threads import Joined
from dlgpu.backend.recorder import Recording


@jit
def count(out, start, stop):
    for i in range(start, stop):
        out[i] += i + 1


@pytest.fixture
def many(monkeypatch):
    """Four threads, however many processors there are."""
    monkeypatch.setattr(threads, "THREADS", 4)
    pool = threads.ThreadPool()
    monkeypatch.setattr(threads, "pool", pool)
    return pool


def at_once(work, times):
    """Call work(0), work(1), ... in as many threads of Python."""
    callers = [threading.Thread(target=work, args=(n,)) for n in range(times)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()


@pytest.mark.parametrize("length", [0, 1, 2, 63, 64, 257, 1000, 100_003])
@pytest.mark.parametrize("grain", [1, 64, 1000])
def test_every_item_is_worked_on_once(length, grain, many):
    for times in (1, 2):
        out = np.zeros(length)
        for _ in range(times):
            threads.share(count, length, grain, out)
        np.testing.assert_array_equal(out, times * np.arange(1, length + 1))


def test_workers_take_part_and_sleep_when_nothing_comes(many):
    out = np.zeros(1 << 20)
    deadline = time.monotonic() + 30
    while not many.mailboxes[:, threads.DONE].all():
        threads.spread(count, out.size, 1, out)
        assert time.monotonic() < deadline
    while (many.mailboxes[:, threads.STATE] != threads.ASLEEP).any():
        time.sleep(0.001)
        assert time.monotonic() < deadline
    before = out.copy()
    threads.spread(count, out.size, 1, out)
    np.testing.assert_array_equal(out - before, np.arange(1, out.size + 1))


def test_recorded_work_is_joined_with_what_is_around_it(many):
    recording, out = Recording(), np.zeros(1000)
    with recording.active():
        threads.share(count, 1000, 600, out)
        threads.share(count, 1000, 1, out)
        threads.share(count, 1000, 600, out)
    recording.finish()
    assert [type(function) for function, _ in recording.program] == [Joined]
    for replay in range(1, 40):
        recording.replay()
        np.testing.assert_array_equal(out, 3 * (replay + 1) * np.arange(1, 1001))


def test_threads_of_python_share_the_workers(many):
    found = {}

    def work(name):
        out = np.zeros(5000)
        for _ in range(200):
            threads.spread(count, 5000, 1, out)
        found[name] = out

    at_once(work, 4)
    assert len(found) == 4
    for out in found.values():
        np.testing.assert_array_equal(out, 200 * np.arange(1, 5001))


def test_a_forked_child_has_workers_of_its_own():
    out = np.zeros(5000)
    threads.spread(count, 5000, 1, out)
    child = os.fork()
    if child == 0:
        threads.spread(count, 5000, 1, out)
        os._exit(int(not np.array_equal(out, 2 * np.arange(1, 5001))))
    assert os.waitpid(child, 0)[1] == 0


def test_a_pool_that_many_call_first_has_one_worker_for_each_mailbox(many):
    at_once(lambda _: many.wake(), 8)
    assert [worker.mailbox.ctypes.data for worker in many.workers] == [
        mailbox.ctypes.data for mailbox in many.mailboxes
    ]


def test_where_no_thread_can_be_started_one_does_it_all(many, monkeypatch):
    def full(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads.Worker, "start", full)
    out = np.zeros(5000)
    for _ in range(2):
        threads.spread(count, 5000, 1, out)
    np.testing.assert_array_equal(out, 2 * np.arange(1, 5001))
    assert not many.workers


@pytest.mark.parametrize(("asked", "threads_"), [("3", 3), ("0", 1), ("", None), ("junk", None)])
def test_the_number_of_threads_is_asked_of_the_environment(asked, threads_):
    code = "import os; from dlgpu.backend.cpu.threads import THREADS; print(THREADS, len(os.sched_getaffinity(0)))"
    environment = {**os.environ, "NUMBA_NUM_THREADS": asked}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    found, processors = map(int, told.stdout.split())
    assert found == (threads_ or processors)
