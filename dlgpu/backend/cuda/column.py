"""Every domain of the CUDA column: importing this registers its kernels, for GPUs and for the emulator."""

from dlgpu.backend.cuda import (
    activation,
    convolution,
    counting,
    embedding,
    linear,
    loss_scale,
    normalization,
    pooling,
    random,
    recurrent,
    reduction,
    softmax,
    update,
)
