"""Launches check their arguments by the kernel's own signature: a mistake is an error and not a wild pointer."""

import numpy as np
import pytest

import dlgpu
from dlgpu.backend.cuda.signature import Parameter, kernels_in

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


def test_the_signature_is_read_from_the_source():
    assert kernels_in(KERNEL) == {
        "scale": (
            Parameter("float", "x", True, True),
            Parameter("float", "y", True, False),
            Parameter("int", "n", False, False),
            Parameter("double", "factor", False, False),
        )
    }


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
    ],
)
def test_arguments_that_do_not_suit_are_named(args, error, message):
    with pytest.raises(error, match=message):
        scale(*args, grid=1, block=8)


@pytest.mark.parametrize(("grid", "block"), [(1, 0), (1, 2048), ((1, 2, 3, 4), 1), (-1, 32), (1, (32, 64))])
def test_geometry_that_cannot_be_is_an_error(grid, block):
    with pytest.raises(ValueError, match="scale"):
        scale(X, Y, 5, 1, grid=grid, block=block)


def test_an_empty_grid_launches_nothing():
    y = np.zeros(5, "f")
    scale(X, y, 5, 1, grid=0, block=32)
    assert not y.any()


def test_a_kernel_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="Did you mean 'scale'"):
        dlgpu.cuda_kernel(KERNEL, name="scal")
    with pytest.raises(ValueError, match="has no"):
        dlgpu.cuda_kernel("int x;")


def test_a_users_kernel_can_be_differentiated():
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
