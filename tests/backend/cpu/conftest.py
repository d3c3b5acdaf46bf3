"""Here the column is the CPU's."""

import pytest

from tests.backend import column
from tests.backend.cpu import agree


@pytest.fixture(autouse=True)
def _column():
    column.current = agree
    yield
    column.current = None
