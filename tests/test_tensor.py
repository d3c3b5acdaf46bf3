"""Tensor: what it takes, what it hands over, and what it says about itself."""

import numpy as np
import pytest

import dlgpu
from dlgpu import Tensor, ops
from dlgpu.tensor import wrap


def test_an_array_is_kept_and_not_copied():
    for array in (np.ones((2, 3)), np.arange(4)[::2], np.zeros((0, 2), np.float16), np.array(True)):
        tensor = Tensor(array)
        assert tensor.array is array
        assert tensor.numpy() is array
        assert Tensor(tensor).array is array
        assert (tensor.shape, tensor.ndim, tensor.size, tensor.dtype) == (
            array.shape,
            array.ndim,
            array.size,
            array.dtype,
        )


def test_numbers_and_lists_make_float32_and_int64():
    assert Tensor(1.5).dtype == Tensor([[1.0, 2]]).dtype == np.float32
    assert Tensor(3).dtype == Tensor([1, 2]).dtype == np.int64
    assert Tensor([True]).dtype == bool
    assert Tensor(np.float64(2)).dtype == np.float64
    assert Tensor([1, 2], dtype=np.float16).dtype == np.float16
    assert Tensor(np.ones(2), dtype="float32").dtype == np.float32
    with dlgpu.device("cpu"):
        assert str(Tensor(1.0, device="cpu").device) == "cpu"


def test_what_is_not_numbers_is_an_error():
    for value in ("abc", ["a"], [None], object(), [1j], np.array(["2020"], "M8[D]")):
        with pytest.raises(TypeError, match="expected numbers or booleans"):
            Tensor(value)
    with pytest.raises(TypeError, match="only floating tensors can require gradients; this one is int64"):
        Tensor([1, 2], requires_grad=True)
    with pytest.raises(dlgpu.DeviceError, match="Did you mean"):
        Tensor(1.0, device="cudda")


def test_numpy_takes_tensors():
    x = Tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    assert np.asarray(x) is x.array
    assert np.array(x) is not x.array
    assert np.asarray(x, np.float32).dtype == np.float32
    np.testing.assert_array_equal(np.array(x, copy=True), x.array)
    with pytest.raises(ValueError, match="copy"):
        np.array(x, dtype=np.float16, copy=False)
    assert np.shares_memory(np.from_dlpack(x), x.array)
    assert x.__dlpack_device__() == (1, 0)
    assert not hasattr(x, "__cuda_array_interface__")
    for function in (np.mean, np.sum, np.std, np.max, np.any):
        with pytest.raises(TypeError, match=r"np\.\w+ does not take Tensors: use dlgpu.ops.\w+\(x\), or np.\w+\(x.num"):
            function(x)


def test_one_value_as_a_python_number():
    assert (float(Tensor(2.5)), int(Tensor(2.5)), Tensor([[3.0]]).item()) == (2.5, 2, 3.0)
    assert (float(Tensor([2.5])), bool(Tensor(0.0)), [10, 11, 12][Tensor(1)]) == (2.5, False, 11)
    assert f"{Tensor(1.23456):.2f}|{Tensor([7]):d}" == "1.23|7"
    assert "shape=(2,)" in f"{Tensor([1.0, 2.0])}"
    for wrong in (lambda: float(Tensor([1.0, 2.0])), lambda: bool(Tensor([1.0, 2.0]))):
        with pytest.raises(ValueError, match=r"size 1|more than one element"):
            wrong()


def test_a_tensor_of_no_dimensions():
    x = Tensor(np.float64(3.0), requires_grad=True)
    array_type = x.device.array_namespace.ndarray
    assert type(x.array) is array_type
    for y in (
        x + 1,
        x * x,
        -x,
        ops.exp(x),
        x.sum(),
        x.mean(),
        x[...],
        x[None],
        x.reshape(1),
        ops.maximum(x, 1),
        x**2.0,
    ):
        assert type(y.array) is array_type
    (x * x).backward()
    assert x.grad.shape == ()
    assert x.grad.item() == 6
    with pytest.raises(TypeError, match="unsized"):
        len(x)


def test_rows_one_by_one():
    x = Tensor(np.arange(6.0).reshape(3, 2), requires_grad=True)
    assert len(x) == 3
    rows = list(x)
    assert all(r.requires_grad for r in rows)
    first, *_ = x
    np.testing.assert_array_equal(first.numpy(), [0, 1])


def test_equality_compares_values_and_identity_hashes():
    a, b = Tensor([1.0, 2.0]), Tensor([1.0, 2.0])
    np.testing.assert_array_equal((a == b).numpy(), [True, True])
    assert len({a, b, a}) == 2
    assert {a: 1}[a] == 1


def test_requires_grad_can_be_given_and_taken():
    x = Tensor([1.0])
    assert not x.requires_grad
    x.requires_grad = True
    edge = x.edge
    x.requires_grad = True
    assert x.edge is edge
    y = x * 2
    assert not y.detach().requires_grad
    assert y.detach().array is y.array
    y.requires_grad = False
    assert not y.requires_grad


def test_moving_to_where_it_is_changes_nothing():
    x = Tensor([1.0], requires_grad=True)
    assert x.device == dlgpu.current_device()
    assert x.to(x.device) is x


def test_repr_shows_values_shape_dtype_and_device():
    text = repr(Tensor([1.0, 2.0], requires_grad=True))
    assert text == f"Tensor([1., 2.], shape=(2,), dtype=float32, device='{dlgpu.current_device()}', requires_grad=True)"
    assert len(repr(Tensor(np.zeros((1000, 1000))))) < 1000


def test_wrap_makes_arrays_of_scalars():
    assert type(wrap(np.float32(1)).array) is np.ndarray


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_a_gradient_of_another_dtype_is_brought_to_the_tensors_own(dtype):
    x = Tensor(np.arange(6).reshape(2, 3) / 4, "float16", requires_grad=True)
    factor = np.array([[1, 2, 4], [8, 4, 1]], dtype)
    ops.layer_normalization(x).backward(Tensor(factor))
    found, x.grad = x.grad, None
    ops.layer_normalization(x).backward(factor)
    assert found.dtype == x.dtype
    assert found.numpy().tobytes() == x.grad.numpy().tobytes()
