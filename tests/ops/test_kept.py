"""What an operation keeps for its backward pass: its output or its input, or numbers of them, and nothing else."""

import functools
import gc
import types

import ml_dtypes
import numpy as np
import pytest

import dlgpu
from dlgpu import activations, autograd, ops
from dlgpu.backend.devices import current_device
from dlgpu.backend.dispatch import registry
from dlgpu.backend.reference.activation import FROM_INPUT, NAMES
from dlgpu.ops import recurrent
from dlgpu.ops.activation import SLOPES, activation
from dlgpu.ops.differentiation import fresh
from dlgpu.tensor import Tensor
from tests.ops.test_every_op import MACHINERY, TABLES, exported

SHAPE = (8, 8, 8, 4)
N = 8 * 8 * 8 * 4  # values in x
ROWS = N // 4
DTYPES = [np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16)]


@pytest.fixture(params=["reference", "cpu", "cuda"])
def column(request, monkeypatch):
    """Whose kernels run, and keep."""
    place = dlgpu.device("cpu")
    if request.param == "cuda":
        place = dlgpu.device("emulator") if current_device().on_host else current_device()
    if request.param == "reference":
        for kernel in registry.values():
            monkeypatch.setattr(kernel, "columns", {})
    else:
        place.load()
    with place:
        yield request.param


class Given:
    """Makes Tensors of a dtype on the current device, and remembers which are weights."""

    def __init__(self, dtype):
        self.dtype, self.rng, self.weights = dtype, np.random.default_rng(0), []

    def constant(self, *shape, dtype=None):
        values = self.rng.uniform(0.1, 1, shape or SHAPE).astype(dtype or self.dtype)
        return Tensor(values, device=current_device())

    def wanted(self, *shape):
        """On the tape, with a node that itself keeps nothing."""
        return fresh(Tensor(self.constant(*shape).array, requires_grad=True))

    def weight(self, *shape, dtype=None):
        self.weights.append(Tensor(self.constant(*shape, dtype=dtype).array, requires_grad=True))
        return self.weights[-1]

    def mask(self, *shape):
        return self.constant(*shape) > 0.5

    def places(self, *shape):
        """Integers in [0, 4)."""
        return Tensor(self.rng.integers(0, 4, shape), device=current_device())

    def kept(self, function, *inputs):
        """Bytes of all arrays, save for weights, that the tape of function(*inputs) refers to."""
        outputs = function(*inputs)
        outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        seen, found, weights = set(), {}, {id(w.array) for w in self.weights}
        pending = [o.edge[0] for o in outputs if isinstance(o, Tensor) and o.edge is not None]
        assert pending
        while pending:
            item = pending.pop()
            if id(item) in seen or isinstance(item, (type, types.ModuleType)) or callable(getattr(item, "on", None)):
                continue
            seen.add(id(item))
            if hasattr(item, "nbytes") and not isinstance(item, (Tensor, np.generic)):
                while hasattr(item.base, "nbytes") and type(item.base) is type(item):
                    item = item.base
                found[id(item)] = item.nbytes if id(item) not in weights else 0
            elif isinstance(item, types.FunctionType):
                pending += [c.cell_contents for c in item.__closure__ or ()]
            elif isinstance(item, (Tensor, autograd.Node, functools.partial, list, tuple, dict, types.CellType)):
                pending += gc.get_referents(item)
        return sum(found.values())


def norm(function):
    """With float32 weights, as layers have them in mixed precision."""
    return lambda t: lambda x: function(x, t.weight(4, dtype="f"), t.weight(4, dtype="f"))


def loss(function, *shape):
    """Of (rows, 4) and targets of a shape, integers if they have one value for each row."""
    return lambda t: lambda x: function(x, t.constant(*shape) if len(shape) == 2 else t.places(*shape))


def plain(function, *args):
    return lambda t: lambda *x: function(*x, *args)


X, PAIR, BESIDE = "X", "PAIR", "BESIDE"  # of one Tensor, of two, of one and a constant
ROW = (ROWS, 4)
# operation, which variant of it: Given -> the function, its inputs, and how many numbers of x's dtype it keeps; then
# bytes of others, and how many numbers are float32 outside of the CUDA column, whatever x is
CASES = {
    "add": (plain(ops.add), PAIR, 0),
    "subtract": (plain(ops.subtract), PAIR, 0),
    "negative": (plain(ops.negative), X, 0),
    "multiply": (plain(ops.multiply), PAIR, 2 * N),
    "multiply, by a number": (plain(ops.multiply, 3.0), X, 0),
    "multiply, by a constant": (plain(ops.multiply), BESIDE, N),
    "divide": (plain(ops.divide), PAIR, 2 * N),
    "divide, by a number": (plain(ops.divide, 3.0), X, 0),
    "divide, by a constant": (plain(ops.divide), BESIDE, N),
    "divide, a number": (plain(lambda x: 1 / x), X, 2 * N),
    "power": (plain(ops.power, 3), X, N),
    "power, of a constant": (plain(ops.power), BESIDE, 2 * N),
    "square": (plain(ops.square), X, N),
    "sqrt": (plain(ops.sqrt), X, N),
    "exp": (plain(ops.exp), X, N),
    "expm1": (plain(ops.expm1), X, N),
    "log": (plain(ops.log), X, N),
    "log1p": (plain(ops.log1p), X, N),
    "sin": (plain(ops.sin), X, N),
    "cos": (plain(ops.cos), X, N),
    "tanh": (plain(ops.tanh), X, N),
    "arctan": (plain(ops.arctan), X, N),
    "erf": (plain(ops.erf), X, N),
    "erfc": (plain(ops.erfc), X, N),
    "sigmoid": (plain(ops.sigmoid), X, N),
    "softplus": (plain(ops.softplus), X, N),
    "relu": (plain(ops.relu), X, N),
    "absolute": (plain(ops.absolute), X, N),
    "clip": (plain(ops.clip, 0.2, 0.8), X, N),
    "maximum": (plain(ops.maximum, 0.5), X, N),
    "minimum": (plain(ops.minimum), PAIR, 2 * N),
    "where": (lambda t: lambda x: ops.where(t.mask(), x, 0), X, 0, N),  # a byte for each value
    "where, of two": (lambda t: lambda x, y: ops.where(t.mask(), x, y), PAIR, 0, N),
    "astype": (lambda t: lambda x: x.astype(np.float64), X, 0),
    "sum": (plain(ops.sum, (1, 2)), X, 0),
    "mean": (plain(ops.mean, (1, 2)), X, 0),
    "mean, of all": (plain(ops.mean), X, 0),
    "var": (plain(ops.var, -1), X, N),
    "std": (plain(ops.std, -1), X, N + ROWS),
    "max": (plain(ops.max, -1), X, N + ROWS),
    "min": (plain(ops.min, -1), X, N + ROWS),
    "logsumexp": (plain(ops.logsumexp, -1), X, N + ROWS),
    "cumsum": (plain(ops.cumsum, 1), X, 0),
    "reshape": (plain(ops.reshape, 64, 32), X, 0),
    "transpose": (plain(ops.transpose, (0, 3, 1, 2)), X, 0),
    "swapaxes": (plain(ops.swapaxes, 0, 1), X, 0),
    "moveaxis": (plain(ops.moveaxis, 0, 1), X, 0),
    "expand_dims": (plain(ops.expand_dims, 0), X, 0),
    "squeeze": (lambda t: lambda x: ops.squeeze(x[:, :1], 1), X, 0),
    "broadcast_to": (plain(ops.broadcast_to, (2, *SHAPE)), X, 0),
    "concatenate": (lambda t: lambda x, y: ops.concatenate([x, y], -1), PAIR, 0),
    "stack": (lambda t: lambda x, y: ops.stack([x, y]), PAIR, 0),
    "split": (plain(ops.split, 2, 1), X, 0),
    "repeat": (plain(ops.repeat, 2, 1), X, 0),
    "tile": (plain(ops.tile, 2), X, 0),
    "flip": (plain(ops.flip, 1), X, 0),
    "pad": (plain(ops.pad, [(0, 0), (1, 1), (1, 1), (0, 0)]), X, 0),
    "getitem": (lambda t: lambda x: x[:, 1:], X, 0),
    "getitem, by a mask": (lambda t: lambda x: x[t.mask(8)], X, 0, 8),
    "take_along_axis": (lambda t: lambda x: ops.take_along_axis(x, t.places(*SHAPE[:3], 1), -1), X, 0, 8 * (24 + ROWS)),
    "gather": (lambda t: lambda x: ops.gather(x, t.places(5)), X, 0, 8 * 5),
    "scatter_add": (lambda t: lambda x: ops.scatter_add(x, t.places(8), 4), X, 0, 8 * 8),
    "dropout": (plain(ops.dropout, 0.5), X, 0),
    "max_pool": (plain(ops.max_pool, 2), X, 0, N // 4),  # a byte for each window
    "average_pool": (plain(ops.average_pool, 2), X, 0),
    "softmax": (plain(ops.softmax), X, N),
    "log_softmax": (plain(ops.log_softmax), X, N),
    "softmax_cross_entropy": (loss(ops.softmax_cross_entropy, ROWS), ROW, N, 8 * ROWS),  # the labels
    "softmax_cross_entropy, of weights": (loss(ops.softmax_cross_entropy, *ROW), ROW, 2 * N),
    "categorical_cross_entropy": (loss(ops.categorical_cross_entropy, ROWS), ROW, 0, 12 * ROWS, N),  # and sums of rows
    "categorical_cross_entropy, of weights": (loss(ops.categorical_cross_entropy, *ROW), ROW, N, 4 * ROWS, N),
    "sigmoid_cross_entropy": (loss(ops.sigmoid_cross_entropy, *ROW), ROW, 2 * N),
    "binary_cross_entropy": (loss(ops.binary_cross_entropy, *ROW), ROW, 2 * N),
    "batch_normalization": (norm(ops.batch_normalization), X, N, 4 * 2 * 4),  # mean and variance
    "layer_normalization": (norm(ops.layer_normalization), X, N, 4 * 2 * ROWS),
    "normalize": (
        lambda t: lambda x: ops.normalize(x, t.constant(4, dtype="f"), t.constant(4, dtype="f")),
        X,
        0,
        4 * 4,
    ),
    "matmul": (lambda t: lambda x: x @ t.weight(4, 4), X, N),
    "matmul, by a constant": (lambda t: lambda x: x @ t.constant(4, 4), X, 16),
    "dense": (lambda t: lambda x: ops.dense(x, t.weight(4, 4), t.weight(4)), X, N),
    "dense, and relu": (lambda t: lambda x: ops.dense(x, t.weight(4, 4), t.weight(4), "relu"), X, 2 * N),
    "dense, and gelu": (lambda t: lambda x: ops.dense(x, t.weight(4, 4), t.weight(4), "gelu"), X, 2 * N),
    "conv1d": (lambda t: lambda x: ops.conv1d(x, t.weight(3, 4, 4), t.weight(4), padding="same"), (64, 8, 4), N),
    "conv2d": (lambda t: lambda x: ops.conv2d(x, t.weight(3, 3, 4, 4), t.weight(4), padding="same"), X, N),
    "conv2d, and relu": (
        lambda t: lambda x: ops.conv2d(x, t.weight(3, 3, 4, 4), None, padding="same", activation="relu"),
        X,
        2 * N,
    ),
    "conv2d_transpose": (lambda t: lambda x: ops.conv2d_transpose(x, t.weight(1, 1, 4, 4)), X, N),
    "conv2d_transpose, and relu": (
        lambda t: lambda x: ops.conv2d_transpose(x, t.weight(1, 1, 4, 4), t.weight(4), activation="relu"),
        X,
        2 * N,
    ),
    "elu, of another slope": (lambda t: lambda x: activations.elu(x, 0.5), X, N, N),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_no_more_is_kept_than_the_gradients_need(name, dtype, column):
    made, inputs, numbers, *others = CASES[name]
    others, wide = (*others, 0, 0)[:2]
    given = Given(dtype)
    shapes = {"X": [SHAPE], "PAIR": [SHAPE] * 2, "BESIDE": [SHAPE]}.get(inputs, [inputs])
    tensors = [given.wanted(*shape) for shape in shapes] + [given.constant()] * (inputs == BESIDE)
    size_of_wide = dtype.itemsize if column == "cuda" else 4
    expected = numbers * dtype.itemsize + others + wide * size_of_wide
    assert given.kept(made(given), *tensors) == expected


def test_every_operation_has_its_claim():
    constants = set().union(*(table.CONSTANT for table in TABLES.values()))
    assert exported().keys() - constants - MACHINERY <= {name.partition(",")[0] for name in CASES}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("biased", [False, True])
def test_an_activation_keeps_its_output_or_its_input_and_not_both(name, biased, dtype, column):
    given = Given(dtype)

    def function(x):
        return activation(x, name, given.weight(4) if biased else None)

    assert given.kept(function, given.wanted()) == (0 if name == "linear" else N * dtype.itemsize)


def test_every_activation_that_keeps_its_output_has_a_derivative_of_it():
    assert SLOPES.keys() == set(NAMES) - set(FROM_INPUT) - {"linear"}


BATCH, TIME, FEATURES, UNITS = 4, 6, 27, 16  # full vectors, which the CPU column fills up to otherwise


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ["simple_rnn", "lstm", "gru"])
def test_a_recurrent_network_keeps_inputs_once_and_states_and_gates(name, masked, dtype, column):
    given, parts = Given(dtype), {"simple_rnn": 1, "lstm": 4, "gru": 3}[name]
    bias = (2, parts * UNITS) if name == "gru" else (parts * UNITS,)
    weights = [given.weight(rows, parts * UNITS) for rows in (FEATURES, UNITS)] + [given.weight(*bias)]
    mask = given.mask(BATCH, TIME) if masked else None
    steps, states = BATCH * TIME, BATCH * (TIME + 1) * UNITS
    # GRU: the gates and what the reset gate multiplies; LSTM: the gates and the cells
    numbers = steps * FEATURES + {"simple_rnn": 1, "lstm": 2, "gru": 1}[name] * states
    numbers += {"simple_rnn": 0, "lstm": 4, "gru": 4}[name] * steps * UNITS
    if column != "cuda":  # ones, for the bias
        numbers += steps
        numbers += steps * UNITS if name == "lstm" else 0  # tanh(c), which takes long
        numbers += (TIME + 1) * BATCH if name == "gru" and column == "reference" else 0
    found = given.kept(lambda x: getattr(recurrent, name)(x, *weights, mask=mask), given.wanted(BATCH, TIME, FEATURES))
    masks = steps * (1 if column == "cuda" or (name == "gru" and column == "reference") else 2) if masked else 0
    assert found == numbers * (dtype.itemsize if column == "cuda" else 4) + masks
