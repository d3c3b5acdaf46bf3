"""Convolution by NVIDIA's cuDNN where it is the faster, with nvidia-cudnn-frontend (DLGPU_CUDNN=0 leaves it out).

It takes part where tensor cores may multiply: for 16-bit numbers, and for float32 where TF32 is allowed; other float32
stays with dlgpu's kernels. cuDNN sums in orders of its own, so a choice shows in the bits. It is measured once, outside
of captures, and kept on disk with the tuner's others: the same cache folder gives the same bits. With DLGPU_TUNING=0,
and while a captured step is the first to meet a shape, dlgpu's own kernels serve.

cuDNN wants the values of a channel's neighbours together, as dlgpu has them in images, but kernels as (filters, height,
width, channels): those are copied, which the measured time includes.
"""

import functools
import os
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from dlgpu.backend.cuda.geometry import contiguous, empty
from dlgpu.backend.cuda.tensor_cores import FILE, suits
from dlgpu.backend.cuda.tuning import SWITCH, Unfit, fastest
from dlgpu.backend.devices import device_of
from dlgpu.backend.reference.activation import bias_activation

WORKSPACE = 64 << 20  # bytes; plans that need more are left out
MOST = 4  # plans that are measured, of those that cuDNN thinks the fastest
ALIGNED = 16  # bytes: what cuDNN takes for granted of addresses
TYPES = {"float32": "FLOAT", "float16": "HALF", "bfloat16": "BFLOAT16"}
# What a plan must not be: sums that differ from run to run, fewer bits than TF32's or in sums, and transforms that lose
# bits and spread NaN.
BARRED: tuple[str, ...] = ("NONDETERMINISTIC", "DOWN_CONVERT_INPUTS", "REDUCED_PRECISION_REDUCTION", "FFT", "WINOGRAD")
BARRED += tuple(f"WINOGRAD_TILE_{size}" for size in ("4x4", "6x6", "13x13"))
LEFT, RIGHT, RESULT, BIAS = 1, 2, 3, 4  # by which a graph knows its arrays
OWN = "own"  # dlgpu's kernels

_settled: dict[tuple, Any] = {}  # the way by GPU and what it is for, as soon as it can run
_plans: dict["Engine", Any] = {}  # the graphs of those ways, and of what is being measured


class Shape(NamedTuple):
    """What a plan is made for.

    Attributes:
        kind: "forward" (image, kernel, result), "data" (result, kernel, image) or "weights" (image, result, kernel).
        image: (batch, height, width, channels).
        kernel: (height, width, channels of a group, filters).
        result: (batch, height, width, filters).
        padding: before and after, by height and width.
        bias, relu: whether the forward adds a bias, and applies relu, as it writes.
    """

    kind: str
    dtype: str
    image: tuple
    kernel: tuple
    result: tuple
    strides: tuple
    padding: tuple
    dilation: tuple
    bias: bool = False
    relu: bool = False


class Engine(NamedTuple):
    """One of cuDNN's plans for a shape: where it is among them, and its name, by which it is known on disk."""

    gpu: int
    shape: Shape
    place: int
    name: str

    def __str__(self) -> str:
        return f"cuDNN {self.name}" + " with relu" * self.shape.relu


@functools.cache
def bindings() -> Any:
    """The module cudnn, if it is here and its library can be loaded."""
    if os.environ.get("DLGPU_CUDNN") == "0" or find_spec("cudnn") is None:
        return None
    try:
        found = import_module("cudnn")
        found.backend_version()
    except Exception:  # of many types, where the library is not installed or does not suit the driver
        return None
    return found


def forward(
    own: Callable, x: Any, kernel: Any, bias: Any, name: str, size: tuple, *geometry: Any, then: Callable | None = None
) -> tuple:
    """What `own()` returns, `convolution`'s result, or the same by cuDNN.

    Args:
        own: dlgpu's own way.
        size: height and width of the output.
        geometry: strides, padding and dilation.
        then: what `own` does with that result, of which its parts are the arguments; cuDNN cannot do it as it
            writes, and is taken where it is the faster all the same.
    """
    shape = _shape("forward", x, x.shape, kernel.shape, (len(x), *size, kernel.shape[3]), geometry)
    shape = shape._replace(bias=bias is not None, relu=name == "relu")

    def run(engine: Engine) -> tuple:
        output = empty(x, shape.result)
        _execute(plan(engine), engine.gpu, x, _turned(kernel), output, bias)
        if name == "linear" or engine.shape.relu:
            found = output, output
        else:
            found = bias_activation(output, None, name, overwrite=True)
        return found if then is None else then(*found)

    ways = (shape, shape._replace(relu=False)) if shape.relu else (shape,)
    return _faster(own, run, ways, name if then is None else f"{name}, then {then.__name__}", x)


def data_gradient(own: Callable, grad: Any, kernel: Any, image: tuple, *geometry: Any) -> Any:
    """What `own()` returns, the gradient by the image, or the same by cuDNN."""
    shape = _shape("data", grad, image, kernel.shape, grad.shape, geometry)

    def run(engine: Engine) -> Any:
        grad_x = empty(grad, image)
        _execute(plan(engine), engine.gpu, grad, _turned(kernel), grad_x, None)
        return grad_x

    return _faster(own, run, (shape,), "", grad)


def weight_gradients(
    own: Callable, of_bias: Callable | None, x: Any, grad: Any, kernel: tuple, *geometry: Any
) -> tuple:
    """What `own()` returns, the gradients of kernel and bias, or the first by cuDNN and the second by `of_bias()`."""
    shape = _shape("weights", x, x.shape, kernel, grad.shape, geometry)

    def run(engine: Engine) -> tuple:
        by_filter = empty(x, (kernel[3], *kernel[:3]))
        _execute(plan(engine), engine.gpu, x, grad, by_filter, None)
        return contiguous(by_filter.transpose(1, 2, 3, 0)), None if of_bias is None else of_bias()[1]

    return _faster(own, run, (shape,), "with bias" if of_bias else "", x)


@functools.cache
def engines(index: int, shape: Shape) -> tuple[Engine, ...]:
    """The first of cuDNN's plans for a shape, of which some may turn out to be Unfit."""
    try:
        graph = _graph(index, shape)
        count = min(MOST, graph.get_execution_plan_count())
        return tuple(Engine(index, shape, i, graph.get_plan_name_at_index(i)) for i in range(count))
    except _refusals():
        return ()


def plan(engine: Engine) -> Any:
    """The graph with an engine's plan, built and tried once, which waits for the device; Unfit where that fails."""
    if engine not in _plans:
        _plans[engine] = _built(engine)
    return _plans[engine]


def _built(engine: Engine) -> Any:
    try:
        graph = _graph(engine.gpu, engine.shape)
        if graph.get_plan_name_at_index(engine.place) != engine.name:
            raise Unfit(f"{engine} is in another place")
        graph.build_plan_at_index(engine.place)
        if graph.get_workspace_size() > WORKSPACE or not _keeps_nan(graph, engine):
            raise Unfit(f"{engine} wants too large a workspace, or hides NaN")
    except _refusals() as error:
        raise Unfit(f"{engine}: {error}") from error
    return graph


def _faster(own: Callable, by: Callable[[Engine], Any], shapes: tuple[Shape, ...], name: str, x: Any) -> Any:
    """What `own()` returns, or `by` one of the engines for `shapes`."""
    if not serves(x) or 0 in (*shapes[0].image, *shapes[0].kernel, *shapes[0].result):
        return own()
    index, cuda = x.device.id, import_module("cupy").cuda
    key = "cuDNN", bindings().backend_version(), *shapes[0], name

    def run(way: Any) -> Any:
        return own() if way is OWN else by(way)

    if (index, key) not in _settled:
        if cuda.get_current_stream().is_capturing():
            return own()
        with cuda.Device(index):
            ways: list[Any] = [OWN, *(engine for shape in shapes for engine in engines(index, shape))]
            way = fastest(key, ways, run, device_of(x), FILE)
            try:
                result = run(way)
            except Unfit:  # though it was the fastest once
                way, result = OWN, own()
        for other in {*ways} - {way}:
            _plans.pop(other, None)
        _settled[index, key] = way
        return result
    return run(_settled[index, key])


def serves(x: Any) -> bool:
    """Whether convolutions of this array may go through cuDNN."""
    if isinstance(x, np.ndarray) or x.dtype.name not in TYPES or not suits(x):
        return False
    return os.environ.get(SWITCH) != "0" and bindings() is not None


def _shape(kind: str, x: Any, image: tuple, kernel: tuple, result: tuple, geometry: tuple) -> Shape:
    strides, padding, dilation = geometry
    places = tuple(strides), tuple(tuple(p) for p in padding), tuple(dilation)
    return Shape(kind, x.dtype.name, tuple(image), tuple(kernel), tuple(result), *places)


def _arrays(shape: Shape) -> tuple[tuple, tuple, tuple]:
    """Shapes of the two factors and of their product, with a kernel's filters first."""
    kernel = (shape.kernel[3], *shape.kernel[:3])
    if shape.kind == "forward":
        return shape.image, kernel, shape.result
    return (shape.result, kernel, shape.image) if shape.kind == "data" else (shape.image, shape.result, kernel)


def _turned(kernel: Any) -> Any:
    return contiguous(kernel.transpose(3, 0, 1, 2))


def _aligned(x: Any) -> Any:
    x = contiguous(x)
    return x.copy() if x.data.ptr % ALIGNED else x


def _planes(sizes: tuple) -> dict[str, list[int]]:
    """cuDNN's sizes and strides of an array with the channels last, which it has second."""
    first, height, width, channels = sizes
    dim = [first, channels, height, width]
    return {"dim": dim, "stride": [height * width * channels, 1, width * channels, channels]}


def _graph(index: int, shape: Shape) -> Any:
    """The graph of a convolution, and what cuDNN proposes for it."""
    module, (handle, _, _) = bindings(), _of_device(index)
    kind, wide = getattr(module.data_type, TYPES[shape.dtype]), module.data_type.FLOAT
    graph = module.pygraph(io_data_type=kind, intermediate_data_type=wide, compute_data_type=wide, handle=handle)
    *factors, product = _arrays(shape)
    left, right = (graph.tensor(**_planes(s), data_type=kind, uid=u) for s, u in zip(factors, (LEFT, RIGHT)))
    before, after = ([pad[i] for pad in shape.padding] for i in (0, 1))
    places: dict[str, list[int]] = {"pre_padding": before, "post_padding": after}
    places |= {"stride": list(shape.strides), "dilation": list(shape.dilation)}
    if shape.kind == "forward":
        result = graph.conv_fprop(image=left, weight=right, **places)
    elif shape.kind == "data":
        result = graph.conv_dgrad(loss=left, filter=right, **places)
    else:
        result = graph.conv_wgrad(image=left, loss=right, **places)
    if shape.bias:
        bias = graph.tensor(**_planes((1, 1, 1, product[3])), data_type=kind, uid=BIAS)
        result = graph.bias(input=result, bias=bias)
    if shape.relu:
        result = graph.relu(input=result)
    there = _planes(product)
    result.set_output(True).set_data_type(kind).set_dim(there["dim"]).set_stride(there["stride"]).set_uid(RESULT)
    graph.validate()
    graph.build_operation_graph()
    graph.create_execution_plans([module.heur_mode.A])
    graph.deselect_numeric_notes([getattr(module.numerical_note, note) for note in BARRED])
    graph.deselect_workspace_greater_than(WORKSPACE)
    return graph


def _keeps_nan(graph: Any, engine: Engine) -> bool:
    """Try a plan on NaN: what a fused relu makes of it is not documented. The gradients have none, and just run."""
    cupy, shape = import_module("cupy"), engine.shape
    dtype = np.dtype(shape.dtype)
    left, right, result = (cupy.full(sizes, np.nan, dtype) for sizes in _arrays(shape))
    bias = cupy.full(result.shape[-1], np.nan, dtype) if shape.bias else None
    _execute(graph, engine.gpu, left, right, result, bias)
    return shape.kind != "forward" or bool(cupy.isnan(result.astype(np.float32)).all())


def _execute(graph: Any, index: int, left: Any, right: Any, result: Any, bias: Any) -> None:
    module, (handle, workspace, _) = bindings(), _of_device(index)
    arrays = {LEFT: _aligned(left), RIGHT: _aligned(right), RESULT: result}
    if bias is not None:
        arrays[BIAS] = _aligned(bias)
    module.set_stream(handle, import_module("cupy").cuda.get_current_stream().ptr)
    graph.execute({uid: array.data.ptr for uid, array in arrays.items()}, workspace.data.ptr, handle=handle)


def _refusals() -> tuple[type[Exception], ...]:
    """How cuDNN says that it does not do something, and what a trial lacks."""
    return bindings().cudnnGraphNotSupportedError, RuntimeError, ValueError, MemoryError


@functools.cache
def _of_device(index: int) -> tuple:
    """The handle of a GPU, and the memory that all its plans share: they follow each other on one stream."""
    cupy = import_module("cupy")
    pool = cupy.cuda.MemoryPool()  # of its own: it must not lie in a graph's
    with cupy.cuda.using_allocator(pool.malloc):
        return bindings().create_handle(), cupy.empty(WORKSPACE, np.uint8), pool
