"""Every kernel of the CUDA column has a case that tries to break it."""

import importlib
import pkgutil

import dlgpu
from dlgpu.backend.dispatch import registry
from tests.backend import cuda
from tests.backend.cuda.hostile import covered


def test_no_kernel_is_unproven():
    dlgpu.device("emulator")  # registers the column
    for module in pkgutil.iter_modules(cuda.__path__):
        importlib.import_module(f"{cuda.__name__}.{module.name}")
    kernels = {name for name, kernel in registry.items() if "cuda" in kernel.columns}
    assert kernels
    assert kernels - covered == set()
