"""What launches on a GPU have to see to."""

import numpy as np

from dlgpu import cuda_kernel
from dlgpu.backend.cuda.source import shared_limit
from dlgpu.backend.devices import device_of

LAST = """extern "C" __global__ void last(float* x, int size) {
    extern __shared__ float shared[];
    shared[size - 1] = 1;
    x[0] += shared[size - 1];
}"""


def test_a_launch_with_less_shared_memory_leaves_others_what_they_were_given(cupy):
    kernel, x = cuda_kernel(LAST), cupy.zeros(1, np.float32)
    most = shared_limit(device_of(x)) // 4
    for size in most, most - 1024, most, 16, most:
        kernel(x, size, grid=1, block=1, shared=4 * size)
    assert x.get()[0] == 5
