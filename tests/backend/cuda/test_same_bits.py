"""What is random is the same on every device, bit for bit: weights, masks and the order of samples."""

import numpy as np
import pytest

import dlgpu
from dlgpu import initializers
from dlgpu.cli import programs
from dlgpu.layers import Dropout, SpatialDropout1D, SpatialDropout2D
from dlgpu.ops.random import Generator
from tests.backend.cuda.test_random import ULPS

RANDOM = [
    *("GlorotUniform", "HeUniform", "LecunUniform", "RandomUniform", "Orthogonal"),
    *("GlorotNormal", "HeNormal", "LecunNormal", "RandomNormal", "TruncatedNormal"),
]


def on_each(make):
    """What `make` returns on the CPU and in the emulator, from the same seed."""
    made = []
    for device in ("cpu", "emulator"):
        with dlgpu.device(device):
            dlgpu.set_random_seed(11)
            made.append(make())
    return made


def same(make):
    here, there = on_each(make)
    assert here.dtype == there.dtype
    assert here.shape == there.shape
    assert here.tobytes() == there.tobytes()


@pytest.mark.parametrize("name", programs.PROGRAMS)
def test_initial_weights_of_every_program(name):
    data = programs.PROGRAMS[name].data()
    here, there = on_each(lambda: programs.compiled_model(name, data).get_weights())
    assert len(here) == len(there) > 3
    for a, b in zip(here, there):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1), (33, 31), (3, 3, 5, 1025)])
@pytest.mark.parametrize("name", RANDOM)
def test_weights_of_every_random_initializer(name, shape, dtype):
    same(lambda: getattr(initializers, name)()(shape, dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normals_agree_to_the_last_places(dtype):
    here, there = on_each(lambda: Generator(3).normal(70001, 1, 2, dtype))
    bound = ULPS * np.finfo(dtype).eps
    np.testing.assert_allclose(there, here, rtol=bound, atol=2 * bound)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rate", [0, 1e-12, 1e-3, 0.25, 0.5, 0.9, 1 - 1e-6])
def test_dropout_and_its_gradient(rate, dtype):
    def masks():
        x = dlgpu.Tensor(np.ones((33, 1025), dtype), requires_grad=True)
        y = dlgpu.ops.dropout(x, rate)
        y.sum().backward()
        return np.stack([y.numpy(), x.grad.numpy()])

    same(masks)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Dropout(0.3), (5, 7, 11)),
        (Dropout(0.3, noise_shape=(None, 1, None)), (5, 7, 11)),
        (SpatialDropout1D(0.4), (5, 7, 33)),
        (SpatialDropout2D(0.4), (5, 3, 4, 31)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_masks_of_layers(layer, shape):
    same(lambda: layer(np.ones(shape, "f"), training=True).numpy())


@pytest.mark.parametrize("n", [0, 1, 2, 33, 1024, 1025, 70001])
def test_shuffles_integers_bits_and_uniforms(n):
    for draw in [
        lambda: Generator(3).permutation(n, device=None),
        lambda: Generator(3).permutation(n),  # as fit shuffles
        lambda: Generator(3).integers(-7, 1000, n),
        lambda: Generator(3).bernoulli(n, 0.3),
        lambda: Generator(3).uniform(n, -1, 2),
        lambda: Generator(3).uniform(n, -1, 2, dtype="float64"),
    ]:
        same(draw)
