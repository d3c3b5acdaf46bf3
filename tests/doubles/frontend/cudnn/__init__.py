"""Stand-in for `cudnn` of nvidia-cudnn-frontend: those of its functions that convolution needs, computed by NumPy.

It is as strict as the library: graphs are described before they are built and built before they are run, tensors have
sizes, strides and numbers that fit each other, addresses are aligned, and notes are barred only where plans exist.
Nothing is built while a step is captured, and nothing is done.
"""

import ctypes
import enum

import ml_dtypes
import numpy as np
from cupy import _graph, _order
from cupy.cuda import get_current_stream

__version__ = "1.32.0"
data_type = enum.Enum("data_type", "NOT_SET FLOAT DOUBLE HALF BFLOAT16")
heur_mode = enum.Enum("heur_mode", "A B FALLBACK OPENSOURCE")
numerical_note = enum.Enum(
    "numerical_note",
    "TENSOR_CORE DOWN_CONVERT_INPUTS REDUCED_PRECISION_REDUCTION FFT NONDETERMINISTIC WINOGRAD WINOGRAD_TILE_4x4 "
    "WINOGRAD_TILE_6x6 WINOGRAD_TILE_13x13 STRICT_NAN_PROP",
)
TYPES = {data_type.FLOAT: np.float32, data_type.HALF: np.float16, data_type.BFLOAT16: ml_dtypes.bfloat16}

PROPOSED = {"eng0": set(), "eng1": {"TENSOR_CORE"}}  # notes by the names of plans, the best first
workspaces = {}  # bytes by the names of plans
hiding = set()  # the names of plans whose relu makes 0 of NaN
failing = set()  # the names of plans that cannot be built
proposed = dict(PROPOSED)
built, executed = [], []  # names of plans


class cudnnGraphNotSupportedError(Exception):
    pass


class Handle:
    stream = 0


def backend_version():
    return 92800


def create_handle():
    return Handle()


def set_stream(handle, stream):
    if not isinstance(handle, Handle):
        raise TypeError(f"cudnn.set_stream expects a cudnn.Handle, got {type(handle).__name__}")
    handle.stream = stream


class tensor:
    def __init__(self, dim=None, stride=None, data_type=None, uid=None, virtual=True):
        self.dim, self.stride, self.type, self.uid, self.virtual = dim, stride, data_type, uid, virtual

    def set_output(self, value):
        self.virtual = not value
        return self

    def set_data_type(self, value):
        self.type = data_type(value)
        return self

    def set_dim(self, value):
        self.dim = value
        return self

    def set_stride(self, value):
        self.stride = value
        return self

    def set_uid(self, value):
        self.uid = value
        return self


class pygraph:
    def __init__(
        self,
        name="test_graph",
        io_data_type=data_type.NOT_SET,
        intermediate_data_type=data_type.NOT_SET,
        compute_data_type=data_type.NOT_SET,
        handle=None,
    ):
        if data_type(compute_data_type) != data_type.FLOAT or data_type(intermediate_data_type) != data_type.FLOAT:
            raise cudnnGraphNotSupportedError("sums are float32")
        if not isinstance(handle, Handle):
            raise TypeError("the graph has no handle")
        self.handle, self.type, self.tensors, self.steps = handle, io_data_type, {}, []
        self.stage, self.barred, self.limit, self.chosen = "described", set(), float("inf"), None

    def _at(self, stage, then):
        if self.stage != stage:
            raise RuntimeError(f"the graph is {self.stage}, not {stage}")
        if _order.local.capture is not None:
            raise AssertionError("a graph is built while a stream captures")
        self.stage = then

    def tensor(self, dim, stride, data_type=data_type.NOT_SET, is_virtual=False, *, name="", uid=-1):
        if uid in self.tensors or uid < 0:
            raise ValueError(f"uid {uid} is already user-assigned")
        self.tensors[uid] = tensor(dim, stride, data_type, uid, is_virtual)
        return self.tensors[uid]

    def _made(self, kind, *inputs, **options):
        self.steps.append((kind, inputs, options, tensor()))
        return self.steps[-1][-1]

    def conv_fprop(self, image, weight, pre_padding, post_padding, stride, dilation):
        return self._made("forward", image, weight, places=(pre_padding, post_padding, stride, dilation))

    def conv_dgrad(self, loss, filter, pre_padding, post_padding, stride, dilation):
        return self._made("data", loss, filter, places=(pre_padding, post_padding, stride, dilation))

    def conv_wgrad(self, image, loss, pre_padding, post_padding, stride, dilation):
        return self._made("weights", image, loss, places=(pre_padding, post_padding, stride, dilation))

    def bias(self, input, bias):
        return self._made("bias", input, bias)

    def relu(self, input):
        return self._made("relu", input)

    def validate(self):
        self._at("described", "validated")
        (self.kind, (left, right), options, _), *after = self.steps
        self.places, result = options["places"], self.steps[-1][-1]
        if result.virtual or any(step[-1].virtual is False for step in self.steps[:-1]):
            raise ValueError("the last tensor, and no other, is the output")
        for step, follower in zip(self.steps, after):
            assert follower[1][0] is step[-1]
        if result.uid in self.tensors:
            raise ValueError(f"uid {result.uid} is already user-assigned")
        self.tensors[result.uid] = result
        for each in self.tensors.values():
            if each.type != self.type or type(each.dim) is not list or type(each.stride) is not list:
                raise TypeError("sizes and strides are lists of one data type")
            _, channels, height, width = each.dim
            if each.stride != [channels * height * width, 1, channels * width, channels]:
                raise cudnnGraphNotSupportedError("only channels that lie together are supported")
        self.factors, self.result = (left, right), result
        places = {"forward": (left, right, result), "data": (result, right, left), "weights": (left, result, right)}
        image, kernel, output = (t.dim for t in places[self.kind])
        if any(type(p) is not list or len(p) != 2 or not all(type(n) is int for n in p) for p in self.places):
            raise TypeError("padding, strides and dilation are lists of two integers")
        for axis, (before, behind, stride, dilation) in enumerate(zip(*self.places), 2):
            reach = (kernel[axis] - 1) * dilation + 1
            if output[axis] != 1 + (image[axis] + before + behind - reach) // stride:
                raise ValueError("the sizes of image, kernel and output do not fit each other")
        if image[0] != output[0] or kernel[0] != output[1] or image[1] % kernel[1]:
            raise ValueError("the channels of image, kernel and output do not fit each other")
        for kind, inputs, _, _ in after:
            if kind == "bias" and inputs[1].dim != [1, kernel[0], 1, 1]:
                raise ValueError("a bias is (1, filters, 1, 1)")

    def build_operation_graph(self):
        self._at("validated", "laid out")

    def create_execution_plans(self, heuristics):
        self._at("laid out", "planned")
        assert all(heur_mode(mode) for mode in heuristics)
        self.plans = list(proposed)
        if not self.plans:
            raise cudnnGraphNotSupportedError("no engine proposed a plan for this graph")

    def deselect_numeric_notes(self, notes):
        if self.stage == "planned":  # before, it marks nothing
            self.barred |= {numerical_note(note).name for note in notes}

    def deselect_workspace_greater_than(self, workspace_limit):
        self.limit = workspace_limit

    def get_execution_plan_count(self):
        return len(self.plans)

    def get_plan_name_at_index(self, index):
        return self.plans[index]

    def build_plan_at_index(self, index):
        self._at("planned", "planned")
        name = self.plans[index]
        if proposed[name] & self.barred or workspaces.get(name, 0) > self.limit:
            raise cudnnGraphNotSupportedError("Deselecting execution plan")
        if name in failing:
            raise RuntimeError(f"CUDNN_STATUS_INTERNAL_ERROR: {name}")
        built.append(name)
        self.chosen = name

    def get_workspace_size(self):
        return workspaces.get(self.chosen, 0)

    def execute(self, tensor_dict, workspace=None, handle=None):
        if self.chosen is None:
            raise RuntimeError("the graph is not built")
        if set(tensor_dict) != set(self.tensors) or any(type(p) is not int for p in (*tensor_dict.values(), workspace)):
            raise ValueError("the variant pack must hold an address for each tensor, and nothing else")
        if not workspace or any(pointer % 16 for pointer in tensor_dict.values()):
            raise RuntimeError("CUDNN_STATUS_BAD_PARAM: an address is missing, or not aligned")
        if handle is not self.handle or handle.stream != get_current_stream().ptr:
            raise AssertionError("the plan is not on the current stream")
        name = self.chosen
        executed.append((name, *(step[0] for step in self.steps)))

        def work():
            arrays = {uid: _array(tensor_dict[uid], t) for uid, t in self.tensors.items()}
            result = arrays.pop(self.result.uid)
            with np.errstate(all="ignore"):
                left, right = (_rounded(arrays[t.uid]) for t in self.factors)
                found = CONVOLUTIONS[self.kind](left, right, result.shape, *self.places)
                for kind, inputs, _, _ in self.steps[1:]:
                    if kind == "bias":
                        found = found + arrays[inputs[1].uid].astype(np.float32)
                    else:
                        found = (np.fmax if name in hiding else np.maximum)(found, 0)
                result[...] = found

        _graph.launch(work)


def _array(pointer, of):
    """Memory at an address, with the channels last."""
    batch, channels, height, width = of.dim
    dtype = np.dtype(TYPES[of.type])
    raw = (ctypes.c_byte * (int(np.prod(of.dim)) * dtype.itemsize)).from_address(pointer)
    return np.frombuffer(raw, dtype).reshape(batch, height, width, channels)


def _rounded(values):
    """float32, with TF32's 10 bits after the point."""
    wide = np.array(values, np.float32)
    return ((wide.view(np.int32) + 0x1000) & ~0x1FFF).view(np.float32)


def _taps(image, output, kernel, before, behind, strides, dilation):
    """For each place of a kernel, itself and the slices of a padded image that it meets."""
    for row in range(kernel[1]):
        for column in range(kernel[2]):
            starts = row * dilation[0], column * dilation[1]
            yield (
                (row, column),
                tuple(
                    slice(start, start + (size - 1) * stride + 1, stride)
                    for start, size, stride in zip(starts, output[1:3], strides)
                ),
            )


def _padded(shape, before, behind):
    return np.zeros((shape[0], *(n + b + e for n, b, e in zip(shape[1:3], before, behind)), shape[3]), np.float32)


def _inside(padded, shape, before):
    return padded[:, before[0] : before[0] + shape[1], before[1] : before[1] + shape[2]]


def _forward(image, kernel, output, before, behind, *geometry):
    padded, found = _padded(image.shape, before, behind), np.zeros(output, np.float32)
    _inside(padded, image.shape, before)[...] = image
    groups = image.shape[3] // kernel.shape[3]
    for (row, column), there in _taps(image.shape, output, kernel.shape, before, behind, *geometry):
        parts = np.split(padded[:, there[0], there[1]], groups, 3), np.split(kernel[:, row, column], groups)
        found += np.concatenate([x @ k.T for x, k in zip(*parts)], 3)
    return found


def _data(output, kernel, image, before, behind, *geometry):
    padded, groups = _padded(image, before, behind), image[3] // kernel.shape[3]
    for (row, column), there in _taps(image, output.shape, kernel.shape, before, behind, *geometry):
        parts = np.split(output, groups, 3), np.split(kernel[:, row, column], groups)
        padded[:, there[0], there[1]] += np.concatenate([g @ k for g, k in zip(*parts)], 3)
    return _inside(padded, image, before)


def _weights(image, output, kernel, before, behind, *geometry):
    padded, found = _padded(image.shape, before, behind), np.zeros(kernel, np.float32)
    _inside(padded, image.shape, before)[...] = image
    groups = image.shape[3] // kernel[3]
    for (row, column), there in _taps(image.shape, output.shape, kernel, before, behind, *geometry):
        parts = np.split(output, groups, 3), np.split(padded[:, there[0], there[1]], groups, 3)
        found[:, row, column] = np.concatenate([np.tensordot(g, x, ((0, 1, 2), (0, 1, 2))) for g, x in zip(*parts)])
    return found


CONVOLUTIONS = {"forward": _forward, "data": _data, "weights": _weights}
