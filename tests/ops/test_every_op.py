"""Every operation that `dlgpu.ops` exports is proven: its derivatives are checked, or it is known to be a constant."""

import inspect
import re
from pathlib import Path

import pytest

from dlgpu import ops
from tests.ops import test_elementwise, test_linear, test_reduction, test_shape

TABLES = {
    "elementwise": test_elementwise,
    "linear": test_linear,
    "reduction": test_reduction,
    "shape": test_shape,
}
EXPORTED = {
    name: operation.__module__.rpartition(".")[2]
    for name, operation in vars(ops).items()
    if inspect.isfunction(operation) and not name.startswith("_")
}


@pytest.mark.parametrize("name", EXPORTED)
def test_operation_is_proven(name):
    module = EXPORTED[name]
    if module in TABLES:
        assert name in TABLES[module].DIFFERENTIABLE | TABLES[module].CONSTANT
    else:
        proof = Path(__file__).with_name(f"test_{module}.py").read_text()
        assert re.search(rf"\b{name}\b", proof), f"tests/ops/test_{module}.py says nothing of {name}"
        assert "gradcheck" in proof or module == "differentiation"


def test_tables_name_only_what_is_exported():
    for module, table in TABLES.items():
        for name in table.DIFFERENTIABLE | table.CONSTANT:
            assert EXPORTED.get(name) == module, name
