"""The transpose of a mean on CUDA: one launch, of which what follows takes the result as it is."""

from dlgpu.backend.cuda.geometry import BLOCK, blocks_for, contiguous, empty
from dlgpu.backend.cuda.source import STORAGE, source
from dlgpu.backend.reference import reduction as reference


@reference.spread.on("cuda")
def spread(value, count, shape):
    if value.dtype.name not in STORAGE:
        return reference.spread.reference(value, count, shape)
    output = empty(value, shape)
    args = contiguous(value), count, output, output.size
    source("reduction.cu").launch("spread", blocks_for(output.size), BLOCK, args, dtype=value.dtype)
    return output
