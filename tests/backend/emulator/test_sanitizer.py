"""Under AddressSanitizer the emulator catches what a GPU would silently corrupt, and names the kernel's line."""

import os
import subprocess
import sys

import pytest

from dlgpu.backend.emulator.compiler import SANITIZERS, compiler

PROGRAM = """
import numpy as np
import dlgpu
kernel = dlgpu.cuda_kernel('''extern "C" __global__ void shift(float* x, int by) {
    __shared__ float s[64];
    s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    float v = __shfl_xor_sync(0xffffffffu, s[63 - threadIdx.x], 1);
    x[threadIdx.x + by] = v;
}''')
x = np.zeros(512, np.float32)
kernel(x, 0, grid=8, block=64)
print("inside", flush=True)
kernel(x, BY, grid=1, block=64)
print("unnoticed")
"""


def sanitized_environment(sanitizers="address,undefined"):
    """The variables under which kernels run with the sanitizers, whose libraries must be loaded first."""
    libraries = [
        subprocess.run(
            [compiler(), f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    return {SANITIZERS: sanitizers, "LD_PRELOAD": " ".join(libraries), "ASAN_OPTIONS": "detect_leaks=0"}


def run_sanitized(program):
    """Run Python under the sanitizers."""
    environment = {**os.environ, **sanitized_environment(), "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("by", [449, 512])
def test_a_write_beyond_an_array_is_caught_at_its_line(by):
    done = run_sanitized(PROGRAM.replace("BY", str(by)))
    assert done.stdout == "inside\n"
    assert "heap-buffer-overflow" in done.stderr
    assert "in shift" in done.stderr
    assert "shift.cu:6" in done.stderr or "kernel.cu:6" in done.stderr


def test_what_is_right_passes():
    done = run_sanitized(PROGRAM.replace("BY", "64"))
    assert (done.returncode, done.stdout) == (0, "inside\nunnoticed\n"), done.stderr[-2000:]
