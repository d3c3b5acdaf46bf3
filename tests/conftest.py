"""Fixtures that all tests share."""

import os

import numpy as np
import pytest

import dlgpu

os.environ.setdefault("DLGPU_TUNING", "0")  # on a GPU, to measure what changes no bit would only take time


@pytest.fixture(autouse=True)
def seeded():
    """Every test begins with the same random numbers, so that none depends on another's."""
    dlgpu.set_random_seed(0)


@pytest.fixture
def rng():
    """NumPy's generator, for data."""
    return np.random.default_rng(0)
