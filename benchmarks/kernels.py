"""Every kernel of the CUDA column, called as the operations, generators and optimizers call it.

    python -m benchmarks.kernels --device cuda                milliseconds and GB/s of each kernel
    python -m benchmarks.kernels --device cuda --once         each is called once on small arrays, for compute-sanitizer

Times are medians, by CUDA's events on a GPU; GB/s count each array among the arguments and results once.
"""

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

import dlgpu
from dlgpu import ops
from dlgpu.backend.dispatch import Kernel, registry
from dlgpu.backend.reference.counting import add_binary_matches, add_scaled, count_each
from dlgpu.ops.activation import activation, dense
from dlgpu.ops.convolution import conv2d_max_pool
from dlgpu.ops.random import Generator
from dlgpu.ops.recurrent import gru, lstm, simple_rnn
from dlgpu.parameters import Parameter


class Sizes(NamedTuple):
    """Lengths of the arrays."""

    rows: int
    features: int
    image: tuple[int, int, int, int]  # batch, height, width, channels
    filters: int
    series: tuple[int, int, int]  # batch, time, features
    units: int
    values: int  # parameters, and random numbers


SMALL = Sizes(5, 33, (2, 7, 6, 3), 5, (2, 4, 3), 33, 1025)
LARGE = Sizes(4096, 1024, (64, 64, 64, 32), 64, (64, 100, 8), 128, 1 << 24)


def differentiated(function: Callable, *inputs: np.ndarray, twice: bool = False) -> None:
    """Call a function of Tensors, its gradient and, if wanted, the gradient of its gradient."""
    positions = list(range(len(inputs)))

    def energy(*args: Any) -> Any:
        outputs = function(*args)
        return sum((o * o).sum() for o in (outputs if isinstance(outputs, tuple) else (outputs,)))

    def slope(*args: Any) -> Any:
        return sum((g * g).sum() for g in ops.grad(energy, positions, create_graph=True)(*args))

    arrays = [dlgpu.current_device().asarray(x) for x in inputs]
    ops.grad(slope if twice else energy, positions)(*arrays)


def everything(s: Sizes) -> None:
    """Operations, generators and optimizers that use every kernel between them."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape, dtype=np.float32)

    x, row = normal(s.rows, s.features), normal(s.features)
    shares = random.dirichlet(np.ones(s.features), s.rows).astype(np.float32)
    labels = dlgpu.current_device().asarray(random.integers(0, s.features, s.rows))
    targets = dlgpu.current_device().asarray((x > 0).astype(np.float32))
    differentiated(lambda x, b: activation(x, "gelu", b), x, row)
    differentiated(lambda x, k, b: dense(x, k, b, "relu"), x, normal(s.features, s.features), row)
    square = normal(s.features, s.features)
    differentiated(lambda x, k, b: dense(dense(x, k, b, "relu"), k), x, square, row)
    differentiated(ops.matmul, x, square)
    differentiated(ops.mean, x)
    total, count = (dlgpu.current_device().asarray(np.zeros(())) for _ in range(2))
    add_scaled(total, targets[:1, 0], s.rows)
    add_binary_matches(total, count, targets[:, :1], targets[:, 1:2], 0.5)
    count_each(labels, s.features)
    differentiated(lambda x: ops.dropout(x, 0.5), x)
    differentiated(ops.softmax, x)
    differentiated(ops.log_softmax, x)
    differentiated(lambda x: ops.softmax_cross_entropy(x, labels), x)
    differentiated(lambda p: ops.categorical_cross_entropy(p, labels), shares)
    differentiated(lambda x: ops.sigmoid_cross_entropy(x, targets), x)
    differentiated(lambda p: ops.binary_cross_entropy(p, targets), shares)
    differentiated(lambda x, a, b: ops.batch_normalization(x, a, b)[0], x, row, row)
    differentiated(ops.layer_normalization, x, row, row)
    ops.normalize(*(dlgpu.Tensor(dlgpu.current_device().asarray(a)) for a in (x, row, row**2, row, row)))
    differentiated(lambda table: ops.gather(table, labels), normal(s.features, s.features))
    images, kernel = normal(*s.image), normal(3, 3, s.image[3], s.filters) / 10
    differentiated(lambda x, k, b: ops.conv2d(x, k, b, 2, "same", activation="relu"), images, kernel, normal(s.filters))
    differentiated(lambda x, k, b: conv2d_max_pool(x, k, b, activation="relu"), images, kernel, normal(s.filters))
    differentiated(lambda x, k: ops.conv2d(x, k, None, 1, "same"), images, kernel, twice=True)
    differentiated(lambda x: ops.max_pool(x, (3, 3), (2, 2)), images, twice=True)
    differentiated(lambda x: ops.average_pool(x, (3, 3), (2, 2)), images)
    series, state = normal(*s.series), np.zeros((s.series[0], s.units), np.float32)
    for cell, parts, states in ((simple_rnn, 1, 1), (lstm, 4, 2), (gru, 3, 1)):
        bias = normal(*(2,) * (cell is gru), parts * s.units)
        weights = normal(s.series[2], parts * s.units) / 10, normal(s.units, parts * s.units) / 10, bias
        differentiated(cell, series, *weights, *[state] * states)
    draw = Generator(0)
    draw.uniform(s.values), draw.normal(s.values), draw.bernoulli(s.values), draw.integers(0, 9, s.values)
    draw.permutation(s.values // 16, device=dlgpu.current_device())
    registry["random_bits"](dlgpu.current_device().empty(s.values, np.uint32), 0, 0)
    optimizers = dlgpu.optimizers
    sparing = optimizers.SGD(weight_decay=0.01)
    sparing.exclude_from_weight_decay(var_names=["bias"])  # a launch of its own, for each that is not spared
    for optimizer in (
        sparing,
        optimizers.SGD(0.1, momentum=0.9, clipnorm=1.0),
        optimizers.RMSprop(),
        optimizers.Adagrad(),
        optimizers.AdamW(clipvalue=0.5),
        optimizers.Nadam(global_clipnorm=1.0),
        optimizers.LossScaleOptimizer("adam"),
    ):
        values, gradients = normal(s.values), dlgpu.Tensor(dlgpu.current_device().asarray(normal(s.values)))
        optimizer.apply_gradients([(gradients, Parameter(dlgpu.current_device().asarray(values), "weights"))])


@contextmanager
def recorded() -> Iterator[dict[str, tuple]]:
    """The first call of each kernel that has a CUDA implementation: its arguments, by name."""
    calls: dict[str, tuple] = {}
    call = Kernel.__call__

    def listening(self: Kernel, *args: Any, **options: Any) -> Any:
        if "cuda" in self.columns:
            calls.setdefault(self.__name__, (args, options))
        return call(self, *args, **options)

    Kernel.__call__ = listening  # type: ignore[method-assign]
    try:
        yield calls
    finally:
        Kernel.__call__ = call  # type: ignore[method-assign]


def unused(calls: dict[str, tuple]) -> set[str]:
    """The kernels with a CUDA implementation that nothing called."""
    return {name for name, kernel in registry.items() if "cuda" in kernel.columns} - calls.keys()


def arrays_in(value: Any) -> Iterator[Any]:
    """All arrays in a nest of tuples."""
    if isinstance(value, (tuple, list)):
        for v in value:
            yield from arrays_in(v)
    elif hasattr(value, "nbytes"):
        yield value


def timed(call: Callable, on_host: bool, repeats: int) -> float:
    """The median time of a call, in milliseconds, after one that is not counted."""
    call()
    times = []
    for _ in range(repeats):
        if on_host:
            start = time.perf_counter()
            call()
            times.append((time.perf_counter() - start) * 1e3)
        else:
            import cupy

            begin, end = cupy.cuda.Event(), cupy.cuda.Event()
            begin.record()
            call()
            end.record()
            end.synchronize()
            times.append(cupy.cuda.get_elapsed_time(begin, end))
    return float(np.median(times))


def measure(sizes: Sizes, repeats: int) -> dict[str, dict]:
    """Milliseconds and GB/s of each kernel on the current device."""
    device = dlgpu.current_device()
    with recorded() as calls:
        everything(sizes)
    results = {}
    for name, (args, options) in calls.items():
        moved = sum(a.nbytes for a in arrays_in((args, registry[name](*args, **options))))
        milliseconds = timed(functools.partial(registry[name], *args, **options), device.on_host, repeats)
        results[name] = {"ms": milliseconds, "GB/s": moved / milliseconds / 1e6}
    return results


def main() -> None:
    """Parse the command line; call or measure; print the table, and with --json a line for programs."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kernels", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--small", action="store_true", help="time the small arrays")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    dlgpu.set_device(options.device)
    if options.once:
        if not dlgpu.current_device().on_host:
            import cupy

            cupy.cuda.set_allocator(None)  # each array by itself: in a pool, what lies beyond one is another
        with recorded() as calls:
            everything(SMALL)
        sys.exit(f"never called: {sorted(unused(calls))}" if unused(calls) else 0)
    results = measure(SMALL if options.small else LARGE, options.repeats)
    for name, found in sorted(results.items(), key=lambda item: -item[1]["ms"]):
        print(f"{name:40}{found['ms']:10.3f} ms{found['GB/s']:10.1f} GB/s")
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
