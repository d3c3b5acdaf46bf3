"""Convolution by cuDNN where it is the faster, as the stand-in for nvidia-cudnn-frontend computes and checks it."""

import json
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from cupy.cuda import MemoryPool, Stream, using_allocator

import dlgpu
from dlgpu import layers
from dlgpu.backend.cuda import cudnn, tensor_cores, tuning
from dlgpu.backend.dispatch import registry
from dlgpu.backend.reference.convolution import convolution_pooled_backward
from tests.cuda.captured import RNG, assert_same_bits, captured, fit, model_of
from tests.cuda.test_stand_in_cublaslt import normal, of_reference
from tests.cuda.test_stand_in_graph import Counted, steady

CACHED = cudnn.bindings, cudnn.engines, cudnn._of_device
OWN, FAST, SLOW = 2.0, 1.0, 3.0
GEOMETRY = (1, 1), ((1, 1), (1, 1)), (1, 1), 1
ALL = ("forward", "bias", "relu")


def another_process():
    for cached in CACHED:
        cached.cache_clear()
    cudnn._settled.clear(), cudnn._plans.clear()
    tuning._chosen.clear()


@pytest.fixture
def frontend(monkeypatch, tmp_path):
    """The stand-in's module, installed: its first plan is faster than dlgpu's kernel. TF32 is allowed."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "doubles" / "frontend")
    monkeypatch.setenv("DLGPU_TUNING", "1")
    monkeypatch.setattr(tuning, "_file", lambda index: tmp_path / "gpu.json")
    monkeypatch.setattr(tensor_cores, "TILES", tensor_cores.TILES[-1:])  # to compile fewer
    another_process()
    module = cudnn.bindings()
    module.times, module.measured = {"eng0": FAST, "eng1": SLOW}, []

    def milliseconds(run):
        before = len(module.executed)
        run()
        module.measured.append(module.executed[-1][0] if len(module.executed) > before else "own")
        return module.times.get(module.measured[-1], OWN)

    monkeypatch.setattr(tuning, "milliseconds", milliseconds)
    dlgpu.allow_tf32()
    yield module
    dlgpu.allow_tf32(False)
    another_process()
    for name in [n for n in sys.modules if n.partition(".")[0] == "cudnn"]:
        del sys.modules[name]


@pytest.fixture
def arrays(cupy):
    """An image, a kernel and a bias."""
    return [cupy.asarray(normal(*shape)) for shape in ((2, 5, 6, 4), (3, 3, 4, 8), (8,))]


def convolve(arrays, name="relu", geometry=GEOMETRY):
    return registry["convolution"](*arrays, name, *geometry)[0]


def own(arrays, monkeypatch, name="relu"):
    """By dlgpu's kernels."""
    with monkeypatch.context() as patch:
        patch.setattr(cudnn, "serves", lambda x: False)
        return convolve(arrays, name).get()


def ran(frontend, *arguments, **more):
    """The operations of the plans that a convolution runs once its shape is known."""
    convolve(*arguments, **more)
    frontend.executed.clear()
    convolve(*arguments, **more)
    return [operations for _, *operations in frontend.executed]


def agree(cupy, name, *args, rtol):
    found = registry[name](*(cupy.asarray(a) if isinstance(a, np.ndarray) else a for a in args))
    wanted = of_reference(name, *args)
    pairs = list(zip(found, wanted)) if isinstance(found, tuple) else [(found, wanted)]
    for f, w in pairs:
        assert (f is None) == (w is None)
        if w is not None:
            assert f.shape == w.shape
            assert f.dtype == args[0].dtype
            np.testing.assert_allclose(f.get().astype(float), w, rtol=0, atol=rtol * max(1, np.abs(w).max()))


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 3e-3), ("float16", 3e-3), ("bfloat16", 2e-2)])
@pytest.mark.parametrize(
    ("image", "window", "strides", "padding", "dilation", "groups"),
    [
        ((1, 1, 1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
        ((2, 5, 6, 3), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
        ((2, 6, 9, 4), (3, 2), (2, 3), ((0, 1), (1, 0)), (1, 1), 1),
        ((1, 9, 7, 4), (2, 3), (1, 2), ((2, 0), (1, 3)), (3, 2), 1),
        ((3, 4, 5, 6), (3, 1), (2, 1), ((1, 1), (0, 0)), (1, 1), 3),
        ((2, 8, 8, 2), (1, 1), (3, 3), ((0, 0), (0, 0)), (1, 1), 2),
    ],
)
def test_it_gives_what_the_reference_gives(
    image, window, strides, padding, dilation, groups, dtype, rtol, frontend, cupy
):
    dtype = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    geometry = strides, padding, dilation, groups
    x, kernel = normal(*image, dtype=dtype), normal(*window, image[3] // groups, 6, dtype=dtype)
    for bias in (None, normal(6, dtype=dtype)):
        agree(cupy, "convolution", x, kernel, bias, "relu", *geometry, rtol=rtol)
        assert frontend.executed[-1][1] == "forward"
    size = convolve([cupy.asarray(x), cupy.asarray(kernel), None], geometry=geometry).shape
    grad = normal(*size, dtype=dtype)
    for needed in ((True, True, True), (True, True, False), (False, False, True)):
        frontend.executed.clear()
        agree(cupy, "convolution_backward", grad, x, kernel, grad, "linear", needed, *geometry, rtol=rtol * 2)
        used = {operations[0] for _, *operations in frontend.executed}
        assert used == ({"data", "weights"} if needed[0] else set())


@pytest.mark.parametrize("name", ["linear", "relu", "tanh", "gelu"])
def test_bias_and_relu_are_applied_as_it_writes_and_other_activations_after_it(name, frontend, arrays, cupy):
    for biased in (arrays, [*arrays[:2], None]):
        wanted = ["forward"] + ["bias"] * (biased[2] is not None) + ["relu"] * (name == "relu")
        assert ran(frontend, biased, name) == [wanted]
        values = [a if a is None else a.get() for a in biased]
        agree(cupy, "convolution", *values, name, *GEOMETRY, rtol=1e-2)


@pytest.mark.parametrize("name", ["linear", "relu", "gelu"])
def test_what_is_pooled_by_another_kernel_after_it_is_faster_or_the_one_pass_is(name, frontend, arrays, monkeypatch):
    def run():
        return [a.get() for a in registry["convolution_pooled"](*arrays, name, *GEOMETRY)]

    found = run()
    frontend.executed.clear()
    run()
    assert [operations for _, *operations in frontend.executed] == [["forward", "bias"] + ["relu"] * (name == "relu")]
    assert frontend.measured[0] == "own"
    ((choices,),) = [json.loads(tuning._file(0).read_text()).values()]
    assert list(choices.values()) == ["cuDNN eng0" + " with relu" * (name == "relu")]
    convolve(arrays, name)  # is measured by itself
    assert len(json.loads(tuning._file(0).read_text()).popitem()[1]) == 2
    frontend.times["eng0"] = SLOW
    another_process()
    Path(tuning._file(0)).unlink()
    own = run()
    frontend.executed.clear()
    run()
    assert not frontend.executed
    for f, o in zip((found[0], found[2]), (own[0], own[2])):
        assert f.shape == o.shape
        np.testing.assert_allclose(f, o, rtol=0, atol=1e-2)
    assert own[1].shape == own[0].shape  # of the others nothing is kept


def test_the_gradients_of_what_it_pools_are_the_references(frontend, arrays, cupy):
    rng = np.random.default_rng(0)
    grad, needed = cupy.asarray(rng.standard_normal((2, 2, 3, 8)).astype("f")), (True, True, True)
    for name in ("relu", "gelu"):
        found = []
        for speed in (FAST, SLOW):
            frontend.times["eng0"] = speed
            another_process()
            Path(tuning._file(0)).unlink(missing_ok=True)
            _, saved, indices = registry["convolution_pooled"](*arrays, name, *GEOMETRY)
            found.append(convolution_pooled_backward(grad, *arrays[:2], saved, indices, name, needed, *GEOMETRY))
        for by_cudnn, own in zip(*found):
            np.testing.assert_allclose(by_cudnn.get(), own.get(), rtol=0, atol=3e-2)


def test_what_is_the_faster_is_measured_once_for_each_shape(frontend, arrays, monkeypatch):
    assert ran(frontend, arrays) == [[*ALL]]
    assert frontend.measured == ["own"] + ["eng0", "eng1"] * 2  # with relu, and with dlgpu's after it
    assert len(cudnn._plans) == 1  # the others are gone
    convolve([arrays[0][:1], *arrays[1:]])
    assert len(frontend.measured) == 10
    wanted = own(arrays, monkeypatch)
    frontend.times["eng0"] = SLOW
    another_process()
    Path(tuning._file(0)).unlink()
    assert ran(frontend, arrays) == []
    assert (convolve(arrays).get() == wanted).all()


def test_a_choice_is_honoured_in_other_processes_whatever_they_would_measure(frontend, arrays):
    first = convolve(arrays).get()
    another_process()
    frontend.measured.clear(), frontend.built.clear()
    frontend.times["eng0"] = SLOW
    assert (convolve(arrays).get() == first).all()
    assert not frontend.measured
    assert frontend.built == ["eng0"]
    ((choices,),) = [json.loads(tuning._file(0).read_text()).values()]
    assert list(choices.values()) == ["cuDNN eng0 with relu"]


def test_another_version_is_measured_anew(frontend, arrays, monkeypatch):
    convolve(arrays)
    monkeypatch.setattr(frontend, "backend_version", lambda: 92900)
    frontend.measured.clear()
    convolve(arrays)
    assert frontend.measured[0] == "own"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_tensor_cores_must_not_round_stays_with_dlgpus_kernels(dtype, frontend, arrays):
    dlgpu.allow_tf32(False)
    convolve([a.astype(dtype) for a in arrays])
    assert not frontend.measured
    assert not frontend.executed


@pytest.mark.parametrize("note", cudnn.BARRED)
def test_plans_of_other_sums_take_no_part(note, frontend, arrays, monkeypatch):
    monkeypatch.setitem(frontend.proposed, "eng0", {"TENSOR_CORE", note})
    assert ran(frontend, arrays) == []
    assert set(frontend.measured) == {"own", "eng1"}


def test_plans_that_need_a_large_workspace_take_no_part(frontend, arrays, monkeypatch):
    monkeypatch.setitem(frontend.workspaces, "eng0", cudnn.WORKSPACE + 1)
    assert ran(frontend, arrays) == []
    assert "eng0" not in frontend.built
    monkeypatch.setitem(frontend.workspaces, "eng0", cudnn.WORKSPACE)
    assert len(ran(frontend, [arrays[0][:1], *arrays[1:]])) == 1


@pytest.mark.parametrize("bias", [True, False])
def test_nan_is_handed_on_by_a_relu_that_would_hide_it(bias, frontend, arrays, monkeypatch):
    monkeypatch.setattr(frontend, "hiding", {"eng0", "eng1"})
    arrays[2] = arrays[2] if bias else None
    assert ran(frontend, arrays) == [["forward", "bias"][: 1 + bias]]
    arrays[0][1, 2, 3, 1] = np.nan
    assert np.isnan(convolve(arrays).get()[1, 1:4, 2:5]).all()


def test_what_the_library_does_not_do_the_kernel_does(frontend, arrays, monkeypatch):
    wanted = own(arrays, monkeypatch)
    monkeypatch.setattr(frontend, "failing", {"eng0", "eng1"})
    assert (convolve(arrays).get() == wanted).all()
    monkeypatch.setattr(frontend, "failing", set())
    monkeypatch.setattr(frontend, "proposed", {})
    another_process()
    Path(tuning._file(0)).unlink()
    assert (convolve(arrays).get() == wanted).all()
    assert not frontend.executed


def test_a_plan_that_was_chosen_and_cannot_be_built_any_more_is_left_out(frontend, arrays, monkeypatch):
    wanted = own(arrays, monkeypatch)
    convolve(arrays)
    another_process()
    monkeypatch.setattr(frontend, "failing", {"eng0"})
    for _ in range(2):
        assert (convolve(arrays).get() == wanted).all()


def test_a_plan_that_memory_does_not_suffice_to_try_is_left_out(frontend, arrays, cupy, monkeypatch):
    def full(*args):
        raise MemoryError

    monkeypatch.setattr(cupy, "full", full)
    assert ran(frontend, arrays) == []


def test_nothing_is_measured_where_tuning_is_turned_off(frontend, arrays, monkeypatch):
    convolve(arrays)
    monkeypatch.setenv("DLGPU_TUNING", "0")
    assert ran(frontend, arrays) == []


def test_it_can_be_left_out(frontend, monkeypatch):
    monkeypatch.setenv("DLGPU_CUDNN", "0")
    cudnn.bindings.cache_clear()
    assert cudnn.bindings() is None


def test_a_library_that_cannot_be_loaded_is_left_out(frontend, arrays, monkeypatch):
    def missing():
        raise RuntimeError("Unable to find symbol cudnnGetVersion")

    monkeypatch.setattr(frontend, "backend_version", missing)
    cudnn.bindings.cache_clear()
    assert cudnn.bindings() is None
    assert ran(frontend, arrays) == []


def test_the_emulator_knows_nothing_of_it(frontend, arrays):
    with dlgpu.device("emulator"):
        convolve([a.get() for a in arrays])
    assert not frontend.measured


def test_a_shape_that_a_capture_meets_first_stays_with_dlgpus_kernels_there(frontend, arrays, monkeypatch):
    wanted = own(arrays, monkeypatch)

    def in_a_graph():
        stream, pool = Stream(non_blocking=True), MemoryPool()
        with stream, using_allocator(pool.malloc):
            stream.begin_capture()
            found = convolve(arrays)
            graph = stream.end_capture()
            graph.launch(stream)
            stream.synchronize()
            return found.get()

    assert (in_a_graph() == wanted).all()
    assert not frontend.measured
    eager = convolve(arrays).get()
    frontend.executed.clear()
    assert (in_a_graph() == eager).all()
    assert len(frontend.executed) == 1
    another_process()  # which knows the choice, but has built no plan
    assert (in_a_graph() == wanted).all()


def test_the_workspace_lies_in_no_pool_of_others(frontend, arrays):
    pool = MemoryPool()
    with using_allocator(pool.malloc):
        convolve(arrays)
    _, workspace, own_pool = cudnn._of_device(0)
    assert workspace._pointer.mem.pool is own_pool


def test_arrays_at_odd_addresses_are_copied(frontend, arrays, cupy):
    flat = cupy.asarray(normal(arrays[0].size + 4))
    start = next(i for i in range(4) if flat[i:].data.ptr % 16)
    odd = flat[start : start + arrays[0].size].reshape(arrays[0].shape)
    assert (convolve([odd, *arrays[1:]]).get() == convolve([odd.copy(), *arrays[1:]]).get()).all()
    assert frontend.executed


def network():
    return (
        layers.Conv2D(8, 3, padding="same", activation="relu"),
        layers.Conv2D(8, 3, strides=2, activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(1),
    )


def test_a_captured_step_holds_these_plans_and_gives_the_same_bits(frontend):
    x, y = RNG.standard_normal((22, 6, 6, 3), np.float32), RNG.standard_normal((22, 1), np.float32)
    model = assert_same_bits(
        lambda **c: model_of(*network(), loss="mse", **c), lambda m: fit(m, x, y, batch_size=4, epochs=5)
    )
    assert captured(model) == [True, True]  # the last batch is smaller
    assert {ALL, ("data",), ("weights",)} <= {tuple(operations) for _, *operations in frontend.executed}


def test_a_steady_step_of_these_plans_waits_for_nothing(frontend, monkeypatch):
    counted = Counted(monkeypatch)
    with dlgpu.device("cuda"):
        step, batches = steady(model_of(layers.Reshape((2, 3, 1)), *network()[::2], layers.Dense(1, "sigmoid")))
    assert {ALL, ("weights",)} <= {tuple(operations) for _, *operations in frontend.executed}
    counted.of(step, [next(batches)])
    assert counted.of(step, batches) == (0, 0, [])
