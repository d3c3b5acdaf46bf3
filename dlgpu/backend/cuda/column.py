"""Every domain of the CUDA column: importing this registers its kernels, for GPUs and for the emulator."""

from dlgpu.backend.cuda import (
    activation,
    convolution,
    counting,
    embedding,
    linear,
    normalization,
    pooling,
    random,
    recurrent,
    softmax,
    update,
)
