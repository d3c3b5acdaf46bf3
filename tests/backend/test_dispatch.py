"""Dispatch: a kernel runs where its first array lives, and the registry knows all kernels."""

import importlib
import inspect
import pkgutil
import sys
import types

import numpy as np
import pytest

import dlgpu
from dlgpu.backend import dispatch, reference
from dlgpu.backend.dispatch import Kernel, array_namespace, column_of, kernel
from dlgpu.backend.recorder import Recording
from dlgpu.backend.traced import traced

X = np.arange(3.0)


@pytest.fixture
def doubled(monkeypatch):
    """A kernel of this test's own, in a copy of the registry."""
    monkeypatch.setattr(dispatch, "registry", dict(dispatch.registry))

    @kernel
    def doubled(x, factor=2):
        """factor * x"""
        return x * factor

    return doubled


@pytest.fixture
def elsewhere(monkeypatch):
    """An array of another library, as CuPy's arrays are, while the CPU is the current device."""
    library = types.ModuleType("cupy")
    monkeypatch.setitem(sys.modules, "cupy", library)
    kind = type("ndarray", (), {"__module__": "cupy", "__mul__": lambda self, factor: ("elsewhere", factor)})
    library.ndarray = kind
    with dlgpu.device("cpu"):
        yield library, kind()


def test_every_kernel_of_the_reference_is_registered_and_documented():
    found = {}
    for row in pkgutil.iter_modules(reference.__path__):
        module = importlib.import_module(f"dlgpu.backend.reference.{row.name}")
        found |= {v.__name__: v for v in vars(module).values() if isinstance(v, Kernel)}
    assert found == dispatch.registry
    for name, made in found.items():
        assert inspect.getdoc(made), name
        assert next(iter(inspect.signature(made).parameters.values())).default is inspect.Parameter.empty, name


def test_a_kernel_is_its_reference_until_a_column_is_registered(doubled):
    assert isinstance(doubled, Kernel)
    assert dispatch.registry["doubled"] is doubled
    assert (doubled.__name__, doubled.__doc__) == ("doubled", "factor * x")
    np.testing.assert_array_equal(doubled(X, factor=3), 3 * X)
    assert repr(doubled) == "<kernel doubled on reference>"


def test_a_call_goes_by_where_the_first_array_lives(doubled, elsewhere):
    _, array = elsewhere

    @doubled.on("cuda")
    def on_cuda(x, factor=2):
        return "the column of cuda", factor

    assert doubled(array, 5) == ("the column of cuda", 5)
    np.testing.assert_array_equal(doubled(X), 2 * X)
    assert repr(doubled) == "<kernel doubled on reference, cuda>"
    assert on_cuda(X, 1) == ("the column of cuda", 1)  # the decorator leaves the function as it is


def test_a_device_without_a_column_runs_the_reference_on_its_own_arrays(doubled, elsewhere):
    _, array = elsewhere
    doubled.on("cpu")(lambda x, factor=2: "the column of the cpu")
    assert doubled(X) == "the column of the cpu"
    assert doubled(array) == ("elsewhere", 2)


def test_two_kernels_of_one_name_are_an_error(doubled):
    with pytest.raises(ValueError, match="two kernels are named 'doubled'"):
        kernel(doubled.reference)


def test_the_namespace_of_an_array_is_its_library(elsewhere):
    library, array = elsewhere
    assert array_namespace(array) is library
    assert array_namespace(X) is array_namespace(X[0]) is np
    assert (column_of(array), column_of(X)) == ("cuda", "cpu")
    for other in ([1.0], types.SimpleNamespace(__cuda_array_interface__={})):  # such as PyTorch's on a GPU
        with pytest.raises(TypeError, match=r"expected an array of NumPy or CuPy, got (builtins.list|types.Simple)"):
            array_namespace(other)


def test_arrays_of_two_places_are_refused_by_name(doubled, elsewhere):
    doubled.on("cuda")(lambda x, y: x)
    with pytest.raises(dlgpu.DeviceError, match="doubled: the first array is on a GPU, another is not"):
        doubled(elsewhere[1], X)


def test_the_emulator_takes_host_arrays_to_the_cuda_column(doubled):
    doubled.on("cuda")(lambda x: "cuda")
    with dlgpu.device("emulator"):
        assert column_of(X) == "cuda"
        assert doubled(X) == "cuda"
    assert column_of(X) == "cpu"


def test_what_only_calls_kernels_is_left_to_them(doubled, elsewhere):
    """As if they had been called one by one: 16 bits are widened for each, and a step that is recorded notes each."""

    @kernel(composed=True)
    def quadrupled(x):
        """doubled(doubled(x))"""
        return doubled(doubled(x))

    seen, recording = [], Recording()
    doubled.reference = lambda x, factor=2: seen.append(x.dtype) or x * factor
    quadrupled(X.astype(np.float16))
    assert seen == [np.float32, np.float32]
    with recording.active():
        quadrupled(traced(X))
    assert [function.__name__ for function, _ in recording.program] == ["_again"] * 2
    quadrupled.on("cuda")(lambda x: "the column of cuda")
    assert quadrupled(elsewhere[1]) == "the column of cuda"
