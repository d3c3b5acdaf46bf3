"""The CUDA column: chooses grid, block and shared memory for the kernels in kernels/*.cu. One file per domain.

Importing it registers the kernels, for GPUs and for the emulator.
"""

from dlgpu.backend.cuda import (
    activation,
    convolution,
    embedding,
    normalization,
    pooling,
    random,
    recurrent,
    softmax,
    update,
)
