"""When a GPU's memory runs out: what is said, what is left as it was, and what is free again."""

import gc
import re
import warnings

import cupy
import numpy as np
import pytest
from cupy import _order
from cupy.cuda import MemoryPool, runtime
from cupy.cuda.memory import OutOfMemoryError

import dlgpu
from dlgpu import layers
from dlgpu.training import groups, replay
from tests.cuda.captured import captured, told

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((640, 6), np.float32), RNG.integers(0, 2, (640, 1)).astype(np.float32)
pool = cupy.get_default_memory_pool()


@pytest.fixture(autouse=True)
def clean():
    """Nothing that another test left is collected in the middle of one, or is room for it."""
    gc.collect()
    pool.free_all_blocks()


def model_of(use_ema=True, **compiled):
    network = [layers.Dense(9, activation="gelu", name="first"), layers.BatchNormalization(), layers.Dropout(0.3)]
    model = dlgpu.Sequential([*network, layers.Dense(1, activation="sigmoid", name="last")])
    optimizer = dlgpu.optimizers.Adam(global_clipnorm=1.0, use_ema=use_ema)
    model.compile(optimizer, "binary_crossentropy", metrics=["mae"], **compiled)
    model.build((None, 6))
    return model


def fit(model, x=X[:24], y=Y[:24], batch_size=4, epochs=1, **more):
    return model.fit(x, y, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0, **more)


def state(model):
    return [*model.get_weights(), *model.optimizer.get_state().values(), model.optimizer.iterations]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def fails_at(number, monkeypatch):
    """Let that allocation, counted from 1, be one too many."""
    left = iter([False] * (number - 1) + [True])
    malloc = MemoryPool.malloc

    def counted(self, size):
        if next(left, False):
            raise OutOfMemoryError(size, self.total_bytes())
        return malloc(self, size)

    monkeypatch.setattr(MemoryPool, "malloc", counted)
    return left


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_whatever_allocation_fails_the_model_is_as_before_that_step_and_trains_on(monkeypatch, run_eagerly):
    class After(dlgpu.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            after.append(state(self.model))

    dlgpu.set_random_seed(1)
    written = model_of(run_eagerly=True)
    start = written.get_weights()
    fit(written)
    written = model_of(run_eagerly=True)
    written.set_weights(start)
    dlgpu.set_random_seed(1)
    after = []
    fit(written, callbacks=[After()])  # six steps: written, captured, tried, and replayed
    failures = 0
    for number in range(1, 2000, 29 if run_eagerly else 11):
        model = model_of(run_eagerly=run_eagerly)
        model.set_weights(start)
        dlgpu.set_random_seed(1)
        gc.collect()
        with monkeypatch.context() as patched, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a step that is not captured says so
            left = fails_at(number, patched)
            try:
                fit(model)
            except dlgpu.OutOfMemoryError:
                failures += 1
            else:
                assert same(state(model)[:-1], [*written.get_weights(), *written.optimizer.get_state().values()])
                if next(left, None) is not None:  # all allocations are behind
                    break
                continue
        done = model.optimizer.iterations
        assert same(model.get_weights(), start if done == 0 else after[done - 1][: len(start)])
        for batch in range(done, 6):
            part = slice(4 * batch, 4 * batch + 4)
            model.train_on_batch(X[part], Y[part])
        model.optimizer.finalize()
        assert same(state(model), state(written))
    else:
        raise AssertionError("no fit was without a failure")
    assert failures > 5


@pytest.mark.filterwarnings("ignore:a training step cannot be captured")
def test_steps_that_are_launched_at_once_go_on_one_by_one_where_memory_is_short(monkeypatch):
    monkeypatch.setattr(replay, "MANY", 2)
    monkeypatch.setattr(groups, "LOOK", 1e9)
    start, counts = model_of(False).get_weights(), []
    run = groups.Groups.run
    monkeypatch.setattr(groups.Groups, "run", lambda *a: [counts.append((len(a[2]), found := run(*a))), found][1])

    def trained(number, **compiled):
        model = model_of(False, **compiled)
        model.set_weights(start)
        dlgpu.set_random_seed(1)
        fit(model, X[:64], Y[:64])
        with monkeypatch.context() as patched:
            left = fails_at(number, patched)
            try:
                fit(model, X[:64], Y[:64])
            except dlgpu.OutOfMemoryError:
                for batch in range(model.optimizer.iterations - 16, 16):
                    model.train_on_batch(X[4 * batch : 4 * batch + 4], Y[4 * batch : 4 * batch + 4])
        return [*model.get_weights(), *model.optimizer.get_state().values()], next(left, None) is None

    written, _ = trained(10**6, run_eagerly=True)
    for number in range(1, 2000, 41):
        found, failed = trained(number)
        assert same(found, written)
        if not failed:
            break
    assert {True, False} <= {done for _, done in counts}


def test_the_error_names_the_layer_what_is_held_and_the_ways_out(monkeypatch):
    model = model_of()
    monkeypatch.setattr(runtime, "capacity", 20_000 + runtime.taken[0])
    with pytest.raises(dlgpu.OutOfMemoryError) as caught:
        fit(model, X, Y, 640)
    said = str(caught.value)
    assert re.search(r"memory of cuda ran out: Dense 'first' in dense asked for more \(Out of memory allocating", said)
    assert "weights 436 bytes" in said
    assert "batch_size" in said
    assert "dlgpu.checkpointed(layer)" in said
    assert isinstance(caught.value, MemoryError)
    assert isinstance(caught.value.__cause__, OutOfMemoryError)


def test_an_error_in_the_backward_pass_names_the_layer_whose_gradient_it_was(monkeypatch):
    model = model_of(run_eagerly=True)
    fit(model)
    dense_backward = dlgpu.backend.dispatch.registry["dense_backward"].columns
    column = dense_backward["cuda"]

    def short(*args):
        if args[2].shape == (9, 1):
            raise OutOfMemoryError(4096, 0)
        return column(*args)

    monkeypatch.setitem(dense_backward, "cuda", short)
    with pytest.raises(dlgpu.OutOfMemoryError, match="the gradient of 'last' in dense_backward asked for more"):
        fit(model)


def test_a_smaller_batch_trains_after_an_error_and_what_the_failed_step_held_is_free(monkeypatch):
    model = model_of()
    fit(model, X[:8], Y[:8], 4)
    gc.disable()
    try:
        pool.free_all_blocks()
        used = pool.used_bytes()
        monkeypatch.setattr(runtime, "capacity", 60_000 + runtime.taken[0])
        for train in (lambda: fit(model, X, Y, 640), lambda: model.train_on_batch(X, Y)):
            with pytest.raises(dlgpu.OutOfMemoryError) as caught:
                train()
            assert pool.total_bytes() <= used + 16 * 512  # while the error is held: sums and metrics, each a block
        del caught
        fit(model, X[:32], Y[:32], 8, epochs=3)
        assert captured(model) == [True]
        with pytest.raises(dlgpu.OutOfMemoryError):
            model.predict(X, batch_size=640, verbose=0)
        with pytest.raises(dlgpu.OutOfMemoryError):
            model.evaluate(X, Y, batch_size=640, verbose=0)
        assert model.predict(X, batch_size=8, verbose=0).shape == (640, 1)
    finally:
        gc.enable()


def test_a_train_step_of_the_users_own_gets_the_same_error():
    class Own(dlgpu.Sequential):
        def train_step(self, data):
            raise OutOfMemoryError(10**9, 5)

    model = Own([layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(dlgpu.OutOfMemoryError, match="allocating 1,000,000,000 bytes"):
        fit(model)


def test_cudas_own_words_for_it_count_too_and_other_errors_do_not(monkeypatch):
    model = model_of()
    launch = cupy._graph.Graph.launch
    for words, expected in [("cudaErrorMemoryAllocation: out of memory", dlgpu.OutOfMemoryError), ("x", RuntimeError)]:
        with monkeypatch.context() as patched:

            def failing(self, stream=None, words=words):
                raise runtime.CUDARuntimeError(words)

            patched.setattr(cupy._graph.Graph, "launch", failing)
            with pytest.raises(expected) as caught:
                fit(model)
            assert isinstance(caught.value, MemoryError) == (expected is dlgpu.OutOfMemoryError)
    assert cupy._graph.Graph.launch is launch
    fit(model)
    assert captured(model) == [True]


# -- graphs share their memory


def test_two_shapes_of_batches_need_the_memory_of_the_larger_one():
    def reserved(sizes):
        model = model_of()
        for size in sizes:
            fit(model, X[:size], Y[:size], size, epochs=4)
        assert captured(model) == [True] * len(sizes)
        return model, model._step.replays.repeater.pool.total_bytes()

    (_, large), (_, small), (model, both) = reserved([320]), reserved([160]), reserved([320, 160])
    assert both < large + 0.5 * small  # its own batch and numbers, and nothing for activations
    dlgpu.set_random_seed(2)
    start, optimizer = model.get_weights(), model.optimizer.get_state()
    for size in (160, 320, 160, 320):
        fit(model, X[:size], Y[:size], size)
    found = model.get_weights()
    dlgpu.set_random_seed(2)
    model.set_weights(start)
    model.optimizer.set_state(optimizer)
    model.run_eagerly = True
    for size in (160, 320, 160, 320):
        fit(model, X[:size], Y[:size], size)
    assert same(found, model.get_weights())


def test_steps_as_they_are_written_leave_nothing_reserved_beside_a_graph():
    model = model_of()
    fit(model, X, Y, 320, epochs=4)
    assert pool.free_bytes() < 16 * 512


def test_a_graph_that_finds_no_memory_is_given_up_and_leaves_that_of_the_others_alone(monkeypatch):
    model = model_of()
    fit(model, X[:160], Y[:160], 160, epochs=4)
    reserved = model._step.replays.repeater.pool
    before = reserved.total_bytes()
    memory = cupy.cuda.Memory.__init__

    def short(self, size):
        if _order.local.capture is not None:
            raise runtime.CUDARuntimeError("cudaErrorMemoryAllocation: out of memory")
        memory(self, size)

    monkeypatch.setattr(cupy.cuda.Memory, "__init__", short)
    with pytest.warns(UserWarning, match="too little memory for a graph") as caught:
        fit(model, X, Y, 320, epochs=4)
    assert len(told(caught)) == 1
    assert captured(model) == [True, False]
    assert reserved.total_bytes() >= before
    fit(model, X[:160], Y[:160], 160, epochs=4)


def test_where_there_is_no_room_for_a_trial_the_step_runs_as_written_and_recordings_are_forgotten(monkeypatch):
    model = model_of()
    fit(model, X[:160], Y[:160], 160, epochs=4)
    monkeypatch.setattr(runtime, "capacity", runtime.taken[0] + 85_000)  # a written step of 320 samples takes 79 kB
    with pytest.warns(UserWarning, match="too little memory for it beside the step as it is written"):
        fit(model, X, Y, 320, epochs=4)
    assert captured(model) == [False]
    assert not model._step.replays.repeater.pool.total_bytes()
