"""Launches check their arguments by the kernel's own signature: a mistake is an error and not a wild pointer."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

import dlgpu
from dlgpu.backend.cuda.signature import Parameter, kernels_in
from dlgpu.backend.cuda.source import shared_limit
from dlgpu.backend.devices import EMULATOR, Device
from dlgpu.training.replay import Replay

KERNEL = """
// extern "C" __global__ void not_this_one(int n) {}
extern "C" __global__ void __launch_bounds__(256) scale(
    const float* __restrict__ x, float* y, /* how many */ int n, double factor) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = float(x[i] * factor);
}
"""
scale = dlgpu.cuda_kernel(KERNEL)
X, Y = np.arange(5, dtype="f"), np.zeros(5, "f")
READ, WRITTEN = Parameter("float", "x", True, True), Parameter("float", "y", True, False)


@pytest.fixture(autouse=True)
def emulated():
    with dlgpu.device("emulator"):
        yield


class OnGpu:
    """What a launch looks at in an array of a GPU."""

    shape, strides, dtype, flags = X.shape, X.strides, X.dtype, X.flags

    def __init__(self, index):
        self.device = SimpleNamespace(id=index)


def test_the_signature_is_read_from_the_source():
    numbers = Parameter("int", "n", False, False), Parameter("double", "factor", False, False)
    assert kernels_in(KERNEL) == {"scale": (READ, WRITTEN, *numbers)}


def test_a_signature_can_be_written_in_many_ways():
    code = """/* extern "C" __global__ void none(int n) */ extern "C" __global__ __launch_bounds__(256)
    void f ( float const *__restrict__ x /* in, (n) */ , // x, really
             float* const y, unsigned char m[], long k, uint16_t n = 3)"""
    assert kernels_in(code) == {
        "f": (
            READ,
            WRITTEN,
            Parameter("unsigned char", "m", True, False),
            Parameter("long", "k", False, False),
            Parameter("uint16_t", "n", False, False),
        )
    }
    write = dlgpu.cuda_kernel('extern "C" __global__ void write(long* y, long n) { y[0] = n; }')
    y = np.zeros(1, np.int64)
    write(y, -(2**40), grid=1, block=1)
    assert y[0] == -(2**40)


def test_numbers_become_the_types_that_the_kernel_wants():
    y = np.zeros(5, "f")
    scale(X, y, 5, 2, grid=1, block=8)
    np.testing.assert_array_equal(y, 2 * X)
    scale(dlgpu.Tensor(X), dlgpu.Tensor(y), np.int64(5), np.float32(3), grid=(1, 1), block=(8,))
    np.testing.assert_array_equal(y, 3 * X)


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ((X, Y, 5), TypeError, "scale: expected 4 arguments .*double factor.*, got 3"),
        ((X.astype("d"), Y, 5, 1), TypeError, "argument 'x': expected an array of float32, got float64"),
        ((X, 3.0, 5, 1), TypeError, "argument 'y': expected an array of float32, got float"),
        ((np.float32(1), Y, 5, 1), TypeError, "argument 'x': expected an array of float32, got float32"),
        ((X[::2], Y, 5, 1), ValueError, "argument 'x': expected a contiguous array"),
        ((X, np.broadcast_to(np.float32(1), 1), 5, 1), ValueError, "argument 'y': the kernel may write to it"),
        ((X, Y, 5.5, 1), ValueError, "argument 'n': 5.5 is not a number of type int"),
        ((X, Y, 2**31, 1), ValueError, "argument 'n': 2147483648 is not a number of type int"),
        ((X, Y, np.nan, 1), ValueError, "argument 'n': nan is not a number of type int"),
        ((X, Y, None, 1), TypeError, "argument 'n': expected a number of type int, got NoneType"),
        ((X, Y, 5, None), TypeError, "argument 'factor': expected a number of type double, got NoneType"),
        ((X, Y, 5, X), TypeError, "argument 'factor': expected a number of type double, got ndarray"),
        ((X, Y, 5, "2"), TypeError, "argument 'factor': expected a number of type double, got str"),
        ((X.astype(">f4"), Y, 5, 1), TypeError, "argument 'x': .* got float32 of another byte order"),
    ],
)
def test_arguments_that_do_not_suit_are_named(args, error, message):
    with pytest.raises(error, match=message):
        scale(*args, grid=1, block=8)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((OnGpu(0), Y), "scale: argument 'y': expected an array on cuda, as others are, got one on emulator"),
        ((X, OnGpu(1)), "scale: argument 'x': expected an array on cuda:1, as others are, got one on emulator"),
        ((OnGpu(0), OnGpu(1)), "scale: argument 'x': expected an array on cuda:1, as others are, got one on cuda"),
    ],
)
def test_arrays_on_different_devices_are_named(args, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(ndarray=OnGpu))
    with pytest.raises(ValueError, match=message):
        scale(*args, 5, 1, grid=1, block=8)


def test_an_array_of_the_host_is_an_error_while_a_gpu_is_the_current_device():
    with Device("cuda"), pytest.raises(ValueError, match="argument 'x': expected an array on cuda, the current device"):
        scale(X, Y, 5, 1, grid=1, block=8)


@pytest.mark.parametrize(
    ("grid", "block", "what"),
    [
        (1, 0, "threads in a block"),
        (1, 2048, "block"),
        ((1, 2, 3, 4), 1, "grid"),
        (-1, 32, "grid"),
        (1, (32, 64), "threads in a block"),
        (1, (1, 1, 65), "block"),
        (2**31, 32, "grid"),
        ((1, 65536), 32, "grid"),
        ((1, 1, 65536), 32, "grid"),
        (None, 32, "grid"),
        (1.5, 32, "grid"),
        (1, "32", "block"),
    ],
)
def test_geometry_that_cannot_be_is_an_error(grid, block, what):
    with pytest.raises(ValueError, match=f"scale: .*{what}"):
        scale(X, Y, 5, 1, grid=grid, block=block)


def test_more_shared_memory_than_a_block_has_is_an_error():
    limit = shared_limit(EMULATOR)
    scale(X, Y, 5, 1, grid=1, block=8, shared=limit)
    for shared in (limit + 1, -1):
        with pytest.raises(ValueError, match=f"scale: shared: expected at most {limit} bytes.*, got {shared}"):
            scale(X, Y, 5, 1, grid=1, block=8, shared=shared)


def test_an_empty_grid_launches_nothing():
    y = np.zeros(5, "f")
    scale(X, y, 5, 1, grid=0, block=32)
    assert not y.any()


def test_a_kernel_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="Did you mean 'scale'"):
        dlgpu.cuda_kernel(KERNEL, name="scal")
    with pytest.raises(ValueError, match="has no"):
        dlgpu.cuda_kernel("int x;")


def test_a_users_kernel_can_be_differentiated(monkeypatch):
    forward = dlgpu.cuda_kernel(
        'extern "C" __global__ void cube(const double* x, double* y, int n) '
        "{ int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) y[i] = x[i] * x[i] * x[i]; }"
    )

    @dlgpu.custom_vjp
    def cube(x):
        y = np.empty_like(x)
        forward(x, y, x.size, grid=(x.size + 31) // 32, block=32)
        return y

    @cube.defvjp
    def cube_vjp(grad, output, x):
        return grad * 3 * x * x

    dlgpu.testing.gradcheck(cube, np.linspace(-1, 2, 50))

    # a step on the host is not replayed, not even on trial: what the kernel writes would be missing
    monkeypatch.setattr(Replay, "run", None)
    x = np.linspace(-1, 1, 64).reshape(32, 2)
    stack = [dlgpu.layers.Dense(1, dtype="float64"), dlgpu.layers.Activation(cube, dtype="float64")]
    model = dlgpu.Sequential(stack)
    model.compile("sgd", "mse")
    history = model.fit(x, x[:, :1], epochs=6, verbose=0).history["loss"]
    assert history[-1] < history[0]
