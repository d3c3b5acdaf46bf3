"""The activation kernels, also on a grid that is too small for their elements."""

import numpy as np
import pytest

import dlgpu
from dlgpu.backend.cuda import activation, geometry
from dlgpu.backend.reference.activation import bias_activation, dense_backward
from dlgpu.backend.reference.linear import matmul
from tests.backend.column import agree
from tests.backend.rows.activation import *
from tests.backend.rows.activation import test_other_dtypes


def test_bfloat16(rng):
    test_other_dtypes("bfloat16", rng)


def test_more_elements_than_a_grid_has_threads(rng, monkeypatch):
    monkeypatch.setattr(geometry, "MAX_BLOCKS", 2)
    x = rng.standard_normal((30, 70)).astype("f")
    agree("bias_activation", x, rng.standard_normal(70).astype("f"), "relu")
    agree("activation_backward", x, x, "relu")


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("shape", [(3, 5), (1, 128), (7, 129), (40, 400), (0, 4), (4, 0)])
def test_a_mask_has_a_bit_for_each_value_above_0(shape, dtype, rng, monkeypatch):
    monkeypatch.setattr(geometry, "MAX_BLOCKS", 2)
    z, grad = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    z.flat[:3], grad.flat[3:5] = [np.nan, 0, -0.0], np.nan
    with dlgpu.device("emulator"):
        output, mask = activation.relu_and_mask(z.copy())
        found = activation.activation_backward(grad, mask, "relu")
    assert mask.shape == (shape[0], -(-shape[1] // 128) * 4)
    bits = np.unpackbits(mask.view(np.uint8), axis=1, bitorder="little")
    np.testing.assert_array_equal(bits[:, : shape[1]], z > 0)
    assert not bits[:, shape[1] :].any()
    np.testing.assert_array_equal(output, np.maximum(z, 0))
    np.testing.assert_array_equal(found, grad * (z > 0))


@pytest.mark.parametrize("name", ["linear", "relu", "tanh", "gelu_tanh"])
@pytest.mark.parametrize("sizes", [(5, 7, 3), (1, 1, 1), (33, 8, 1), (0, 3, 2), (3, 2, 0), (17, 65, 600)])
def test_the_gradient_through_two_layers(sizes, name, rng):
    rows, _, following = sizes
    grad, kernel, saved = (rng.standard_normal(s).astype("f") for s in ((rows, following), sizes[1:], sizes[:2]))
    agree("dense_activation_backward", grad, kernel, saved, name, size=max(1, following))


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize("name", ["relu", "gelu_tanh"])
def test_the_gradient_through_two_layers_in_other_dtypes(name, dtype, rng):
    for sizes in [(5, 7, 3), (17, 16, 600), (33, 40, 9)]:
        shapes = (sizes[0], sizes[2]), sizes[1:], sizes[:2]
        agree("dense_activation_backward", *(rng.standard_normal(s).astype(dtype) for s in shapes), name, size=sizes[2])


@pytest.mark.parametrize("scale", [1.0, 1e5, 1e-7])
@pytest.mark.parametrize("sizes", [(2, 31, 33), (3, 32, 31), (1, 33, 32), (2, 3, 1025), (70000, 2, 1)])
def test_the_gradient_through_two_layers_of_hostile_shapes_and_values(sizes, scale, rng):
    rows, units, following = sizes
    grad, kernel, saved = (rng.standard_normal(s) for s in ((rows, following), (units, following), (rows, units)))
    args = (grad * scale).astype("f"), kernel.astype("f"), saved.astype("f")
    agree("dense_activation_backward", *args, "relu", size=following)


def test_the_gradient_through_two_layers_keeps_nan_and_takes_matrices_that_are_not_contiguous(rng):
    grad, kernel, saved = (rng.standard_normal(s).astype("f")[::2, ::2] for s in ((10, 6), (14, 6), (10, 14)))
    grad[1, 1] = saved[3, 2] = np.nan
    agree("dense_activation_backward", grad, kernel, saved, "relu", size=3)


def test_the_gradient_through_two_layers_is_one_launch(rng, launches):
    grad, kernel, saved = (rng.standard_normal(s).astype("f") for s in ((4, 3), (5, 3), (4, 5)))
    agree("dense_activation_backward", grad, kernel, saved, "tanh", size=3)
    assert launches == ["product"]


def test_factors_are_those_of_the_gradient_by_x(rng):
    grad, x, kernel = (rng.standard_normal(s).astype("f") for s in ((4, 3), (4, 5), (5, 3)))
    with dlgpu.device("emulator"):
        (dz, same), *others = dense_backward(grad, x, kernel, grad, "relu", ("factors", True, True))
        by_x, *expected = dense_backward(grad, x, kernel, grad, "relu", (True, True, True))
        np.testing.assert_array_equal(matmul(dz, same.T), by_x)
    for f, e in zip(others, expected):
        np.testing.assert_array_equal(f, e)


def test_what_may_be_overwritten_is(rng):
    agree("bias_activation", rng.standard_normal((3, 5)).astype("f"), None, "relu", overwrite=False)
    x = rng.standard_normal((3, 5)).astype("f")
    with dlgpu.device("emulator"):
        output, _ = bias_activation(x, None, "relu", overwrite=True)
    assert output is x


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("name", ["linear", "relu", "silu", "tanh"])
def test_a_dense_layer_in_one_pass(name, dtype, rng):
    for rows, features, units in [(33, 70, 31), (1, 1, 1), (0, 3, 2), (3, 0, 2)]:
        x, weights, bias, grad = (
            rng.standard_normal(s).astype(dtype) for s in ((rows, features), (features, units), (units,), (rows, units))
        )
        agree("dense", x, weights, bias, name, size=max(1, features))
        agree("dense", x, weights, None, name, size=max(1, features))
        for needed in [(True, True, True), (False, True, False)]:
            agree("dense_backward", grad, x, weights, grad, name, needed, size=max(1, rows, units))


@pytest.mark.parametrize("columns", [1, 31, 32, 33, 1025])
def test_a_dense_layers_hostile_shapes(columns, rng):
    for rows in (0, 1, 70000):
        if rows * columns > 1 << 17:
            continue
        x, weights = rng.standard_normal((rows, 2)).astype("f"), rng.standard_normal((2, columns)).astype("f")
        grad = rng.standard_normal((rows, columns)).astype("f")
        agree("dense", x, weights, weights[0], "relu", size=2)
        agree("dense_backward", grad, x, weights, grad, "relu", (True, True, True), size=max(1, rows, columns))


@pytest.mark.parametrize("scale", [1e6, 1e-8, np.nan])
def test_a_dense_layer_of_extreme_values_that_are_not_contiguous(scale, rng):
    x, weights = rng.standard_normal((34, 80)).astype("f")[::2, ::2], rng.standard_normal((5, 40)).astype("f").T
    x, grad = x * np.float32(1), rng.standard_normal((17, 10)).astype("f")[:, ::2]
    x[3, 4] = scale
    agree("dense", x.T.copy().T, weights, weights[0], "relu", size=40)
    agree("dense_backward", grad, x.T.copy().T, weights, grad, "relu", (True, True, True), size=40)
