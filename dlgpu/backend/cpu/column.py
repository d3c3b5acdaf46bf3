"""Every domain of the CPU column: importing this registers its compiled loops."""

from dlgpu.backend.cpu import (
    activation,
    convolution,
    counting,
    cross_entropy,
    elementwise,
    embedding,
    linear,
    normalization,
    pooling,
    random,
    recurrent,
    reduction,
    softmax,
    update,
)
