"""Here the column is the CPU's."""

import importlib

import pytest

from tests.backend import column
from tests.backend.cpu import agree

importlib.import_module("dlgpu.backend.cpu.column")  # registers it


@pytest.fixture(autouse=True)
def _column(monkeypatch):
    monkeypatch.setattr(column, "current", agree)
