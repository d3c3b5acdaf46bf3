"""Initializers and regularizers: all of Keras's names, and its numbers where they are not random."""

import keras
import numpy as np
import pytest
import torch

import dlgpu
from dlgpu import Tensor, initializers, regularizers


@pytest.mark.parametrize("package", ["activations", "initializers", "regularizers"])
def test_every_name_of_keras_is_there(package):
    names = {n for n, v in vars(getattr(keras, package)).items() if callable(v) and not n.startswith("_")}
    assert names - {"serialize", "deserialize"} <= vars(getattr(dlgpu, package)).keys()


@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    [
        ("Constant", {"value": 0.3}, (2, 3)),
        ("Identity", {"gain": 2.0}, (4, 4)),
        ("Ones", {}, (3,)),
        ("Zeros", {}, (3, 1, 2)),
        # windows by name would need SciPy in Keras
        ("STFT", {"window": np.hanning(8)}, (8, 1, 9)),
        ("STFT", {"window": np.hamming(7), "side": "imag", "scaling": "spectrum"}, (7, 1, 5)),
        ("STFT", {"window": np.arange(1.0, 7.0), "scaling": None}, (6, 1, 4)),
        ("STFT", {"window": None}, (5, 1, 4)),
    ],
)
def test_fixed_values_are_kerass(name, arguments, shape):
    ours = getattr(initializers, name)(**arguments)(shape)
    theirs = keras.ops.convert_to_numpy(getattr(keras.initializers, name)(**arguments)(shape))
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6 * abs(theirs).max())


@pytest.mark.parametrize(
    "name",
    ["RandomNormal", "RandomUniform", "TruncatedNormal", "VarianceScaling", "GlorotNormal", "GlorotUniform"]
    + ["HeNormal", "HeUniform", "LecunNormal", "LecunUniform", "Orthogonal"],
)
def test_random_values_spread_as_kerass(name):
    shape = (3, 3, 40, 60)
    ours = getattr(initializers, name)(seed=1)(shape)
    theirs = keras.ops.convert_to_numpy(getattr(keras.initializers, name)(seed=1)(shape))
    assert abs(ours.mean() - theirs.mean()) < 6 * theirs.std() / np.sqrt(theirs.size)
    assert ours.std() == pytest.approx(theirs.std(), rel=0.03)
    assert abs(ours).max() == pytest.approx(abs(theirs).max(), rel=0.25)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("L1", {"l1": 0.1}),
        ("L2", {"l2": 0.1}),
        ("L1L2", {"l1": 0.1, "l2": 0.3}),
        ("OrthogonalRegularizer", {"factor": 0.5, "mode": "columns"}),
        ("OrthogonalRegularizer", {}),
    ],
)
def test_penalties_and_their_gradients_are_kerass(name, arguments, rng):
    weight = rng.normal(size=(5, 4)).astype(np.float32)
    ours, theirs = Tensor(weight, requires_grad=True), torch.tensor(weight, requires_grad=True)
    mine = getattr(regularizers, name)(**arguments)(ours)
    other = getattr(keras.regularizers, name)(**arguments)(theirs)
    mine.backward()
    other.backward()
    np.testing.assert_allclose(mine.item(), other.item(), rtol=1e-5)
    expected = theirs.grad.numpy()
    np.testing.assert_allclose(ours.grad.numpy(), expected, rtol=1e-5, atol=1e-6 * abs(expected).max())
