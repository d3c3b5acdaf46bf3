"""Initializers: their distributions, their fans, their seeds."""

import json
import math

import numpy as np
import pytest

import dlgpu
from dlgpu import initializers
from dlgpu.initializers import (
    Constant,
    GlorotNormal,
    GlorotUniform,
    HeNormal,
    HeUniform,
    Identity,
    Initializer,
    LecunNormal,
    LecunUniform,
    Ones,
    Orthogonal,
    RandomNormal,
    RandomUniform,
    TruncatedNormal,
    VarianceScaling,
    Zeros,
)
from dlgpu.layers import Dense
from dlgpu.saving.configurable import deserialize, serialize

SHAPE = (3, 2, 40, 60)  # a kernel of 3 x 2, 40 channels to 60
N = math.prod(SHAPE)
FAN_IN, FAN_OUT = 240, 360

# (initializer, expected standard deviation, largest absolute value allowed)
RANDOM = [
    (RandomUniform(), 0.05 / math.sqrt(3), 0.05),
    (RandomUniform(-3, 3), math.sqrt(3), 3),
    (RandomNormal(), 0.05, math.inf),
    (RandomNormal(stddev=2.0), 2.0, math.inf),
    (TruncatedNormal(), 0.05 * 0.8796256610342398, 0.1),
    (VarianceScaling(), math.sqrt(1 / FAN_IN), 2 / 0.8796 * math.sqrt(1 / FAN_IN)),
    (VarianceScaling(3.0, "fan_out", "untruncated_normal"), math.sqrt(3 / FAN_OUT), math.inf),
    (VarianceScaling(2.0, "fan_avg", "uniform"), math.sqrt(2 / 300), math.sqrt(6 / 300)),
    (VarianceScaling(1.0, "fan_in", "normal", None, (0,), (1,)), math.sqrt(1 / 3), 2 / 0.8796 * math.sqrt(1 / 3)),
    (GlorotUniform(), math.sqrt(1 / 300), math.sqrt(3 / 300)),
    (GlorotNormal(), math.sqrt(1 / 300), 2 / 0.8796 * math.sqrt(1 / 300)),
    (HeUniform(), math.sqrt(2 / FAN_IN), math.sqrt(6 / FAN_IN)),
    (HeNormal(), math.sqrt(2 / FAN_IN), 2 / 0.8796 * math.sqrt(2 / FAN_IN)),
    (LecunUniform(), math.sqrt(1 / FAN_IN), math.sqrt(3 / FAN_IN)),
    (LecunNormal(), math.sqrt(1 / FAN_IN), 2 / 0.8796 * math.sqrt(1 / FAN_IN)),
]


@pytest.mark.parametrize(("initializer", "stddev", "limit"), RANDOM)
def test_random_weights_have_the_said_spread(initializer, stddev, limit):
    weights = initializer(SHAPE).astype(np.float64)
    assert weights.shape == SHAPE
    assert np.abs(weights).max() <= limit * (1 + 1e-4)
    # five standard errors, with the fourth moment of a normal distribution, the largest of these
    assert abs(weights.mean()) < 5 * stddev / math.sqrt(N)
    assert abs(weights.var() / stddev**2 - 1) < 5 * math.sqrt(2 / N)
    if limit < math.inf:
        assert np.abs(weights).max() > 0.99 * limit


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", ["glorot_uniform", "he_normal", "random_normal", "orthogonal", "zeros", "constant"])
def test_weights_have_the_dtype_asked_for(name, dtype):
    assert initializers.get(name)((3, 4), dtype).dtype == dtype
    assert initializers.get(name)((3, 4)).dtype == np.float32


@pytest.mark.parametrize("make", [RandomUniform, RandomNormal, TruncatedNormal, VarianceScaling, HeNormal, Orthogonal])
def test_the_same_seed_gives_the_same_bits(make):
    np.testing.assert_array_equal(make(seed=3)((5, 4)), make(seed=3)((5, 4)))
    own = make(seed=3)
    np.testing.assert_array_equal(own((5, 4)), own((5, 4)))
    assert (make(seed=4)((5, 4)) != own((5, 4))).any()

    dlgpu.set_random_seed(7)
    shared = make()
    first, second = shared((5, 4)), shared((5, 4))
    assert (first != second).any()
    dlgpu.set_random_seed(7)
    np.testing.assert_array_equal(make()((5, 4)), first)


def test_fans():
    assert initializers.fans(()) == (1, 1)
    assert initializers.fans((7,)) == (7, 7)
    assert initializers.fans((3, 5)) == (3, 5)
    assert initializers.fans((2, 3, 5)) == (6, 10)
    assert initializers.fans((4, 2, 3, 5)) == (24, 40)
    assert initializers.fans((2, 3, 5, 7), (0, 1), (2,)) == (6, 5)


def test_truncated_normals_are_normal_between_their_limits():
    weights = TruncatedNormal(1.0, 2.0)((N,)).astype(np.float64)
    z = (weights - 1) / 2
    inside = (np.abs(z) < 1).mean()
    expected = math.erf(math.sqrt(0.5)) / math.erf(math.sqrt(2))
    assert abs(inside - expected) < 5 * math.sqrt(expected * (1 - expected) / N)


@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (3, 7), (2, 3, 4), (1, 1), (2, 2, 3, 20)])
def test_orthogonal_matrices_are_orthogonal(shape):
    weights = Orthogonal(2.0)(shape, np.float64).reshape(-1, shape[-1])
    small = weights.T @ weights if weights.shape[0] >= weights.shape[1] else weights @ weights.T
    np.testing.assert_allclose(small, 4 * np.eye(len(small)), atol=1e-13)


def test_orthogonal_matrices_are_not_biased_by_the_factorization():
    corners = [Orthogonal(seed=seed)((2, 2))[0, 0] for seed in range(400)]
    assert abs(np.mean(corners)) < 5 * math.sqrt(0.5 / 400)


def test_constants():
    np.testing.assert_array_equal(Zeros()((2, 3)), np.zeros((2, 3)))
    np.testing.assert_array_equal(Ones()((2,)), [1, 1])
    np.testing.assert_array_equal(Constant(2.5)((2,)), [2.5, 2.5])
    np.testing.assert_array_equal(Identity(3.0)((2, 3)), [[3, 0, 0], [0, 3, 0]])
    stft = initializers.STFT(window="hann", scaling=None, periodic=True)((4, 1, 3))
    np.testing.assert_allclose(stft[:, 0], [[0, 0, 0], [0.5, 0, -0.5], [1, -1, 1], [0.5, 0, -0.5]], atol=1e-7)
    table = np.arange(6).reshape(2, 3)
    weights = initializers.get(table)((2, 3))
    np.testing.assert_array_equal(weights, table)
    weights[0, 0] = 9  # a copy, and writable
    assert table[0, 0] == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("glorot_uniform", GlorotUniform),
        ("GlorotUniform", GlorotUniform),
        ("he_normal", HeNormal),
        ("zeros", Zeros),
        ("ones", Ones),
        ("normal", RandomNormal),
        ("uniform", RandomUniform),
        ("truncated_normal", TruncatedNormal),
        ("identity", Identity),
        ("orthogonal", Orthogonal),
        ("stft", initializers.STFT),
        ("STFTInitializer", initializers.stft),
        (Ones, Ones),
    ],
)
def test_initializers_go_by_keras_names(name, expected):
    assert type(initializers.get(name)) is expected


def test_a_function_is_an_initializer():
    layer = Dense(2, kernel_initializer=lambda shape, dtype: np.full(shape, 4, dtype))
    layer(np.ones((1, 3), np.float32))
    np.testing.assert_array_equal(layer.kernel.numpy(), np.full((3, 2), 4))


@pytest.mark.parametrize("initializer", [initializer for initializer, *_ in RANDOM] + [Constant([1.0, 2.0])])
def test_an_initializer_is_described_as_json_and_built_again(initializer):
    again = deserialize(json.loads(json.dumps(serialize(initializer))))
    dlgpu.set_random_seed(0)
    first = again((3, 2))
    dlgpu.set_random_seed(0)
    np.testing.assert_array_equal(initializer((3, 2)), first)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: initializers.get("glorot_unifrom"), "Did you mean 'glorot_uniform'"),
        (lambda: VarianceScaling(0), "VarianceScaling: scale must be positive, got 0"),
        (lambda: VarianceScaling(mode="fan"), "mode must be .* got 'fan'"),
        (lambda: VarianceScaling(distribution="gauss"), "distribution must be .* got 'gauss'"),
        (lambda: Identity()((2, 2, 2)), r"Identity: expected the shape of a matrix, got \(2, 2, 2\)"),
        (lambda: Orthogonal()((2,)), r"Orthogonal: .* got \(2,\)"),
        (lambda: Constant(np.ones(3))((2, 2)), r"Constant: values of shape \(3,\) do not fit .* \(2, 2\)"),
        (lambda: HeNormal(seed=-1)((2, 2)), "seed"),
        (lambda: initializers.STFT("left"), "STFT: side must be one of 'real', 'imag', got 'left'"),
        (lambda: initializers.STFT(window="han"), "STFT: window must be one of .* got 'han'"),
        (lambda: initializers.STFT()((4, 3)), r"STFT: expected a shape .* got \(4, 3\)"),
        (lambda: initializers.STFT(window=[1, 2])((3, 1, 2)), r"expected a window of shape \(3,\), got \(2,\)"),
    ],
)
def test_nonsense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_initializer_without_a_rule_says_so():
    class Unruly(Initializer):
        pass

    with pytest.raises(NotImplementedError, match="Unruly"):
        Unruly()((1,))
