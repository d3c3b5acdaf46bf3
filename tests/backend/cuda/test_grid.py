"""The barrier for all blocks as a GPU gets it: in the emulator each block has its own host thread, which may spin."""

import numpy as np
import pytest

from dlgpu import cuda_kernel
from dlgpu.backend.emulator import launcher
from tests.backend.cuda.hostile import on_device

# In each round other blocks come late.
ROTATE = """
#undef __CUDA_EMULATOR__
#include "grid.cuh"
extern "C" __global__ void rotate(int* values, unsigned* arrivals, int rounds) {
    unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    unsigned size = blockDim.x * blockDim.y * blockDim.z, n = size * gridDim.x * gridDim.y * gridDim.z;
    unsigned i = block * size + (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    grid_barrier(arrivals);
    for (int round = 0; round < rounds; round++) {
        for (volatile int wait = block % rounds == round ? 50000 : 0; wait > 0;) wait = wait - 1;
        int next = ((volatile int*)values)[(i + 1) % n];
        grid_barrier(arrivals);
        values[i] = next;
        grid_barrier(arrivals);
    }
}
"""


@pytest.mark.parametrize(("grid", "block"), [(1, 64), (2, 1), ((3, 2, 1), (1, 8, 4)), ((1, 2, 3), (1, 8, 4))])
@pytest.mark.parametrize("rounds", [1, 3])
def test_blocks_wait_for_each_other(grid, block, rounds, monkeypatch):
    monkeypatch.setattr(launcher, "RESIDENT", 6)
    kernel, x = cuda_kernel(ROTATE), np.arange(np.prod(grid) * np.prod(block), dtype=np.int32)
    values, arrivals = x.copy(), np.zeros(1, np.uint32)
    on_device(lambda v, a: kernel(v, a, rounds, grid=grid, block=block, cooperative=True), values, arrivals)
    np.testing.assert_array_equal(values, np.roll(x, -rounds))
    assert arrivals[0] == 2**31  # the barriers are odd in number, and one thread of a block counts
