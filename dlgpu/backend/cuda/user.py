"""Kernels of the user's own, on the same machinery as the library's."""

import functools
from collections.abc import Sequence
from typing import Any

from dlgpu.backend.recorder import active
from dlgpu.errors import unknown_name


class CudaKernel:
    """A kernel that can be called: on a GPU with CuPy arrays, in the emulator with NumPy arrays.

    Args:
        source: CUDA C++ with `extern "C" __global__ void name(...)`. The headers in dlgpu's kernels/ can be included.
        name: the kernel; may be left out where the source has one only.
        dtype: what the type `T` stands for in the source, if it includes "common.cuh".
    Raises:
        ValueError: the source has no kernel of that name.
    """

    def __init__(self, source: str, name: "str | None" = None, dtype: Any = None):
        from dlgpu.backend.cuda.source import Source  # with the compilers, which `import dlgpu` need not wait for

        self._source = Source(source, f"{name or 'kernel'}.cu")
        known = list(self._source.kernels)
        if name is None and len(known) == 1:
            name = known[0]
        if name not in known:
            raise ValueError(
                unknown_name("kernel", name, known)
                if known
                else 'the source has no `extern "C" __global__ void` kernel'
            )
        self.name = name
        self.dtype = dtype
        functools.update_wrapper(self, CudaKernel.__call__)
        self.__name__ = name

    def __call__(
        self,
        *args: Any,
        grid: "int | Sequence[int]",
        block: "int | Sequence[int]",
        shared: int = 0,
        cooperative: bool = False,
    ) -> None:
        """Launch the kernel. On a GPU this does not wait for it; errors inside it show at the next synchronization.

        Args:
            args: contiguous arrays (or Tensors) of the parameters' types, None for a null pointer, and numbers.
            grid: the number of blocks, up to three lengths.
            block: the threads in each, up to three lengths, 1024 at most.
            shared: bytes of dynamic shared memory.
            cooperative: all blocks run at once and can wait for each other at `grid_barrier` of "grid.cuh". A device
                that cannot run so many runs fewer: the kernel must cover its work by gridDim.
        Raises:
            TypeError, ValueError: an argument does not suit its parameter, which the message names.
            KernelError: the source does not compile; in the emulator also: threads of a block wait for others that do
                not come, or an assertion fails.
        """
        arrays = [getattr(a, "array", a) for a in args]
        if (recording := active()) is not None:
            recording.replayable = False  # in a replay no other kernels run than dlgpu's
        self._source.launch(self.name, grid, block, arrays, shared, self.dtype, cooperative=cooperative)

    def __repr__(self) -> str:
        return f"<CUDA kernel {self.name}>"


def cuda_kernel(source: str, name: "str | None" = None, dtype: Any = None) -> CudaKernel:
    """A kernel of your own from CUDA C++ source; see CudaKernel.

    swish = dlgpu.cuda_kernel('''extern "C" __global__ void swish(const float* x, float* y, int n) {
        int i = blockIdx.x * blockDim.x + threadIdx.x;
        if (i < n) y[i] = x[i] / (1 + expf(-x[i]));
    }''')
    swish(x, y, x.size, grid=(x.size + 255) // 256, block=256)
    """
    return CudaKernel(source, name, dtype)
