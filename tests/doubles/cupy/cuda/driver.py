"""Stand-in for `cupy.cuda.driver`."""

from cupy.cuda import MULTIPROCESSORS
from dlgpu.backend.emulator import launcher


def occupancyMaxActiveBlocksPerMultiprocessor(func, blockSize, dynamicSMemSize):
    return launcher.RESIDENT // MULTIPROCESSORS
