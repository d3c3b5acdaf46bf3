"""Stand-in for `cupy.RawModule`: kernels compiled by dlgpu's emulator, launched as strictly as CuPy launches them."""

import re

import numpy as np

from cupy import _graph, _order
from cupy._array import ndarray
from cupy.cuda import get_current_stream
from cupy.cuda.compiler import CompileException
from dlgpu.backend.cuda.signature import C_TYPES, kernels_in
from dlgpu.backend.cuda.source import FOLDER, STORAGE
from dlgpu.backend.emulator import compiler, launcher

FREE_SHARED = 48 << 10  # bytes of a block, without asking


class RawModule:
    def __init__(
        self,
        code=None,
        *,
        path=None,
        options=(),
        backend="nvrtc",
        translate_cucomplex=False,
        enable_cooperative_groups=False,
        name_expressions=None,
        jitify=None,
    ):
        if type(code) is not str or type(options) is not tuple or any(type(o) is not str for o in options):
            raise TypeError("RawModule takes the code as a string and the options as a tuple of strings")
        if sum(o.startswith(("-std=", "--std=")) for o in options) > 1:
            raise CompileException("nvrtc: error: std redefined", code, "", options)
        self.code, self.options, self._library = code, options, None
        self._most_shared = {}  # by function: all of a name are one to the driver
        self._cooperative = enable_cooperative_groups

    def compile(self, log_stream=None):
        line = re.match(r'#line 1 "([^"]*)"\n', self.code)
        name, text = (line[1], self.code[line.end() :]) if line else ("kernel.cu", self.code)
        defines = [o[2:] for o in self.options if o.startswith("-D")]
        try:
            self._library = compiler.library(text, name, tuple(kernels_in(text)), defines, FOLDER)
        except compiler.KernelError as error:
            raise CompileException(str(error), self.code, name, self.options) from None

    def get_function(self, name):
        if self._library is None:
            self.compile()
        return RawKernel(self, name)


class RawKernel:
    def __init__(self, module, name):
        self.name, self._most_shared = name, module._most_shared
        self._library, self._parameters = module._library, kernels_in(module.code)[name]
        self._dtype = next((d for d, macros in STORAGE.items() if f"-D{macros[0]}" in module.options), None)

    @property
    def max_dynamic_shared_size_bytes(self):
        return self._most_shared.get(self.name, FREE_SHARED)

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size):
        self._most_shared[self.name] = size

    @property
    def kernel(self):
        """What is launched, and knows of cooperative launches: CuPy's Function."""
        return Function(self)

    def __call__(self, grid, block, args, *, shared_mem=0):
        self.kernel(grid, block, args, shared_mem)

    def _launch(self, grid, block, args, shared_mem, cooperative):
        if not all(type(x) is tuple and all(type(n) is int for n in x) for x in (grid, block)):
            raise TypeError("a grid and a block are tuples of integers")
        grid, block = ((*x, 1, 1)[:3] for x in (grid, block))
        if grid[0] >= 1 << 31 or max(grid[1:]) >= 1 << 16 or max(*block[:2], block[2] * 16, np.prod(block)) > 1024:
            raise ValueError(f"CUDA_ERROR_INVALID_VALUE: {self.name} with grid {grid}, block {block}")
        most = min(self.max_dynamic_shared_size_bytes, launcher.SHARED)
        if shared_mem > most or (cooperative and np.prod(grid) > launcher.RESIDENT):
            raise ValueError(f"CUDA_ERROR_INVALID_VALUE: {self.name} with {grid}, {shared_mem} bytes of shared memory")
        if len(args) != len(self._parameters):
            raise TypeError(f"{self.name} has {len(self._parameters)} parameters, got {len(args)} arguments")
        capture, uses = _graph.capturing(), []
        line = get_current_stream()._line
        if capture is None:
            line.work()
        values = [self._value(p, a, line, None if capture is None else uses) for p, a in zip(self._parameters, args)]

        def launch():
            launcher.launch(self._library, self.name, grid, block, shared_mem, values, cooperative)

        if capture is not None:
            return capture.note(uses, launch)
        _order.run(line.clock)
        launch()

    def _value(self, parameter, value, line, uses):
        """What the launch passes; CuPy looks at no parameter's type, and a wrong one would be read as garbage."""
        wanted = C_TYPES.get(parameter.type)
        if parameter.type in ("T", "A"):
            wanted = self._dtype if parameter.type == "T" or self._dtype == "float64" else "float32"
        if parameter.pointer:
            if value is None:
                return None
            if not isinstance(value, ndarray):
                raise TypeError(f"Unsupported type {type(value)}")
            if wanted is not None and value.dtype.name != wanted:
                raise TypeError(f"{self.name}: {parameter.name} is {wanted}*, got {value.dtype}")
            if uses is None:
                value._used(line, not parameter.const)
            else:
                uses.append((value._memory, not parameter.const))
            return value._host
        if type(value) in (bool, int, float):
            value = np.float64(value) if type(value) is float else np.int64(value)
        if not isinstance(value, np.generic) or value.dtype.name != wanted:
            raise TypeError(f"{self.name}: {parameter.name} is {wanted}, got {type(value)}")
        return value


class Function:
    ptr = 1

    def __init__(self, kernel):
        self._kernel = kernel

    def __call__(self, grid, block, args, shared_mem=0, stream=None, enable_cooperative_groups=False):
        if stream is not None:
            raise NotImplementedError("the stand-in launches on the current stream")
        self._kernel._launch(grid, block, args, shared_mem, enable_cooperative_groups)
