"""What an operation keeps for its backward pass: its output or its input, or numbers of them, and nothing else."""

import gc
import types

import numpy as np
import pytest

from dlgpu import autograd, ops
from dlgpu.backend.reference.activation import FROM_INPUT, NAMES
from dlgpu.ops.activation import SLOPES, activation
from dlgpu.ops.differentiation import fresh
from dlgpu.tensor import Tensor

RNG = np.random.default_rng(0)
SHAPE = (64, 8, 8, 4)
SIZE = 4 * 64 * 8 * 8 * 4  # bytes of x
SMALL = SIZE // 100  # means of channels and the like


def values(*shape):
    return RNG.uniform(0.1, 1, shape or SHAPE).astype(np.float32)


def wanted(*shape):
    """A Tensor on the tape whose own node keeps nothing."""
    return fresh(Tensor(values(*shape), requires_grad=True))


def constant(*shape):
    return Tensor(values(*shape))


def kept(function, *inputs):
    """Bytes of all arrays that the tape of function(*inputs) refers to, save for small ones such as weights."""
    outputs = function(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    seen, found = set(), {}
    pending = [o.edge[0] for o in outputs if o.edge is not None]
    pending += [t.edge[0] for t in inputs if t.edge is not None]
    while pending:
        item = pending.pop()
        if id(item) in seen or isinstance(item, (type, types.ModuleType)) or callable(getattr(item, "on", None)):
            continue
        seen.add(id(item))
        if isinstance(item, np.ndarray):
            while isinstance(item.base, np.ndarray):
                item = item.base
            found[id(item)] = item.nbytes
        elif isinstance(item, types.FunctionType):
            pending += [c.cell_contents for c in item.__closure__ or ()]
        elif isinstance(item, (Tensor, autograd.Node, list, tuple, dict, types.CellType)):
            pending += gc.get_referents(item)
    return sum(n for n in found.values() if n > SMALL)


def a_mask():
    return Tensor(RNG.uniform(0, 1, SHAPE) > 0.5)


X, PAIR, BESIDE = (lambda: [wanted()]), (lambda: [wanted(), wanted()]), (lambda: [wanted(), constant()])
CASES = {
    "add": (ops.add, PAIR, 0),
    "subtract": (ops.subtract, PAIR, 0),
    "negative": (ops.negative, X, 0),
    "multiply": (ops.multiply, PAIR, 2),
    "multiply by a number": (lambda x: x * 3.0, X, 0),
    "multiply by a constant": (ops.multiply, BESIDE, 1),
    "divide": (ops.divide, PAIR, 2),
    "divide by a number": (lambda x: x / 3.0, X, 0),
    "divide by a constant": (ops.divide, BESIDE, 1),
    "divide a number": (lambda x: 1 / x, X, 2),
    "power": (lambda x: x**3, X, 1),
    "power of a constant": (ops.power, BESIDE, 2),
    "square": (ops.square, X, 1),
    "sqrt": (ops.sqrt, X, 1),
    "exp": (ops.exp, X, 1),
    "log": (ops.log, X, 1),
    "tanh": (ops.tanh, X, 1),
    "absolute": (ops.absolute, X, 1),
    "clip": (lambda x: ops.clip(x, 0.2, 0.8), X, 1),
    "maximum": (lambda x: ops.maximum(x, 0.5), X, 1),
    "where": (lambda x: ops.where(a_mask(), x, 0), X, 1 / 4),
    "astype": (lambda x: x.astype(np.float64), X, 0),
    "sum": (lambda x: x.sum((1, 2)), X, 0),
    "mean": (lambda x: x.mean((1, 2)), X, 0),
    "reshape": (lambda x: x.reshape(64, 256), X, 0),
    "transpose": (lambda x: x.transpose((0, 3, 1, 2)), X, 0),
    "concatenate": (lambda x, y: ops.concatenate([x, y], -1), PAIR, 0),
    "stack": (lambda x, y: ops.stack([x, y]), PAIR, 0),
    "a part": (lambda x: x[:, 1:], X, 0),
    "pad": (lambda x: ops.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)]), X, 0),
    "cumsum": (lambda x: ops.cumsum(x, 1), X, 0),
    "dropout": (lambda x: ops.dropout(x, 0.5), X, 0),
    "max_pool": (lambda x: ops.max_pool(x, 2), X, 1 / 16),  # a byte for each window
    "average_pool": (lambda x: ops.average_pool(x, 2), X, 0),
    "softmax": (ops.softmax, X, 1),
    "log_softmax": (ops.log_softmax, X, 1),
    "batch_normalization": (lambda x: ops.batch_normalization(x, wanted(4), wanted(4))[0], X, 1),
    "layer_normalization": (
        lambda x: ops.layer_normalization(x, wanted(4), wanted(4)),
        X,
        1 + 2 / 4,
    ),  # and of each row
    "normalize": (lambda x: ops.normalize(x, constant(4), constant(4)), X, 0),
    "matmul": (lambda x: x @ wanted(4, 4), X, 1),
    "matmul by a constant": (lambda x: x @ constant(4, 4), X, 0),
    "dense": (lambda x: ops.dense(x, wanted(4, 4), wanted(4)), X, 1),
    "dense and relu": (lambda x: ops.dense(x, wanted(4, 4), wanted(4), "relu"), X, 2),
    "conv2d": (lambda x: ops.conv2d(x, wanted(3, 3, 4, 4), wanted(4), padding="same"), X, 1),
    "conv2d and relu": (lambda x: ops.conv2d(x, wanted(3, 3, 4, 4), None, padding="same", activation="relu"), X, 2),
    "conv2d_transpose": (lambda x: ops.conv2d_transpose(x, wanted(1, 1, 4, 4)), X, 1),
}


@pytest.mark.parametrize("name", CASES)
def test_no_more_is_kept_than_the_gradients_need(name):
    function, inputs, times = CASES[name]
    assert kept(function, *inputs()) == pytest.approx(times * SIZE, rel=0.02)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("biased", [False, True])
def test_an_activation_keeps_its_output_or_its_input_and_not_both(name, biased):
    def function(x):
        return activation(x, name, wanted(4) if biased else None)

    assert kept(function, wanted()) == (0 if name == "linear" else SIZE)


def test_every_activation_that_keeps_its_output_has_a_derivative_of_it():
    assert SLOPES.keys() == set(NAMES) - set(FROM_INPUT) - {"linear"}
