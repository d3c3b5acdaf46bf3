"""What graphs cost the host, and what cannot be captured: as the stand-in for CuPy counts and refuses it."""

from itertools import islice

import cupy
import numpy as np
import pytest
from cupy import _order
from cupy.cuda import MemoryPool, Stream, runtime, using_allocator

import dlgpu
from benchmarks import programs
from dlgpu import layers, schedules
from dlgpu.backend.cuda import graph, resident
from dlgpu.backend.cuda.source import Source
from dlgpu.data import ArrayData
from dlgpu.training import groups, replay
from tests.cuda.captured import X, Y, captured, dense_model

# A small step is bound by their number. Products go through dlgpu's own kernels here, as where nvmath-python is absent.
NODES = {"fnn": 16, "cnn": 23, "rnn": 26, "lstm": 27}


class Counted:
    """How often the host waits and sends arrays, and which of dlgpu's kernels it launches outside of graphs."""

    def __init__(self, monkeypatch):
        self.launches = []
        launch = Source.launch
        monkeypatch.setattr(
            Source, "launch", lambda code, name, *a, **k: (self.launches.append(name), launch(code, name, *a, **k))[1]
        )

    def of(self, step, batches):
        self.launches.clear()
        waits, sends = _order.local.waits, _order.local.sends
        for batch in batches:
            step.train(*(batch if isinstance(batch, list) else [batch]))
        return _order.local.waits - waits, _order.local.sends - sends, list(self.launches)


def steady(model, **options):
    """A step of a model that has been trained, and batches of the data set that it knows."""
    data = ArrayData(X[:64], Y[:64], batch_size=8)
    model.fit(data, epochs=3, verbose=0, **options)
    assert captured(model) == [True]
    model._step.begin_training()
    return model._step, data.batches(np.arange(64))


def test_a_steady_step_is_one_launch_and_the_host_waits_for_nothing(monkeypatch):
    counted = Counted(monkeypatch)
    step, batches = steady(dense_model(layers.Dropout(0.3)))
    assert counted.of(step, islice(batches, 1))[0] == 0  # the new order, and where the generator has been set to
    assert counted.of(step, batches) == (0, 0, [])


def test_several_steps_are_one_launch_and_the_host_waits_for_nothing(monkeypatch):
    monkeypatch.setattr(replay, "MANY", 2)
    monkeypatch.setattr(groups, "LOOK", 1e9)
    monkeypatch.setattr(graph.Repeater, "at_once", 4)
    counted, launched = Counted(monkeypatch), []
    step, _ = steady(dense_model(layers.Dropout(0.3)))
    monkeypatch.setattr(graph.Captured, "_launch", lambda *a, f=graph.Captured._launch: launched.append(a[2]) or f(*a))
    batches = ArrayData(X[:64], Y[:64], batch_size=8)
    for data in (batches, batches):
        step.begin_training()
        cut = list(step.groups(data.batches(None), 8))
        found = [counted.of(step, [group]) for group in cut]
    assert [len(group) for group in cut] == [4, 4]
    assert found == [(0, 0, ["write_words"]), (0, 0, [])]  # where in the data set the pass begins
    assert launched[-2:] == [4, 4]


def test_several_steps_with_a_schedule_cost_two_launches_more(monkeypatch):
    monkeypatch.setattr(replay, "MANY", 2)
    monkeypatch.setattr(groups, "LOOK", 1e9)
    counted = Counted(monkeypatch)
    optimizer = dlgpu.optimizers.Adam(schedules.ExponentialDecay(0.01, 3, 0.9), gradient_accumulation_steps=2)
    model, data = dense_model(layers.Dropout(0.3), optimizer=optimizer), ArrayData(X[:64], Y[:64], batch_size=8)
    model.fit(data, epochs=6, verbose=0)
    step = model._step
    step.begin_training()
    for _ in range(2):
        (group,) = step.groups(data.batches(np.arange(64)), 8)
        found = counted.of(step, [group])
    assert len(group) == 8
    assert found == (0, 1, ["write_words", "write_rates"])  # another order of the samples is sent


def test_a_step_whose_batch_is_sent_waits_for_the_last_but_one_copy_only(monkeypatch):
    monkeypatch.setattr(resident, "SHARE", 0)
    counted = Counted(monkeypatch)
    step, batches = steady(dense_model(layers.Dropout(0.3)))
    counted.of(step, islice(batches, 2))
    assert counted.of(step, batches) == (6, 6, ["write_words"] * 6)


def test_a_schedule_costs_one_number_a_step(monkeypatch):
    counted = Counted(monkeypatch)
    rate = schedules.ExponentialDecay(0.01, 3, 0.9)
    step, batches = steady(dense_model(optimizer=dlgpu.optimizers.Adam(rate)))
    assert counted.of(step, islice(batches, 1))[0] == 0
    assert counted.of(step, batches) == (0, 0, [])


@pytest.mark.parametrize(("program", "nodes"), NODES.items())
def test_a_step_of_each_program_has_few_kernels(program, nodes):
    model = programs.keras_model("dlgpu", program)
    model.fit(*programs.data(program, 3 * 32), batch_size=32, verbose=0)
    (found,) = model._step.replays._known.values()
    assert found.recording.graph.nodes == nodes


# -- the stand-in is as strict as CUDA


@pytest.fixture
def x():
    return cupy.arange(6, dtype=np.float32).reshape(2, 3)


def capture(work, pool, stream=None):
    """The graph of some work."""
    stream = stream or Stream(non_blocking=True)
    with stream, using_allocator(pool and pool.malloc):
        stream.begin_capture()
        try:
            work()
        finally:
            made = stream.end_capture()
    return made


def test_nothing_is_done_before_the_launch_and_all_of_it_at_each(x):
    pool, out, twice = MemoryPool(), cupy.zeros((2, 2), np.float32), cupy.zeros(2, np.int64)

    def work():
        total = cupy.zeros((2, 1), np.float32)
        total += x.sum(axis=1, keepdims=True)
        out[...] = out + total[:, twice]

    made = capture(work, pool)
    assert not out.get().any()
    for n in (1, 2):
        made.launch()
        np.testing.assert_array_equal(out.get(), [[3 * n] * 2, [12 * n] * 2])
    x[...] = 1
    made.launch()
    np.testing.assert_array_equal(out.get(), [[9] * 2, [27] * 2])


@pytest.mark.parametrize(
    ("misuse", "error", "message"),
    [
        (lambda x: float(x[0, 0]), runtime.CUDARuntimeError, "copy to the host"),
        (lambda x: x[x > 0], runtime.CUDARuntimeError, "shape goes by values"),
        (lambda x: x.set(np.zeros((2, 3), "f")), runtime.CUDARuntimeError, "copy from the host"),
        (lambda x: x.sort(), runtime.CUDARuntimeError, "sort"),
        (lambda x: cupy.cuda.Device().synchronize(), runtime.CUDARuntimeError, "waiting"),
        (lambda x: cupy.cuda.Event().synchronize(), runtime.CUDARuntimeError, "waiting"),
        (lambda x: x @ x.T, NotImplementedError, "cuBLAS"),
    ],
)
def test_what_cuda_does_not_capture_is_refused(x, misuse, error, message):
    stream = Stream(non_blocking=True)
    with stream, using_allocator(MemoryPool().malloc):
        stream.begin_capture()
        with pytest.raises(error, match=message):
            misuse(x)
        if error is runtime.CUDARuntimeError:
            with pytest.raises(runtime.CUDARuntimeError, match="Invalidated"):
                stream.end_capture()
        else:
            stream.end_capture()
    assert x.get().shape == (2, 3)


def test_the_default_stream_and_the_default_pool_are_refused(x):
    with pytest.raises(runtime.CUDARuntimeError, match="legacy stream"):
        cupy.cuda.get_current_stream().begin_capture()
    with pytest.raises(runtime.CUDARuntimeError, match="Invalidated"):
        capture(lambda: x + 1, None)
    stream = Stream(non_blocking=True)
    stream.begin_capture()
    with pytest.raises(runtime.CUDARuntimeError, match="another stream"):
        x.fill(0)
    with pytest.raises(runtime.CUDARuntimeError):
        stream.end_capture()
    with pytest.raises(runtime.CUDARuntimeError, match="IllegalState"):
        stream.end_capture()


def test_a_copy_from_the_host_is_captured_and_reads_what_is_there_later(x):
    pool = MemoryPool()

    def work():
        x[...] = cupy.asarray(np.ones((2, 3), np.float32))

    capture(work, pool).launch()
    assert np.isnan(x.get()).all()


def test_a_graph_without_its_pool_is_seen(x):
    pool = MemoryPool()
    made = capture(lambda: x.fill(0) or x + 1, pool)
    made.launch()
    del pool
    with pytest.raises(_order.Race, match="pool"):
        made.launch()


def test_a_launch_is_work_on_its_stream(x):
    made = capture(lambda: x.fill(1), MemoryPool())
    stream = Stream(non_blocking=True)
    with pytest.raises(_order.Race):
        made.launch(stream)  # x was made on the null stream
    made.launch()
    stream.wait_event(cupy.cuda.get_current_stream().record())
    made.launch(stream)
    with pytest.raises(_order.Race):
        x + 1
