"""The registry is judged last, by what all other tests here have compared."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name == "test_registry.py")
