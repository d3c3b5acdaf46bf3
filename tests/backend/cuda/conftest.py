"""Here the column is CUDA's. The registry is judged last, by what all other tests here have compared."""

import pytest

from dlgpu.backend.cuda.source import Source
from tests.backend import column
from tests.backend.cuda import hostile


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name == "test_registry.py")


@pytest.fixture(autouse=True)
def _column(monkeypatch):
    monkeypatch.setattr(column, "current", hostile)


@pytest.fixture
def launches(monkeypatch):
    """The names of the kernels that were launched."""
    names, launch = [], Source.launch

    def noted(self, name, *args, **options):
        names.append(name)
        launch(self, name, *args, **options)

    monkeypatch.setattr(Source, "launch", noted)
    return names
