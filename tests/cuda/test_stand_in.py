"""The stand-in for CuPy (tests/doubles) is as strict as CuPy is."""

import types

import cupy
import numpy as np
import pytest
from cupy import _order
from cupy.cuda import Event, Stream, alloc_pinned_memory, compiler, runtime

N = np.arange(6.0).reshape(2, 3)
CONSTANTS = ["bool_", "float16", "float32", "float64", "iinfo", "inf", "int8", "int16", "int32", "int64", "nan"]
CONSTANTS += ["newaxis", "ogrid", "pi", "uint8", "uint16", "uint32", "uint64", "ufunc", "ndarray", "cuda", "lib"]


@pytest.fixture
def x():
    return cupy.asarray(N)


def test_every_public_name_is_recorded_from_cupy():
    names = {n for n in vars(cupy) if not n.startswith("_")} - set(CONSTANTS)
    modules = {n for n in names if isinstance(getattr(cupy, n), types.ModuleType)}
    inner = {"LOOPS", "SCALARS", "Capsule", "Path", "made", "supported", "work"}  # the stand-in's own
    assert names - modules - inner <= set(cupy._signatures.recorded())
    methods = {n for n in vars(cupy.ndarray) if not n.startswith("_")}
    known = {n[8:] for n in cupy._signatures.recorded() if n.startswith("ndarray.")}
    attributes = {"T", "base", "data", "device", "dtype", "flags", "itemsize", "nbytes", "ndim", "shape", "size"}
    assert methods <= known | attributes | {"strides"}


@pytest.mark.parametrize(
    "misuse",
    [
        lambda x: x + N,
        lambda x: N * x,
        lambda x: x @ N.T,
        lambda x: x == None,  # noqa: E711
        lambda x: np.asarray(x),
        lambda x: np.array([x[0, 0]]),
        lambda x: [1, 2][cupy.asarray(1)],
        lambda x: cupy.concatenate([x, N]),
        lambda x: cupy.where(x > 0, x, N),
        lambda x: cupy.add(x, x, out=N),
        lambda x: np.median(x),
        lambda x: x.sum(where=x > 0),
        lambda x: cupy.sum(x, initial=0),
        lambda x: cupy.argsort(x, order="x"),
        lambda x: x.astype(int, casting="safe"),
        lambda x: cupy.exp(x, order="C"),
        lambda x: hash(x),
    ],
)
def test_what_cupy_refuses_is_refused(x, misuse):
    with pytest.raises(TypeError):
        misuse(x)


def test_assignments_and_indices_follow_cupys_rules(x):
    for place in (0, slice(None), ...):
        with pytest.raises(ValueError, match=r"non-scalar numpy.ndarray cannot be used for fill"):
            x[place] = N[0]
    with pytest.raises(ValueError, match="one boolean array"):
        x[x[:, 0] > 0, cupy.asarray([0])]
    with pytest.raises(IndexError):
        x[2]
    np.testing.assert_array_equal(x[[0, 5]].get(), N[[0, 1]])  # integers of an array wrap around
    np.testing.assert_array_equal(x.take(np.array([-1, 4]), axis=1).get(), N[:, [2, 1]])
    x[x > 3] = 0
    assert x.sum().shape == ()
    assert float(x.sum()) == 6
    assert not hasattr(x.flags, "writeable")
    with pytest.raises(ValueError, match="read-only"):
        cupy.broadcast_to(x, (2, 2, 3))[0] = 1
    with pytest.raises(AttributeError):
        x.name = "x"
    for array, why in ((np.array(["a"]), "<U1"), (np.array([None]), "object")):
        with pytest.raises(ValueError, match=f"Unsupported dtype {why}"):
            cupy.asarray(array)


def test_new_memory_holds_garbage_and_nothing_warns(x):
    assert np.isnan(cupy.empty(3, "f4").get()).all()
    assert cupy.empty(3, "i4").get().all()
    with np.errstate(all="raise"):
        assert float(cupy.log(cupy.zeros(1))[0]) == -np.inf


def test_views_share_memory_and_devices_do_not_mix(x):
    view = x[:, 1:].T
    view[...] = 7
    assert view.base is x
    assert view.flags.owndata is False
    assert float(x.sum()) == 31
    with cupy.cuda.Device(1):
        other = cupy.zeros(3)
        assert other.device.id == 1
        with pytest.raises(ValueError, match="different from the current device"):
            x + 1
        assert cupy.asarray(x).device.id == 1
    with pytest.raises(runtime.CUDARuntimeError):
        cupy.cuda.Device(2)


def test_streams_must_be_ordered_by_events(x):
    stream = Stream(non_blocking=True)
    with pytest.raises(_order.Race), stream:
        x + 1  # made on the null stream
    made = cupy.cuda.get_current_stream().record(Event())
    stream.wait_event(made)
    with stream:
        y = x + 1
    with pytest.raises(_order.Race):
        x *= 2  # which the stream may still be reading
    with pytest.raises(_order.Race):
        y + 1
    cupy.cuda.get_current_stream().wait_event(stream.record())
    assert float((y + 1).sum()) == 27


def test_a_copy_from_pinned_memory_takes_its_time(x):
    stream = Stream(non_blocking=True)
    memory = np.frombuffer(alloc_pinned_memory(48), np.float64, 6).reshape(2, 3)
    stream.wait_event(cupy.cuda.get_current_stream().record())
    memory[...] = 1
    x.set(memory, stream=stream)
    memory[...] = 2  # too early
    stream.synchronize()
    assert float(x.sum()) == 12
    x.set(memory, stream=stream)
    stream.record(event := Event())
    event.synchronize()
    memory[...] = 3
    assert float(x.sum()) == 12


def test_kernels_are_compiled_and_launched_as_cupy_does(x):
    code = """extern "C" __global__ void scale(const float* x, float* y, float by, int n) {
        y[threadIdx.x] = x[threadIdx.x] * by;
    }"""
    with pytest.raises(TypeError, match="tuple of strings"):
        cupy.RawModule(code=code, options=["-std=c++17"])
    with pytest.raises(compiler.CompileException, match="error"):
        cupy.RawModule(code=code.replace("by;", "bye;")).compile()
    scale = cupy.RawModule(code=code, options=("-std=c++17",)).get_function("scale")
    a, b = cupy.arange(4, dtype=np.float32), cupy.empty(4, np.float32)
    scale((1,), (4,), (a, b, np.float32(2), np.int32(4)))
    np.testing.assert_array_equal(b.get(), [0, 2, 4, 6])
    for args in ((a, x, np.float32(2), np.int32(4)), (a, b, 2.0, np.int32(4)), (a, b, np.float32(2), 4), (a, b)):
        with pytest.raises(TypeError):
            scale((1,), (4,), args)
    with pytest.raises(TypeError, match="Unsupported type"):
        scale((1,), (4,), (a.get(), b, np.float32(2), np.int32(4)))
    for grid, block, shared in (((1,), (2048,), 0), ((1, 1 << 17), (4,), 0), ((1,), (4,), 1 << 16)):
        with pytest.raises(ValueError, match="CUDA_ERROR_INVALID_VALUE"):
            scale(grid, block, (a, b, np.float32(2), np.int32(4)), shared_mem=shared)
