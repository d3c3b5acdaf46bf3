"""Stand-in for `nvmath.bindings.cublas`: its enumerators that dlgpu uses."""

import enum


class ComputeType(enum.IntEnum):
    COMPUTE_16F, COMPUTE_32F, COMPUTE_64F, COMPUTE_32F_FAST_TF32 = 64, 68, 70, 77


class Operation(enum.IntEnum):
    N, T, C = 0, 1, 2
