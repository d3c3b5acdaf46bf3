"""Products of matrices by NVIDIA's cuBLASLt, where nvmath-python is installed (DLGPU_CUBLASLT=0 leaves it out).

cuBLASLt, unlike cuBLAS through CuPy, can be captured; it adds a bias and applies some activations as it writes the
product, and sums up what a bias's gradient is as it reads. Its matrices lie by columns: an array (rows, columns) is the
matrix (columns, rows) with the same memory, so that out = a @ b is asked for as out' = b' a'. A bias then runs along
its rows, as cuBLASLt wants it. For each shape the plan is made and the algorithm chosen once.
"""

import functools
import math
import os
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from dlgpu.backend.cuda.geometry import contiguous, empty, lay_out
from dlgpu.backend.precision import tf32_allowed
from dlgpu.backend.reference.activation import FROM_INPUT

WORKSPACE = 32 << 20  # bytes: what NVIDIA advises for Hopper
TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}  # cudaDataType_t
# cuBLASLt's GELU is the one by tanh. It keeps its input for the backward in columns of a length that 8 divides.
FUSED = {"linear": "", "relu": "RELU", "gelu_tanh": "GELU_AUX"}
# Their gradients read that input, or for relu a bit for each value, which RELU_AUX writes: that of column c is bit
# c % 32 of word c // 32 of its row, and rows are multiples of 128 bits long.
GRADIENTS = {"relu": "DRELU", "gelu_tanh": "DGELU"}
MASK = np.dtype(np.uint32)


class Shape(NamedTuple):
    """What a plan is made for; see `product` in kernels/linear.cu."""

    dtype: str
    rows: int
    columns: int
    inner: int
    a_turned: bool
    b_turned: bool
    a_apart: int
    b_apart: int
    stack: int
    epilogue: str
    alignments: tuple[int, int, int, int]
    tf32: bool


@functools.cache
def bindings() -> tuple | None:
    """The modules cublasLt and cublas of nvmath.bindings, if they are here and can be loaded."""
    if os.environ.get("DLGPU_CUBLASLT") == "0" or find_spec("nvmath") is None:
        return None
    try:
        found = tuple(import_module(f"nvmath.bindings.{name}") for name in ("cublasLt", "cublas"))
        found[0].get_version()  # which loads the library
    except Exception:  # of many types, where it is not installed or does not suit the driver
        return None
    return found


def serves(x: Any) -> bool:
    """Whether products with this array can go through cuBLASLt."""
    return not isinstance(x, np.ndarray) and x.dtype.name in TYPES and bindings() is not None


def fuses(x: Any, columns: int, activation: str) -> bool:
    """Whether a product's activation can be applied as it is written."""
    if activation not in FUSED or (activation == "gelu_tanh" and columns % 8):
        return False
    return activation == "linear" or _keeps_nan(x.device.id, x.dtype.name, activation)


@functools.cache
def _keeps_nan(index: int, dtype: str, activation: str) -> bool:
    """Whether a fused activation hands on NaN, which is not documented. Waits for the device, once."""
    cupy = import_module("cupy")
    x = cupy.full((8, 8), np.nan, np.dtype(dtype))
    found = product(x, x, None, activation)
    return found is not None and bool(cupy.isnan(found[0].astype(np.float32)).all())


def mask_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in words of a mask with a bit for each of so many values."""
    return *shape[:-1], -(-shape[-1] // 128) * 4


def product(
    a: Any,
    b: Any,
    bias: Any = None,
    activation: str = "linear",
    sums: bool = False,
    masked: bool = False,
    through: tuple[Any, str] | None = None,
) -> tuple | None:
    """activation(a @ b + bias) over the last two axes; None where cuBLASLt does not do it.

    Args:
        a, b: on one GPU, of one dtype among TYPES.
        bias: (columns,) or None.
        activation: one of FUSED.
        sums: also the sums of b's rows, in the same pass; without bias and activation only.
        masked: what relu's backward needs is to be a mask.
        through: multiply by an activation's derivative: what its backward needs, and one of GRADIENTS; a @ b only.
    Returns:
        the product, and what the activation's backward needs, or the sums.
    """
    if not serves(a):
        return None
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    shape = (*lead, a.shape[-2], b.shape[-1])
    if 0 in (*shape, a.shape[-1]) or (through is not None and not _reads(*through, shape, a.shape[-1])):
        return None
    if b.ndim == 2:  # one product instead of a stack
        a = a.reshape(-1, a.shape[-1])
    stack = 1 if b.ndim == 2 else math.prod(lead)
    (a, a_apart, a_turned), (b, b_apart, b_turned) = (lay_out(x, lead if stack > 1 else ()) for x in (a, b))
    rows, inner = a.shape[-2:][:: -1 if a_turned else 1]
    columns = shape[-1]
    out = empty(a, shape)
    if through is not None:
        aux = contiguous(through[0])
    elif masked:
        aux = empty(a, mask_shape(shape), MASK)
    elif sums:
        aux = empty(a, (columns,))
    else:
        aux = empty(a, shape) if activation in FROM_INPUT else None
    bias = contiguous(bias)
    parts = [FUSED[activation], "AUX" if masked else "", "BIAS" if bias is not None else "", "BGRADA" if sums else ""]
    epilogue = "_".join(filter(None, parts)) or ("DEFAULT" if through is None else GRADIENTS[through[1]])
    alignments = alignment(b), alignment(a), alignment(out), 0 if aux is None or sums else alignment(aux)
    rounded = a.dtype == np.float32 and tf32_allowed()
    places = a_turned, b_turned, a_apart, b_apart, stack
    found = plan(out.device.id, Shape(a.dtype.name, rows, columns, inner, *places, epilogue, alignments, rounded))
    if found is None:
        return None
    found.run(a, b, out, bias, aux, import_module("cupy").cuda.get_current_stream().ptr)
    return out, out if aux is None else aux


def _reads(saved: Any, activation: str, shape: tuple[int, ...], inner: int) -> bool:
    """Whether cuBLASLt may multiply by the derivative of this activation; single terms it does not."""
    if activation not in GRADIENTS or inner == 1:
        return False
    return saved.dtype == MASK if activation == "relu" else shape[-1] % 8 == 0


def alignment(x: Any) -> int:
    """The largest power of 2 up to 256 that divides an array's address, on which the choice of an algorithm depends."""
    return min(256, x.data.ptr & -x.data.ptr)


@functools.cache
def plan(index: int, shape: Shape) -> "Plan | None":
    """The plan for a shape on a GPU; None if cuBLASLt has no algorithm for it."""
    with import_module("cupy").cuda.Device(index):
        made = Plan(index, shape)
    return made if made.found else None


@functools.cache
def _of_device(index: int) -> tuple:
    """The handle of a GPU, and the memory that all its products share: they follow each other on one stream."""
    cupy, modules = import_module("cupy"), bindings()
    assert modules is not None
    pool = cupy.cuda.MemoryPool()  # of its own: it must not lie in a graph's
    with cupy.cuda.using_allocator(pool.malloc):
        return modules[0].create(), cupy.empty(WORKSPACE, np.uint8), pool


class Plan:
    """The descriptions of a product and its algorithm, as long as the process lives.

    Attributes:
        found: whether there is an algorithm.
    """

    def __init__(self, index: int, shape: Shape):
        modules = bindings()
        assert modules is not None
        self.lt, cublas = modules
        self.handle, self.workspace, _ = _of_device(index)
        kind, double = TYPES[shape.dtype], shape.dtype == "float64"
        compute = "COMPUTE_64F" if double else "COMPUTE_32F_FAST_TF32" if shape.tf32 else "COMPUTE_32F"
        self.desc = self.lt.matmul_desc_create(cublas.ComputeType[compute], TYPES["float64" if double else "float32"])
        self.one, self.zero = (np.full(1, value, np.float64 if double else np.float32) for value in (1, 0))
        attribute, operation = self.lt.MatmulDescAttribute, cublas.Operation
        self._describe(attribute.TRANSA, operation.T if shape.b_turned else operation.N)
        self._describe(attribute.TRANSB, operation.T if shape.a_turned else operation.N)
        self._describe(attribute.EPILOGUE, self.lt.Epilogue[shape.epilogue])
        self.epilogue = shape.epilogue
        if "AUX" in shape.epilogue or shape.epilogue in GRADIENTS.values():
            bits = 32 * mask_shape((shape.columns,))[0]
            length = bits if "RELU" in shape.epilogue else shape.columns
            self._describe(attribute.EPILOGUE_AUX_LD, length)
            self._describe(attribute.EPILOGUE_AUX_BATCH_STRIDE, shape.rows * length)
            # any address so aligned: the choice goes by that alone, and there must be one
            self._describe(attribute.EPILOGUE_AUX_POINTER, shape.alignments[3])
        sizes = shape.rows, shape.columns, shape.inner
        self.a = self._layout(kind, sizes[2], sizes[0], shape.a_turned, shape.a_apart, shape.stack)
        self.b = self._layout(kind, sizes[1], sizes[2], shape.b_turned, shape.b_apart, shape.stack)
        self.out = self._layout(kind, sizes[1], sizes[0], False, sizes[0] * sizes[1], shape.stack)
        self.algorithms = np.zeros(1, self.lt.matmul_heuristic_result_dtype)
        self.found = self._choose(shape.alignments)

    def _describe(self, attribute: Any, value: int) -> None:
        self._set("matmul_desc", self.desc, attribute, value)

    def _set(self, kind: str, handle: int, attribute: Any, value: int) -> None:
        """Set an attribute of one of cuBLASLt's descriptions."""
        number = np.array([value], getattr(self.lt, f"get_{kind}_attribute_dtype")(attribute))
        getattr(self.lt, f"{kind}_set_attribute")(handle, attribute, number.ctypes.data, number.nbytes)

    def _layout(self, kind: int, rows: int, columns: int, turned: bool, apart: int, stack: int) -> int:
        """Of a matrix by columns, of which there is a stack."""
        rows, columns = (columns, rows) if turned else (rows, columns)
        layout = self.lt.matrix_layout_create(kind, rows, columns, rows)
        attribute = self.lt.MatrixLayoutAttribute
        self._set("matrix_layout", layout, attribute.BATCH_COUNT, stack)
        self._set("matrix_layout", layout, attribute.STRIDED_BATCH_OFFSET, apart)
        return layout

    def _choose(self, alignments: tuple[int, int, int, int]) -> bool:
        attribute, preference = self.lt.MatmulPreferenceAttribute, self.lt.matmul_preference_create()
        self._set("matmul_preference", preference, attribute.MAX_WORKSPACE_BYTES, WORKSPACE)
        for name, size in zip(("A", "B", "C", "D"), (*alignments[:3], alignments[2])):
            self._set("matmul_preference", preference, attribute[f"MIN_ALIGNMENT_{name}_BYTES"], size)
        count = np.zeros(1, np.int32)
        layouts = self.b, self.a, self.out, self.out
        results = self.algorithms.ctypes.data, count.ctypes.data
        try:
            self.lt.matmul_algo_get_heuristic(self.handle, self.desc, *layouts, preference, 1, *results)
        except self.lt.cuBLASLtError:  # it does not support this
            return False
        finally:
            self.lt.matmul_preference_destroy(preference)
        return bool(count[0])

    def run(self, a: Any, b: Any, out: Any, bias: Any, aux: Any, stream: int) -> None:
        """The product, on a stream."""
        attribute = self.lt.MatmulDescAttribute
        if self.epilogue == "BGRADA":
            self._describe(attribute.BIAS_POINTER, aux.data.ptr)  # to which the sums are written
        elif aux is not None:
            self._describe(attribute.EPILOGUE_AUX_POINTER, aux.data.ptr)
        if bias is not None:
            self._describe(attribute.BIAS_POINTER, bias.data.ptr)
        one, zero = self.one.ctypes.data, self.zero.ctypes.data
        first, second, result = (b.data.ptr, self.b), (a.data.ptr, self.a), (out.data.ptr, self.out)
        algorithm, workspace = self.algorithms.ctypes.data, (self.workspace.data.ptr, WORKSPACE)  # which it begins with
        self.lt.matmul(
            self.handle, self.desc, one, *first, *second, zero, *result, *result, algorithm, *workspace, stream
        )
