"""What is tested here is the emulator, also where a GPU would be the current device."""

import pytest

import dlgpu


@pytest.fixture(autouse=True)
def emulated():
    with dlgpu.device("emulator"):
        yield
