"""The convolution row: what it computes, its derivatives of every order, and its errors."""

import numpy as np
import pytest

from dlgpu import ops
from dlgpu.backend import windows
from dlgpu.ops.activation import activation
from dlgpu.ops.convolution import conv1d, conv2d, conv2d_max_pool, conv2d_transpose
from dlgpu.ops.pooling import max_pool
from dlgpu.tensor import Tensor
from dlgpu.testing import gradcheck

random = np.random.default_rng(0)

# size, channels, window, filters, strides, padding, dilation, groups
GEOMETRIES = [
    ((5, 4), 2, (3, 3), 3, (1, 1), "valid", (1, 1), 1),
    ((5, 6), 2, (3, 2), 2, (2, 3), "same", (1, 1), 1),
    ((7, 5), 1, (2, 3), 2, (1, 1), "same", (3, 2), 1),
    ((4, 5), 4, (3, 3), 2, (2, 1), ((0, 2), (3, 1)), (1, 1), 2),
    ((4, 3), 3, (2, 2), 6, (1, 1), ((1, 0), (0, 1)), (2, 1), 3),
    ((3, 3), 6, (1, 1), 3, (2, 2), "valid", (1, 1), 1),
    ((3, 4), 10, (2, 2), 2, (1, 2), "same", (1, 1), 2),
    ((2, 1), 1, (3, 2), 1, (1, 1), ((2, 3), (4, 1)), (1, 1), 1),
]


def definition(x, kernel, strides, padding, dilation, groups):
    """The sum of the equation, term by term."""
    (top, bottom), (left, right) = padding
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    kh, kw, part, filters = kernel.shape
    height = (x.shape[1] - (kh - 1) * dilation[0] - 1) // strides[0] + 1
    width = (x.shape[2] - (kw - 1) * dilation[1] - 1) // strides[1] + 1
    out = np.zeros((len(x), height, width, filters))
    for n, o, p, f, i, j, c in np.ndindex(*out.shape, kh, kw, part):
        channel = f // (filters // groups) * part + c
        out[n, o, p, f] += (
            x[n, o * strides[0] + i * dilation[0], p * strides[1] + j * dilation[1], channel] * kernel[i, j, c, f]
        )
    return out


@pytest.mark.parametrize(
    ("size", "channels", "window", "filters", "strides", "padding", "dilation", "groups"), GEOMETRIES
)
def test_conv2d_is_its_equation_and_so_are_its_derivatives(
    size, channels, window, filters, strides, padding, dilation, groups
):
    x = random.normal(size=(2, *size, channels))
    kernel = random.normal(size=(*window, channels // groups, filters))
    pairs = windows.padding_pairs(padding, size, window, strides, dilation)
    out = conv2d(Tensor(x), Tensor(kernel), None, strides, padding, dilation, groups)
    np.testing.assert_allclose(out.numpy(), definition(x, kernel, strides, pairs, dilation, groups), atol=1e-12)
    gradcheck(lambda x, k: conv2d(x, k, None, strides, padding, dilation, groups), x[:1], kernel)


def test_third_derivative_of_conv2d_is_right():
    # sum(conv(x, k)^3) differentiated once by the op; the second derivative of that is a third one of conv
    def slope(x, kernel):
        by_x, by_kernel = ops.grad(lambda a, b: (conv2d(a, b, padding="same") ** 3).sum(), (0, 1), True)(x, kernel)
        return by_x, by_kernel

    gradcheck(slope, random.normal(size=(1, 2, 2, 1)), random.normal(size=(2, 2, 1, 1)), tolerance=1e-5)


@pytest.mark.parametrize("padding", ["valid", "same", "causal", (2, 0)])
def test_conv1d_is_conv2d_of_height_one(padding):
    x, kernel = random.normal(size=(2, 6, 2)), random.normal(size=(3, 1, 4))
    pairs = windows.padding_pairs(padding, (6,), (3,), (2,), (1,))
    expected = definition(x[:, None], kernel[None], (1, 2), ((0, 0), *pairs), (1, 1), 2)
    out = conv1d(Tensor(x), Tensor(kernel), None, 2, padding, groups=2)
    np.testing.assert_allclose(out.numpy(), expected[:, 0], atol=1e-12)
    gradcheck(lambda x, k: conv1d(x, k, None, 2, padding, groups=2), x[:1], kernel)


def test_causal_conv1d_never_sees_a_later_input():
    x, kernel = random.normal(size=(1, 7, 2)), random.normal(size=(3, 2, 3))
    later = x.copy()
    later[:, 4:] += 1
    before, after = (conv1d(Tensor(a), Tensor(kernel), padding="causal", dilation=2).numpy() for a in (x, later))
    assert before.shape == (1, 7, 3)
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert (before[:, 4:] != after[:, 4:]).all()


def test_same_padding_puts_the_odd_zero_at_the_end():
    assert windows.padding_pairs("same", (5, 6, 7)[:2], (2, 3), (1, 2)) == ((0, 1), (0, 1))
    assert windows.padding_pairs("same", (4,), (1,), (3,)) == ((0, 0),)  # strides beyond the window need none


@pytest.mark.parametrize(
    ("padding", "strides", "dilation", "size"),
    [("valid", (2, 1), (1, 1), (7, 4)), ("same", (2, 3), (1, 1), (6, 9)), ("valid", (3, 1), (1, 2), (9, 5))],
)
def test_conv2d_transpose_is_the_transpose_of_conv2d(padding, strides, dilation, size):
    y, kernel = random.normal(size=(2, 3, 3, 2)), random.normal(size=(3, 2, 4, 2))
    out = conv2d_transpose(Tensor(y), Tensor(kernel), None, strides, padding, dilation)
    assert out.shape == (2, *size, 4)
    x = random.normal(size=out.shape)
    forward = conv2d(Tensor(x), Tensor(kernel), None, strides, padding, dilation).numpy()
    np.testing.assert_allclose((forward * y).sum(), (out.numpy() * x).sum())
    gradcheck(lambda y, k: conv2d_transpose(y, k, None, strides, padding, dilation), y[:1, :2, :1], kernel[:2])


@pytest.mark.parametrize("name", ["linear", "relu", "elu", "gelu"])  # in place, not in place, and from the input
@pytest.mark.parametrize("with_bias", [True, False])
def test_bias_and_activation_are_fused_and_differentiable(name, with_bias):
    x, kernel, bias = random.normal(size=(2, 3, 3, 1)), random.normal(size=(2, 2, 1, 3)), random.normal(size=3)
    inputs = (x, kernel, bias) if with_bias else (x, kernel)
    plain = conv2d(Tensor(x), Tensor(kernel))
    out = conv2d(*map(Tensor, inputs), activation=name)
    np.testing.assert_allclose(out.numpy(), activation(plain, name, Tensor(bias) if with_bias else None).numpy())
    gradcheck(lambda *inputs: conv2d(*inputs, activation=name), *inputs)


def test_no_rows_give_no_rows_and_zero_gradients():
    x, kernel = (
        Tensor(np.zeros((0, 4, 4, 2), np.float32), requires_grad=True),
        Tensor(np.ones((3, 3, 2, 5), np.float32)),
    )
    kernel.requires_grad = True
    out = conv2d(x, kernel, padding="same")
    assert out.shape == (0, 4, 4, 5)
    out.sum().backward()
    assert x.grad.shape == x.shape
    np.testing.assert_array_equal(kernel.grad.numpy(), 0)


@pytest.mark.parametrize("block", [1, 2 * 1536, 2 * 8 * 3 * 36 * 8])  # bytes: one sample, or two and at last one
def test_strided_views_and_blocks_of_the_batch_change_nothing(block, monkeypatch):
    x, kernel, bias = random.normal(size=(5, 8, 12, 4)), random.normal(size=(6, 3, 4, 2)), random.normal(size=2)

    def everything(x, kernel):
        x, kernel, offset = (Tensor(a, requires_grad=True) for a in (x, kernel, bias))
        out = conv2d(x, kernel, offset, (1, 2), "same", activation="sigmoid")
        out.sum().backward()  # a gradient that is a broadcast view
        back = conv2d_transpose(out.detach(), kernel, None, (1, 2), "same")
        grad = ops.grad(lambda k: (conv2d_transpose(out.detach(), k, None, (1, 2), "same") ** 2).sum())(kernel)
        return [t.numpy() for t in (out, x.grad, kernel.grad, offset.grad, back, grad)]

    expected = everything(np.ascontiguousarray(x[:, ::-1, ::2]), np.ascontiguousarray(kernel[::2]))
    monkeypatch.setattr(windows, "BLOCK_BYTES", block)
    for a, b in zip(everything(x[:, ::-1, ::2], kernel[::2]), expected):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_dtypes_are_kept_and_the_wider_one_wins():
    x, kernel = np.ones((1, 3, 3, 1), np.float32), np.ones((2, 2, 1, 1), np.float32)
    assert conv2d(x, kernel).dtype == np.float32
    assert conv2d(x.astype(np.int64), kernel).dtype == np.float32
    assert conv2d(x, kernel.astype(np.float64)).dtype == np.float64
    leaf = Tensor(kernel, requires_grad=True)
    conv2d(x.astype(np.float64), leaf).sum().backward()
    assert leaf.grad.dtype == np.float32


@pytest.mark.parametrize(
    ("x", "kernel", "arguments", "message"),
    [
        ((2, 4, 4), (2, 2, 4, 1), {}, "expected x .batch, height, width, channels."),
        ((2, 4, 4, 3), (2, 2, 4, 1), {}, "does not go with 3 channels"),
        ((2, 4, 4, 4), (2, 2, 2, 3), {"groups": 2}, "filters that divide by groups"),
        ((2, 4, 3, 1), (2, 4, 1, 1), {}, "window of 4 does not fit into an input of width 3"),
        ((2, 4, 4, 1), (3, 2, 1, 1), {"dilation": 2}, "so 5 long, does not fit into an input of height 4"),
        ((2, 4, 4, 1), (2, 2, 1, 1), {"padding": "causal"}, 'padding must be "valid", "same", or numbers'),
        ((2, 4, 4, 1), (2, 2, 1, 1), {"padding": ((1, 1), (0, -1))}, "each padding must be"),
        ((2, 4, 4, 1), (2, 2, 1, 1), {"strides": 0}, "strides must be"),
    ],
)
def test_shapes_that_do_not_go_together_are_named(x, kernel, arguments, message):
    with pytest.raises(ValueError, match=message):
        conv2d(np.zeros(x, np.float32), np.zeros(kernel, np.float32), **arguments)


@pytest.mark.parametrize(("size", "channels", "window", "filters", "strides", "padding", "dilation", "groups"), [
    ((5, 4), 2, (2, 3), 3, (1, 1), "valid", (1, 1), 1),
    ((9, 8), 2, (3, 2), 2, (2, 1), "same", (1, 1), 1),
    ((6, 7), 4, (3, 3), 4, (1, 1), ((0, 2), (3, 1)), (2, 1), 2),
])  # fmt: skip
@pytest.mark.parametrize("name", ["linear", "relu", "tanh", "gelu"])
def test_conv2d_max_pool_is_both_and_so_are_its_derivatives(
    size, channels, window, filters, strides, padding, dilation, groups, name
):
    x, kernel = random.normal(size=(2, *size, channels)), random.normal(size=(*window, channels // groups, filters))
    bias, geometry = random.normal(size=filters), (strides, padding, dilation, groups)

    def both(x, kernel, bias):
        return max_pool(conv2d(x, kernel, bias, *geometry, name), 2)

    def in_one(x, kernel, bias):
        return conv2d_max_pool(x, kernel, bias, *geometry, name)

    for dtype in (np.float64, np.float32, np.float16):
        found = []
        for function in (in_one, both):
            inputs = [Tensor(a.astype(dtype), requires_grad=True) for a in (x, kernel, bias)]
            out = function(*inputs)
            (out * out).sum().backward()
            found.append([out.numpy(), *(t.grad.numpy() for t in inputs)])
        for f, w in zip(*found):
            assert f.dtype == dtype
            np.testing.assert_array_equal(f, w)
    gradcheck(in_one, x[:1], kernel, bias)


def test_conv2d_max_pool_of_a_function_that_is_no_fused_activation():
    x, kernel = random.normal(size=(2, 5, 6, 1)), random.normal(size=(2, 2, 1, 3))
    out = conv2d_max_pool(Tensor(x), Tensor(kernel), activation=lambda z: -z)
    np.testing.assert_array_equal(out.numpy(), max_pool(-conv2d(Tensor(x), Tensor(kernel)), 2).numpy())


def test_what_is_too_small_for_a_window_of_conv2d_max_pool_is_refused():
    kernel = np.ones((3, 3, 1, 1))
    with pytest.raises(ValueError, match="a window of 2 does not fit into an input of width 1"):
        conv2d_max_pool(Tensor(np.ones((2, 4, 3, 1))), Tensor(kernel))
    with pytest.raises(ValueError, match="conv2d: expected x"):
        conv2d_max_pool(Tensor(np.ones((4, 3, 1))), Tensor(kernel))
    assert conv2d_max_pool(Tensor(np.ones((0, 4, 4, 1))), Tensor(kernel)).shape == (0, 1, 1, 1)
