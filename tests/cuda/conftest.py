"""Tests of what only device "cuda" does: collected where there is a GPU, or the stand-in for CuPy (tests/doubles)."""

import pytest

import dlgpu
from dlgpu.backend.devices import cuda_devices

if not cuda_devices()[0]:
    collect_ignore_glob = ["test_*"]
elif "doubles" not in dlgpu.device("cuda").array_namespace.__file__:
    collect_ignore_glob = ["test_stand_in*.py"]


@pytest.fixture
def cupy():
    """CuPy, or its stand-in."""
    return dlgpu.device("cuda").array_namespace


@pytest.fixture(autouse=True)
def on_the_gpu():
    """A GPU is the current device, whatever DLGPU_DEVICE says."""
    with dlgpu.device("cuda"):
        yield
