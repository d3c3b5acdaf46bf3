"""The emulator does what a GPU does, and says what is wrong where a GPU would hang or corrupt memory."""

import numpy as np
import pytest

from dlgpu.backend.cuda.user import cuda_kernel
from dlgpu.backend.emulator import compiler
from dlgpu.backend.emulator.compiler import KernelError
from dlgpu.errors import DeviceError

FULL = "0xffffffffu"


def run(body, *arrays, grid=1, block=32, shared=0, parameters="float* x"):
    """Compile a kernel of this body and launch it."""
    kernel = cuda_kernel(f'extern "C" __global__ void test({parameters}) {{\n{body}\n}}')
    kernel(*arrays, grid=grid, block=block, shared=shared)
    return arrays[0]


def test_every_thread_of_every_block_runs_once_in_three_dimensions():
    counts = np.zeros((2, 3, 4, 2, 5, 3), np.int32)  # grid z y x, block z y x
    run(
        "int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;"
        "int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;"
        "atomicAdd(x + block * blockDim.x * blockDim.y * blockDim.z + thread, 1);",
        counts,
        grid=(4, 3, 2),
        block=(3, 5, 2),
        parameters="int* x",
    )
    assert (counts == 1).all()


@pytest.mark.parametrize("threads", [1, 31, 32, 33, 1024])
def test_a_barrier_makes_shared_memory_visible(threads):
    x = np.arange(threads, dtype=np.float32)
    run(
        "__shared__ float s[1024]; s[threadIdx.x] = x[threadIdx.x]; __syncthreads();"
        "x[threadIdx.x] = s[blockDim.x - 1 - threadIdx.x];",
        x,
        block=threads,
    )
    np.testing.assert_array_equal(x, np.arange(threads)[::-1])


def test_dynamic_shared_memory_has_the_size_that_was_asked_for():
    x = np.arange(64, dtype=np.float32)
    run(
        "extern __shared__ float s[]; s[threadIdx.x] = x[threadIdx.x]; __syncthreads();"
        "x[threadIdx.x] = s[63 - threadIdx.x];",
        x,
        block=64,
        shared=256,
    )
    np.testing.assert_array_equal(x, np.arange(64)[::-1])


def test_blocks_have_shared_memory_of_their_own_on_all_host_threads():
    sums = np.zeros(3000, np.float32)
    run(
        "__shared__ float s; if (threadIdx.x == 0) s = 0; __syncthreads();"
        "atomicAdd(&s, 1.0f); __syncthreads(); if (threadIdx.x == 0) x[blockIdx.x] = s;",
        sums,
        grid=3000,
        block=64,
    )
    assert (sums == 64).all()


LANES = np.arange(32)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (f"__shfl_sync({FULL}, v, 5)", np.full(32, 5)),
        (f"__shfl_sync({FULL}, v, 9, 8)", LANES // 8 * 8 + 1),
        (f"__shfl_sync({FULL}, v, (int)threadIdx.x - 1)", (LANES - 1) % 32),
        (f"__shfl_up_sync({FULL}, v, 3)", np.where(LANES >= 3, LANES - 3, LANES)),
        (f"__shfl_down_sync({FULL}, v, 3)", np.where(LANES < 29, LANES + 3, LANES)),
        (f"__shfl_down_sync({FULL}, v, 1, 4)", np.where(LANES % 4 < 3, LANES + 1, LANES)),
        (f"__shfl_xor_sync({FULL}, v, 16)", LANES ^ 16),
        (f"__popc(__ballot_sync({FULL}, threadIdx.x % 3 == 0))", np.full(32, 11)),
        (f"__any_sync({FULL}, threadIdx.x == 7)", np.ones(32)),
        (f"__all_sync({FULL}, threadIdx.x == 7)", np.zeros(32)),
        ("__syncthreads_count(threadIdx.x < 5)", np.full(32, 5)),
    ],
)
def test_collectives(call, expected):
    x = np.zeros(32, np.float32)
    run(f"float v = threadIdx.x; x[threadIdx.x] = {call};", x)
    np.testing.assert_array_equal(x, expected)


def test_a_shuffle_from_a_lane_that_the_block_lacks_is_reported():
    with pytest.raises(KernelError, match=r"kernel.cu:2: shuffle from a lane outside the mask or the block"):
        run(f"x[threadIdx.x] = __shfl_sync({FULL}, 1.0f, 25);", np.zeros(32, "f"), block=20)


def test_an_array_that_a_threads_stack_cannot_hold_is_an_error_of_its_function():
    body = "float a[30000]; for (int i = 0; i < 30000; i++) a[i] = i * x[0]; __syncthreads(); x[1] = a[(int)x[2]];"
    with pytest.raises(KernelError, match=r"(?s)test.*kernel.cu.*frame size"):
        run(body, np.zeros(4, "f"))


def test_half_warps_can_exchange_on_their_own():
    x = np.zeros(32, np.float32)
    run(
        "float v = threadIdx.x;"
        "if (threadIdx.x < 16) { for (int i = 0; i < 3; i++) v += __shfl_xor_sync(0x0000ffffu, v, 1); }"
        "else { for (int i = 0; i < 5; i++) v += __shfl_xor_sync(0xffff0000u, v, 1); }"
        "x[threadIdx.x] = v;",
        x,
    )
    pair = LANES // 2 * 4 + 1
    np.testing.assert_array_equal(x, np.where(LANES < 16, pair * 4, pair * 16))


def test_atomics_from_all_blocks_add_up():
    x = np.zeros(4, np.int32)
    x[1] = 1000
    run(
        "int i = blockIdx.x * blockDim.x + threadIdx.x;"
        "atomicAdd(x, 1); atomicMin(x + 1, i); atomicMax(x + 2, i); atomicCAS(x + 3, 0, 7);",
        x,
        grid=200,
        block=128,
        parameters="int* x",
    )
    assert x.tolist() == [25600, 0, 25599, 7]


@pytest.mark.parametrize(("name", "dtype"), [("__half", "float16"), ("double", "float64"), ("float", "float32")])
def test_storage_types_round_as_numpy_does(name, dtype):
    x = np.array([1 / 3, 65504, 6e-8, -1e-4, np.nan, np.inf] + [0.1] * 26).astype(dtype)
    y = np.empty_like(x)
    kernel = cuda_kernel(
        '#include "common.cuh"\nextern "C" __global__ void third(const T* x, T* y) {'
        " y[threadIdx.x] = T(A(x[threadIdx.x]) / 3); }",
        dtype=dtype,
    )
    kernel(x, y, grid=1, block=32)
    wide = np.float64 if dtype == "float64" else np.float32
    np.testing.assert_array_equal(y, (x.astype(wide) / wide(3)).astype(dtype))


def test_a_barrier_that_some_threads_never_reach_is_reported_not_waited_for():
    with pytest.raises(KernelError, match=r"kernel.cu:2: barrier reached by 10 of 64 threads of block \(0, 0, 0\)"):
        run("if (threadIdx.x < 10) __syncthreads();", np.zeros(1, "f"), block=64)
    with pytest.raises(KernelError, match=r"barrier reached by \d+ of 64"):
        run("if (threadIdx.x < 10) __syncthreads();\nelse __syncthreads();", np.zeros(1, "f"), block=64)


def test_a_shuffle_that_some_lanes_never_reach_is_reported():
    with pytest.raises(KernelError, match=r"kernel.cu:2: warp collective reached by 3 of 32 threads"):
        run(f"if (threadIdx.x < 3) x[0] = __shfl_sync({FULL}, 1.0f, 0);", np.zeros(1, "f"))


GRID = """
#include "grid.cuh"
extern "C" __global__ void rotate(const int* x, int* passed, int* y, unsigned* arrivals, int rounds, int n) {
    __shared__ int sum;
    for (int r = 0; r < rounds; r++) {
        const int* from = r ? y : x;
        if (threadIdx.x == 0) sum = 0;
        __syncthreads();
        for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
            passed[i] = from[(i + 1) % n];
            atomicAdd(&sum, 1);
        }
        grid_barrier(arrivals);
        for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) y[i] = passed[i];
        grid_barrier(arrivals);
        if (threadIdx.x == 0) atomicAdd(y + n, sum);
    }
}
"""


@pytest.mark.parametrize("blocks", [1, 2, 3, 100])
def test_blocks_of_a_cooperative_launch_wait_for_each_other(blocks):
    x, y = np.arange(300, dtype=np.int32), np.zeros(301, np.int32)
    arrivals = np.zeros(1, np.uint32)
    cuda_kernel(GRID)(x, np.empty_like(x), y, arrivals, 5, 300, grid=blocks, block=32, cooperative=True)
    np.testing.assert_array_equal(y[:-1], np.roll(x, -5))
    assert y[-1] == 5 * 300  # each block had shared memory of its own


@pytest.mark.parametrize(
    ("body", "arrivals", "cooperative", "message"),
    [
        (
            "if (blockIdx.x) grid_barrier(n);",
            0,
            True,
            r"kernel.cu:3: the grid's barrier was reached by [123] of 4 blocks",
        ),
        ("grid_barrier(n); if (blockIdx.x < 2) grid_barrier(n);", 0, True, r"reached by [12] of 4 blocks"),
        ("if (blockIdx.x == 2) assert(!n);\ngrid_barrier(n);", 0, True, r"kernel.cu:3: assertion failed"),
        ("if (threadIdx.x) grid_barrier(n);", 0, True, r"barrier reached by 31 of 32 threads"),
        ("if (threadIdx.x) grid_barrier(n); else __syncthreads();", 0, True, r"barrier reached by \d+ of 32 threads"),
        ("grid_barrier(n);", 0, False, r"kernel.cu:3: a barrier of the grid in a launch that is not cooperative"),
        ("grid_barrier(n);", 1, True, r"must be zero at first"),
    ],
)
def test_a_barrier_of_the_grid_that_cannot_open_is_reported(body, arrivals, cooperative, message):
    kernel = cuda_kernel(f'#include "grid.cuh"\nextern "C" __global__ void test(unsigned* n) {{\n{body}\n}}')
    with pytest.raises(KernelError, match=message):
        kernel(np.full(1, arrivals, np.uint32), grid=4, block=32, cooperative=cooperative)
    kernel = cuda_kernel('#include "grid.cuh"\nextern "C" __global__ void test(unsigned* n) { grid_barrier(n); }')
    kernel(np.zeros(1, np.uint32), grid=4, block=32, cooperative=True)


def test_a_cooperative_grid_of_rows_that_cannot_run_at_once_is_an_error():
    with pytest.raises(ValueError, match=r"rotate: grid: .*cannot run at once"):
        cuda_kernel(GRID)(*[None] * 4, 5, 300, grid=(1, 100), block=32, cooperative=True)


def test_an_assertion_names_its_line():
    with pytest.raises(KernelError, match=r"kernel.cu:3: assertion failed: x\[0\] > 0"):
        run("float y = 0;\nassert(x[0] > 0);", np.zeros(1, "f"))


def test_the_emulator_works_again_after_an_error():
    for _ in range(2):
        with pytest.raises(KernelError):
            run("if (threadIdx.x < 10) __syncthreads();", np.zeros(1, "f"), block=64)
        x = run("__syncthreads(); x[threadIdx.x] = 1;", np.zeros(64, "f"), block=64)
        assert (x == 1).all()


def test_source_that_does_not_compile_shows_file_and_line():
    with pytest.raises(KernelError, match=r"kernel.cu:3:\d+: error: .*nothing"):
        run("float y;\ny = nothing;", np.zeros(1, "f"))


def test_unwritten_dynamic_shared_memory_is_nan():
    assert np.isnan(run("extern __shared__ float s[]; x[0] = s[0];", np.zeros(1, "f"), shared=4)).all()


@pytest.mark.parametrize("from_lane", ["threadIdx.x + 1", "threadIdx.x + 63"])
@pytest.mark.parametrize("barriers", ["10", "01"])
def test_a_missing_barrier_goes_wrong_in_one_of_two_launches(from_lane, barriers):
    first, second = (b * "__syncthreads();" for b in map(int, barriers))
    kernel = cuda_kernel(
        'extern "C" __global__ void turn(const float* x, float* y) { __shared__ float s[64];'
        f"for (int i = 0; i < 3; i++) {{ s[threadIdx.x] = x[threadIdx.x] * (i + 1); {first}"
        f"y[i * 64 + threadIdx.x] = s[({from_lane}) % 64]; {second} }} }}"
    )
    x, right = np.arange(1, 65, dtype="f"), []
    for _ in range(2):
        y = np.zeros((3, 64), "f")
        kernel(x, y, grid=1, block=64)
        shift = -1 if from_lane.endswith("1") else 1
        right.append(np.array_equal(y, np.roll(x, shift) * np.arange(1, 4)[:, None]))
    assert not all(right)


def test_dynamic_shared_memory_is_declared_inside_a_kernel():
    kernel = cuda_kernel('\nextern __shared__ float s[];\nextern "C" __global__ void f(float* x) { s[0] = x[0]; }')
    with pytest.raises(KernelError, match=r"kernel.cu:2: the emulator needs 's' declared inside the kernel"):
        kernel(np.zeros(1, "f"), grid=1, block=1, shared=4)
    x = run("extern __align__(16) __shared__ float s[]; s[0] = 2; x[0] = s[0];", np.zeros(1, "f"), shared=16)
    assert x == 2


def test_a_folder_that_cannot_hold_compiled_kernels_is_named(tmp_path, monkeypatch):
    folder = tmp_path / "file"
    folder.touch()
    monkeypatch.setenv("DLGPU_CACHE_DIR", str(folder))
    with pytest.raises(DeviceError, match=rf"{folder}.*DLGPU_CACHE_DIR"):
        run("x[0] = 3;", np.zeros(1, "f"))


def test_a_kernel_where_there_is_no_compiler_says_what_it_needs(monkeypatch):
    monkeypatch.setattr(compiler, "compiler", lambda: None)
    monkeypatch.setattr(compiler, "compiler_version", compiler.compiler_version.__wrapped__)  # nothing is known yet
    with pytest.raises(DeviceError, match="needs a C\\+\\+17 compiler"):
        run("x[0] = 4;", np.zeros(1, "f"))
