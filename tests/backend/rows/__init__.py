"""Tests that all columns pass; see `tests.backend.column`."""


def normal(rng, *shape, dtype="f"):
    """Normally distributed values."""
    return rng.standard_normal(shape).astype(dtype)
