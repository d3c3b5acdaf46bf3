"""Layers that merge a list of inputs: values, broadcasting, masks and errors."""

import numpy as np
import pytest

from dlgpu.layers import Add, Average, Concatenate, Dot, Maximum, Minimum, Multiply, Subtract
from dlgpu.layers.symbol import Symbol
from dlgpu.tensor import Tensor

random = np.random.default_rng(0)
A, B, C = (random.normal(size=(2, 3, 4)).astype(np.float32) for _ in range(3))


@pytest.mark.parametrize(
    ("layer", "inputs", "expected"),
    [
        (Add(), [A, B, C], A + B + C),
        (Multiply(), [A, B, C], A * B * C),
        (Average(), [A, B, C], (A + B + C) / 3),
        (Subtract(), [A, B], A - B),
        (Maximum(), [A, B, C], np.maximum(np.maximum(A, B), C)),
        (Minimum(), [A, B, C], np.minimum(np.minimum(A, B), C)),
        (Add(), [A], A),
        (Add(), [A, B[:, 0]], A + B[:, :1]),  # a vector for each sample, added to each step
        (Multiply(), [A[:, :1], B[:, :, :1]], A[:, :1] * B[:, :, :1]),
        (Concatenate(), [A, B[..., :1]], np.concatenate([A, B[..., :1]], -1)),
        (Concatenate(axis=1), [A, B[:, :1], C], np.concatenate([A, B[:, :1], C], 1)),
        (Dot(axes=2), [A, B], np.einsum("nif,njf->nij", A, B)),
        (Dot(axes=(1, -2)), [A, B], np.einsum("nif,nig->nfg", A, B)),
        (Dot(axes=(1, 2)), [A[:, 0], B], np.einsum("nf,njf->nj", A[:, 0], B)),
        (Dot(axes=1), [A[:, 0], B[:, 0]], (A[:, 0] * B[:, 0]).sum(1, keepdims=True)),
    ],
    ids=lambda x: type(x).__name__,
)
def test_merging_layers_compute_their_names(layer, inputs, expected):
    tensors = [Tensor(x, requires_grad=True) for x in inputs]
    out = layer(tensors)
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert out.dtype == np.float32
    out.sum().backward()
    assert all(t.grad.shape == t.shape for t in tensors)
    copy = type(layer).from_config(layer.get_config())
    assert copy([Symbol((None, *x.shape[1:])) for x in inputs]).shape == (None, *expected.shape[1:])


def test_normalized_dot_is_the_cosine():
    a, b = A[:, 0], B[:, 0]
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(Dot(1, normalize=True)([a, b]).numpy()[:, 0], cosine, rtol=1e-5)
    assert Dot(1, normalize=True)([a * 0, b]).numpy()[0, 0] == 0


def masked(x, mask):
    x = Tensor(x)
    x.mask = None if mask is None else Tensor(np.array(mask, bool))
    return x


M, N = [[1, 1, 0], [0, 1, 1]], [[0, 1, 0], [1, 1, 1]]


def test_a_step_is_masked_out_where_all_inputs_mask_it_out():
    out = Add()([masked(A, M), masked(B, N)])
    np.testing.assert_array_equal(out.mask.numpy(), [[1, 1, 0], [1, 1, 1]])
    assert Add()([masked(A, M), masked(B, None)]).mask is None
    assert Add()([masked(A, None), masked(B, None)]).mask is None
    assert Dot(2)([masked(A, M), masked(B, N)]).mask is None


def test_a_masked_step_never_is_the_largest():
    a, b = (np.where(np.array(m, bool)[:, :, None], x, np.float32(100)) for x, m in ((A, M), (B, N)))
    out = Maximum()([masked(a, M), masked(b, N), masked(a, M)]).numpy()
    np.testing.assert_array_equal(out[0, 0], A[0, 0])
    np.testing.assert_array_equal(out[1, 0], B[1, 0])
    np.testing.assert_array_equal(out[:, 1], np.maximum(A, B)[:, 1])
    np.testing.assert_array_equal(Minimum()([masked(A, None), masked(-b, N)]).numpy()[0, 0], A[0, 0])


def test_concatenation_joins_masks_as_it_joins_steps():
    over_time = Concatenate(axis=1)([masked(A, M), masked(B, None)])
    np.testing.assert_array_equal(over_time.mask.numpy(), [[1, 1, 0, 1, 1, 1], [0, 1, 1, 1, 1, 1]])
    over_features = Concatenate()([masked(A, M), masked(B, N)])
    np.testing.assert_array_equal(over_features.mask.numpy(), [[1, 1, 0], [1, 1, 1]])


def test_unknown_lengths_stay_unknown():
    assert Add().compute_output_shape([(None, None, 4), (None, 3, 1)]) == (None, None, 4)
    assert Concatenate(1).compute_output_shape([(None, None, 4), (None, 3, 4)]) == (None, None, 4)
    assert Concatenate().compute_output_shape([(None, None, 4), (None, 3, 4)]) == (None, 3, 8)


@pytest.mark.parametrize(
    ("layer", "inputs", "message"),
    [
        (Add(name="m"), A, r"Add 'm': expected a list of inputs, got one of shape \(None, 3, 4\)"),
        (Add(name="m"), [A, B[:1]], "'m': expected batches of one size"),
        (Add(name="m"), [A, B[:, :2]], "'m': expected inputs that broadcast"),
        (Subtract(name="m"), [A, B, C], "Subtract 'm': expected two inputs, got 3"),
        (Concatenate(name="m"), [A, B[:, :2]], "'m': expected inputs with equal lengths except along axis -1"),
        (Concatenate(name="m"), [A, B[:, 0]], "'m': expected inputs of one number of dimensions"),
        (Dot((1, 2), name="m"), [A, B], "'m': expected equal lengths along the axes"),
        (Dot(3, name="m"), [A, B], "'m': expected inputs that have the axes"),
    ],
)
def test_errors_name_the_layer(layer, inputs, message):
    with pytest.raises(ValueError, match=message):
        layer(inputs)
    with pytest.raises(ValueError, match="axes must be one or two integers"):
        Dot(0)
