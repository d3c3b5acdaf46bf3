"""Stand-in for `nvmath.bindings.cublasLt` beside that for CuPy: the same functions of the same arguments, by NumPy.

It is as strict as the library: attributes are set by their own number of bytes, matrices lie by columns with a leading
dimension, operands fit each other and are aligned as the algorithm was promised. Nothing is done while it is captured.
"""

import ctypes
import enum
import itertools

import ml_dtypes
import numpy as np
from cupy import _graph
from cupy.cuda import get_current_stream

from nvmath.bindings.cublas import ComputeType, Operation

TYPES = {0: np.dtype(np.float32), 1: np.dtype(np.float64), 2: np.dtype(np.float16), 14: np.dtype(ml_dtypes.bfloat16)}
matmul_algo_dtype = np.dtype([("data_", np.uint64, (8,))])
matmul_heuristic_result_dtype = np.dtype(
    [
        ("algo", matmul_algo_dtype),
        ("workspace_size", np.uint64),
        ("state", np.int32),
        ("waves_count", np.float32),
        ("reserved", np.int32, (4,)),
    ]
)
MAGIC = 0xA190  # what an algorithm begins with
matmuls = []  # the epilogues of all that were asked for


class cuBLASLtError(Exception):
    def __init__(self, status):
        self.status = status
        super().__init__(status)


class Epilogue(enum.IntEnum):
    DEFAULT, RELU, BIAS, RELU_BIAS, GELU, GELU_BIAS = 1, 2, 4, 6, 32, 36
    RELU_AUX, RELU_AUX_BIAS, DRELU, DRELU_BGRAD = 130, 134, 136, 152
    GELU_AUX, GELU_AUX_BIAS, DGELU, DGELU_BGRAD, BGRADA, BGRADB = 160, 164, 192, 208, 256, 512


class MatmulDescAttribute(enum.IntEnum):
    COMPUTE_TYPE, SCALE_TYPE, POINTER_MODE, TRANSA, TRANSB, TRANSC, FILL_MODE, EPILOGUE, BIAS_POINTER = range(9)
    BIAS_BATCH_STRIDE, EPILOGUE_AUX_POINTER, EPILOGUE_AUX_LD, EPILOGUE_AUX_BATCH_STRIDE = range(10, 14)


class MatrixLayoutAttribute(enum.IntEnum):
    TYPE, ORDER, ROWS, COLS, LD, BATCH_COUNT, STRIDED_BATCH_OFFSET = range(7)


class MatmulPreferenceAttribute(enum.IntEnum):
    SEARCH_MODE, MAX_WORKSPACE_BYTES, REDUCTION_SCHEME_MASK = 0, 1, 3
    MIN_ALIGNMENT_A_BYTES, MIN_ALIGNMENT_B_BYTES, MIN_ALIGNMENT_C_BYTES, MIN_ALIGNMENT_D_BYTES = range(5, 9)


_D, _L, _P = MatmulDescAttribute, MatrixLayoutAttribute, MatmulPreferenceAttribute
_WIDE = {_D.BIAS_POINTER, _D.BIAS_BATCH_STRIDE, _D.EPILOGUE_AUX_POINTER, _D.EPILOGUE_AUX_LD}
_WIDE |= {_D.EPILOGUE_AUX_BATCH_STRIDE}


def get_matmul_desc_attribute_dtype(attr):
    return np.uint32 if attr == _D.EPILOGUE else np.int64 if attr in _WIDE else np.int32


def get_matrix_layout_attribute_dtype(attr):
    return {_L.TYPE: np.uint32, _L.ROWS: np.uint64, _L.COLS: np.uint64, _L.LD: np.int64}.get(
        attr, np.int64 if attr == _L.STRIDED_BATCH_OFFSET else np.int32
    )


def get_matmul_preference_attribute_dtype(attr):
    return np.uint64 if attr == _P.MAX_WORKSPACE_BYTES else np.uint32


_numbers = itertools.count(1 << 20, 64)
_things = {}


def _made(**attributes):
    _things[handle := next(_numbers)] = attributes
    return handle


def _thing(handle, kind):
    found = _things.get(handle)
    if found is None or found["kind"] is not kind:
        raise cuBLASLtError(7)  # CUBLAS_STATUS_INVALID_VALUE
    return found


def _setter(enumeration, dtype_of):
    def set_attribute(handle, attr, buf, size_in_bytes):
        if type(attr) is not enumeration:
            raise TypeError(f"expected a {enumeration.__name__}, got {attr!r}")
        dtype = np.dtype(dtype_of(attr))
        if size_in_bytes != dtype.itemsize:
            raise cuBLASLtError(7)
        _thing(handle, enumeration)[attr.name] = int(_array(buf, (1,), dtype)[0])

    return set_attribute


matmul_desc_set_attribute = _setter(_D, get_matmul_desc_attribute_dtype)
matrix_layout_set_attribute = _setter(_L, get_matrix_layout_attribute_dtype)
matmul_preference_set_attribute = _setter(_P, get_matmul_preference_attribute_dtype)


def get_version():
    return 130100


def create():
    return _made(kind="handle")


def matmul_desc_create(compute_type, scale_type):
    expected = 1 if ComputeType(compute_type) == ComputeType.COMPUTE_64F else 0
    if scale_type != expected:
        raise cuBLASLtError(15)  # CUBLAS_STATUS_NOT_SUPPORTED
    rounded = ComputeType(compute_type) == ComputeType.COMPUTE_32F_FAST_TF32
    return _made(kind=_D, rounded=rounded, scale=TYPES[scale_type], TRANSA=0, TRANSB=0, EPILOGUE=1)


def matrix_layout_create(type, rows, cols, ld):
    if ld < rows:
        raise cuBLASLtError(7)
    return _made(kind=_L, dtype=TYPES[type], rows=rows, cols=cols, ld=ld, BATCH_COUNT=1, STRIDED_BATCH_OFFSET=0)


def matmul_preference_create():
    return _made(kind=_P, MAX_WORKSPACE_BYTES=0, **{f"MIN_ALIGNMENT_{x}_BYTES": 256 for x in "ABCD"})


def matmul_preference_destroy(pref):
    _thing(pref, _P)
    del _things[pref]


def matmul_algo_get_heuristic(
    light_handle,
    operation_desc,
    adesc,
    bdesc,
    cdesc,
    ddesc,
    preference,
    requested_algo_count,
    heuristic_results_array,
    return_algo_count,
):
    wanted = dict(_thing(preference, _P))
    _check(operation_desc, adesc, bdesc, ddesc)
    results = _array(heuristic_results_array, (requested_algo_count,), matmul_heuristic_result_dtype)
    _things[number := next(_numbers)] = {**wanted, "kind": "algorithm", "for": (operation_desc, adesc, bdesc, ddesc)}
    results[0]["algo"]["data_"][:2] = MAGIC, number
    results[0]["workspace_size"] = wanted["MAX_WORKSPACE_BYTES"]
    _array(return_algo_count, (1,), np.int32)[0] = 1


def _check(desc, *layouts):
    """The (rows, columns, inner) of a product whose operands fit each other."""
    desc, (a, b, d) = _thing(desc, _D), (_thing(layout, _L) for layout in layouts)
    rows, inner = (a["rows"], a["cols"]) if Operation(desc["TRANSA"]) == Operation.N else (a["cols"], a["rows"])
    second, columns = (b["rows"], b["cols"]) if Operation(desc["TRANSB"]) == Operation.N else (b["cols"], b["rows"])
    if inner != second or (rows, columns) != (d["rows"], d["cols"]) or len({x["BATCH_COUNT"] for x in (a, b, d)}) > 1:
        raise cuBLASLtError(7)
    if len({x["dtype"] for x in (a, b, d)}) > 1 or (a["dtype"] == np.float64) != (desc["scale"] == np.float64):
        raise cuBLASLtError(15)
    epilogue = Epilogue(desc["EPILOGUE"])
    if epilogue & 128:
        unit = 128 if "RELU" in epilogue.name else 8  # a bit for each value, in whole lines; or values of GELU's input
        length, apart = desc.get("EPILOGUE_AUX_LD", 0), desc.get("EPILOGUE_AUX_BATCH_STRIDE", 0)
        if length % unit or length < rows or apart % unit or (d["BATCH_COUNT"] > 1 and apart < length * columns):
            raise cuBLASLtError(15)
        if desc.get("EPILOGUE_AUX_POINTER", 0) % 16 or not desc.get("EPILOGUE_AUX_POINTER"):
            raise cuBLASLtError(7)
        if epilogue in (Epilogue.DRELU, Epilogue.DGELU) and inner == 1:
            raise AssertionError(
                "the gradient of an activation is asked for of single terms, which nvmath-python refuses"
            )
    return rows, columns, inner


def _array(pointer, shape, dtype):
    """Memory at an address, by rows."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_byte * size).from_address(int(pointer)), dtype).reshape(shape)


def _stack(pointer, layout):
    """The matrices of a layout, as views (batch, rows, columns)."""
    item = layout["dtype"].itemsize
    count, apart = layout["BATCH_COUNT"], layout["STRIDED_BATCH_OFFSET"]
    shape = count, layout["rows"], layout["cols"]
    flat = _array(pointer, ((count - 1) * apart + layout["ld"] * layout["cols"],), layout["dtype"])
    return np.lib.stride_tricks.as_strided(flat, shape, (apart * item, item, layout["ld"] * item), writeable=True)


def _bits(pointer, layout, length, apart):
    """A mask's matrices (batch, rows in bytes, columns): a column is a line of `length` bits."""
    return _stack(pointer, {**layout, "dtype": np.dtype(np.uint8), "rows": length // 8, "ld": length // 8,
                            "STRIDED_BATCH_OFFSET": apart // 8})  # fmt: skip


# What of relu tests take other libraries' way for.


def above(z):
    return z > 0


def where_above(z, bits):
    return np.where(bits, z, z.dtype.type(0))


def _gelu(z):
    inner = np.sqrt(2 / np.pi).astype(z.dtype) * (z + z.dtype.type(0.044715) * z**3)
    return 0.5 * z * (1 + np.tanh(inner))


def _gelu_slope(z):
    factor = np.sqrt(2 / np.pi).astype(z.dtype)
    tanh = np.tanh(factor * (z + z.dtype.type(0.044715) * z**3))
    return 0.5 * (1 + tanh) + 0.5 * z * (1 - tanh * tanh) * factor * (1 + z.dtype.type(3 * 0.044715) * z * z)


def _tf32(values):
    """Rounded to 10 bits after the point."""
    return ((values.astype(np.float32).view(np.int32) + 0x1000) & ~0x1FFF).view(np.float32)


def matmul(
    light_handle,
    compute_desc,
    alpha,
    a,
    adesc,
    b,
    bdesc,
    beta,
    c,
    cdesc,
    d,
    ddesc,
    algo,
    workspace,
    workspace_size_in_bytes,
    stream,
):
    _thing(light_handle, "handle")
    magic, number = _array(algo, (2,), np.uint64)
    chosen = _thing(int(number), "algorithm")
    if magic != MAGIC or chosen["for"] != (compute_desc, adesc, bdesc, ddesc) or not workspace:
        raise cuBLASLtError(7)
    if workspace_size_in_bytes < chosen["MAX_WORKSPACE_BYTES"]:
        raise cuBLASLtError(7)
    for name, pointer in zip("ABCD", (a, b, c, d)):
        if not pointer or pointer % chosen[f"MIN_ALIGNMENT_{name}_BYTES"]:
            raise cuBLASLtError(7)
    if stream != get_current_stream().ptr:
        raise AssertionError("the product is not on the current stream")
    desc, layouts = dict(_thing(compute_desc, _D)), [dict(_thing(x, _L)) for x in (adesc, bdesc, ddesc)]
    scales = [_array(x, (1,), desc["scale"])[0] for x in (alpha, beta)]
    if scales[1] != 0:
        raise AssertionError("the product is to be added to what is there, which may be NaN")
    epilogue = Epilogue(desc["EPILOGUE"])

    def work():
        first, second = _stack(a, layouts[0]), _stack(b, layouts[1])
        first = first.swapaxes(1, 2) if desc["TRANSA"] else first
        second = second.swapaxes(1, 2) if desc["TRANSB"] else second
        wide = desc["scale"]
        if desc["rounded"]:
            first, second = _tf32(first), _tf32(second)
        with np.errstate(all="ignore"):
            z = scales[0] * (first.astype(wide) @ second.astype(wide))
            if epilogue == Epilogue.BGRADA:
                _array(desc["BIAS_POINTER"], (z.shape[1],), layouts[2]["dtype"])[:] = first.astype(wide).sum((0, 2))
            elif epilogue & Epilogue.BIAS:
                z += _array(desc["BIAS_POINTER"], (z.shape[1],), layouts[2]["dtype"]).astype(wide)[:, None]
            if epilogue & 128:
                apart, ld = desc["EPILOGUE_AUX_BATCH_STRIDE"], desc["EPILOGUE_AUX_LD"]
                pointer = desc["EPILOGUE_AUX_POINTER"]
                if "RELU" in epilogue.name:
                    aux = _bits(pointer, layouts[2], ld, apart)
                else:
                    aux = _stack(pointer, {**layouts[2], "ld": ld, "STRIDED_BATCH_OFFSET": apart})
            if epilogue in (Epilogue.RELU_AUX, Epilogue.RELU_AUX_BIAS):
                packed = np.packbits(above(z), axis=1, bitorder="little")
                aux[...] = 0xAA  # what lies beyond the last row is anything
                aux[:, : packed.shape[1]] = packed
            elif epilogue in (Epilogue.GELU_AUX, Epilogue.GELU_AUX_BIAS):
                aux[...] = z
            if epilogue & Epilogue.RELU:
                z = np.maximum(z, 0)  # which hands on NaN
            elif epilogue & Epilogue.GELU:
                z = _gelu(z)
            elif epilogue == Epilogue.DRELU:
                z = where_above(z, np.unpackbits(aux, axis=1, bitorder="little")[:, : z.shape[1]])
            elif epilogue == Epilogue.DGELU:
                z = z * _gelu_slope(aux.astype(wide))
            elif epilogue in (Epilogue.DRELU_BGRAD, Epilogue.DGELU_BGRAD):
                raise AssertionError(f"{epilogue.name}: bias gradients come with the kernel's product, by BGRADA")
            _stack(d, layouts[2])[...] = z

    matmuls.append(epilogue.name)
    _graph.launch(work)
