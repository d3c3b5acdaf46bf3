"""Fixtures that all tests share."""

import numpy as np
import pytest

import dlgpu


@pytest.fixture(autouse=True)
def seeded():
    """Every test begins with the same random numbers, so that none depends on another's."""
    dlgpu.set_random_seed(0)


@pytest.fixture
def rng():
    """NumPy's generator, for data."""
    return np.random.default_rng(0)
