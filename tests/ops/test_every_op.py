"""Every operation has its derivatives checked, first and second, in float64, or is known to be a constant.

The rows of elementary operations have tables in their own tests; the others have one case each here, and hostile shapes
in their own tests.
"""

import inspect

import numpy as np
import pytest

from dlgpu import ops
from dlgpu.ops import recurrent
from dlgpu.ops.activation import activation
from dlgpu.ops.convolution import conv2d_max_pool
from dlgpu.ops.random import Generator
from dlgpu.testing import gradcheck
from tests.ops import test_elementwise, test_linear, test_reduction, test_shape

TABLES = {
    "elementwise": test_elementwise,
    "linear": test_linear,
    "reduction": test_reduction,
    "shape": test_shape,
}
RNG = np.random.default_rng(0)
X, ROWS, IMAGES = RNG.normal(size=(3, 4)), RNG.uniform(0.2, 1, (3, 4)), RNG.normal(size=(2, 4, 3, 2))
LABELS, TARGETS = np.array([2, 0, 3]), RNG.dirichlet(np.ones(4), 3)
SERIES, STATE = RNG.normal(size=(2, 3, 2)), RNG.normal(size=(2, 3))


def gates(parts):
    """Kernel, recurrent kernel and bias of a recurrent network of so many parts."""
    return [RNG.normal(size=shape) * 0.5 for shape in ((2, 3 * parts), (3, 3 * parts), (3 * parts,))]


# operation: a function of arrays that are differentiated, and those arrays. Squares, where an operation is linear
CASES = {
    "activation": (lambda x, b: activation(x, "tanh", b), X, X[0]),
    "astype": (lambda x: ops.astype(ops.astype(x, np.float64), np.float64) ** 2, X),
    "dense": (lambda x, k, b: ops.dense(x, k, b, "sigmoid"), X, X.T, X[0, :3]),
    "erf": (ops.erf, X),
    "erfc": (ops.erfc, X),
    "relu": (lambda x: ops.relu(x) ** 2, X),
    "sigmoid": (ops.sigmoid, X),
    "softplus": (ops.softplus, X),
    "conv1d": (
        lambda x, k, b: ops.conv1d(x, k, b, padding="causal", activation="tanh"),
        SERIES,
        SERIES[:, :2],
        X[0, :2],
    ),
    "conv2d": (lambda x, k, b: ops.conv2d(x, k, b, 2, "same", activation="tanh"), IMAGES, IMAGES[:, :, :2], X[0, :2]),
    "conv2d_max_pool": (
        lambda x, k, b: conv2d_max_pool(x, k, b, padding="same", activation="tanh"),
        IMAGES,
        IMAGES[:, :, :2],
        X[0, :2],
    ),
    "conv2d_transpose": (lambda x, k: ops.conv2d_transpose(x, k, None, 2), IMAGES[:, :2], IMAGES[:, :2]),
    "gather": (lambda table: ops.gather(table, LABELS) ** 2, RNG.normal(size=(4, 2))),
    "scatter_add": (lambda values: ops.scatter_add(values, LABELS % 2, 2) ** 2, X),
    "batch_normalization": (lambda x, s, o: ops.batch_normalization(x, s, o)[0], X, X[0], X[1]),
    "layer_normalization": (ops.layer_normalization, X, X[0], X[1]),
    "normalize": (ops.normalize, X, X[0], ROWS[0], X[1], X[2]),
    "average_pool": (lambda x: ops.average_pool(x, (3, 2), (1, 1), "same") ** 2, IMAGES),
    "max_pool": (lambda x: ops.max_pool(x, (3, 2), (1, 1), "same") ** 2, IMAGES),
    "dropout": (lambda x: ops.dropout(x, 0.5, Generator(1)) ** 2, X),
    "simple_rnn": (lambda *a: recurrent.simple_rnn(*a)[0], SERIES, *gates(1), STATE),
    "lstm": (lambda *a: recurrent.lstm(*a), SERIES, *gates(4), STATE, STATE + 1),
    "gru": (lambda x, k, r, b, h: recurrent.gru(x, k, r, ops.stack([b, b]), h), SERIES, *gates(3), STATE),
    "softmax": (ops.softmax, X),
    "log_softmax": (ops.log_softmax, X),
    "softmax_cross_entropy": (lambda x: ops.softmax_cross_entropy(x, LABELS), X),
    "categorical_cross_entropy": (lambda p: ops.categorical_cross_entropy(p, TARGETS), ROWS),
    "sigmoid_cross_entropy": (lambda x: ops.sigmoid_cross_entropy(x, TARGETS), X),
    "binary_cross_entropy": (lambda p: ops.binary_cross_entropy(p, TARGETS), ROWS * 0.9),
}
# what the derivatives are asked of, and made of: tests/ops/test_differentiation.py
MACHINERY = {"grad", "value_and_grad"}
# what layers use, and dlgpu.ops does not export
NOT_EXPORTED = {"simple_rnn", "lstm", "gru", "activation", "conv2d_max_pool"}


def exported():
    """Name -> row of each function that dlgpu.ops exports."""
    return {
        name: operation.__module__.rpartition(".")[2]
        for name, operation in vars(ops).items()
        if inspect.isfunction(operation) and not name.startswith("_")
    }


@pytest.mark.parametrize("name", CASES)
def test_first_and_second_derivative(name):
    function, *inputs = CASES[name]
    gradcheck(function, *inputs, tolerance=5e-6)


def test_every_exported_operation_has_its_derivatives_checked():
    known = MACHINERY | (CASES.keys() - NOT_EXPORTED)
    for table in TABLES.values():
        known |= table.DIFFERENTIABLE | table.CONSTANT
    assert exported().keys() == known


def test_tables_name_only_what_their_row_exports():
    rows = exported()
    for module, table in TABLES.items():
        for name in table.DIFFERENTIABLE | table.CONSTANT:
            assert rows.get(name) == module, name
