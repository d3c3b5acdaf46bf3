"""The random row: published bits, the same bits again, honest statistics, and dropout's derivative."""

import math

import numpy as np
import pytest

import dlgpu
from dlgpu.backend.devices import to_host
from dlgpu.backend.reference import random as kernels
from dlgpu.ops.random import Generator, default_generator, dropout
from dlgpu.tensor import Tensor
from dlgpu.testing import gradcheck

ALL_ONES = 2**128 - 1

# Random123's kat_vectors for philox4x32 10: counter and key as little-endian words, and the block.
KNOWN_ANSWERS = [
    (0, 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    (ALL_ONES, 2**64 - 1, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (0x0370734413198A2E85A308D3243F6A88, 0x299F31D0A4093822, "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def bits(count, seed, counter):
    out = np.empty(count, np.uint32)
    kernels.random_bits(out, seed, counter)
    return out


@pytest.mark.parametrize(("counter", "seed", "words"), KNOWN_ANSWERS)
def test_philox_gives_the_published_words(counter, seed, words):
    assert " ".join(f"{word:08x}" for word in bits(4, seed, counter)) == words


def test_words_do_not_depend_on_how_many_are_drawn_at_once():
    many = bits(4001, 7, 5)
    for first, count in [(0, 1), (0, 5), (1, 9), (40, 30)]:
        assert (bits(count, 7, 5 + first) == many[4 * first : 4 * first + count]).all()


def test_the_counter_wraps_within_its_low_half():
    assert (bits(8, 3, 2**64 - 1)[4:] == bits(4, 3, 0)).all()
    assert (bits(8, 3, ALL_ONES)[4:] == bits(4, 3, ALL_ONES - (2**64 - 1))).all()
    assert (bits(8, 3, 2**32 - 1)[4:] == bits(4, 3, 2**32)).all()


def draws(generator):
    found = [
        generator.uniform((3, 5)),
        generator.uniform((), -2, 5, dtype=np.float64),
        generator.normal(7, dtype=np.float32),
        generator.normal((2, 3), 1, 2, dtype=np.float64),
        generator.integers(10, shape=9),
        generator.bernoulli(9, 0.3),
        generator.permutation(11),
        dropout(np.ones((4, 3), np.float32), 0.5, generator).array,
    ]
    return [to_host(x) for x in found]


def test_the_same_state_gives_the_same_bits_and_never_the_same_twice():
    generator = Generator(42)
    first = draws(generator)
    middle = generator.state
    second = draws(generator)
    again = Generator(42)
    for a, b in zip(first + second, draws(again) + draws(again)):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    again.state = middle
    for a, b in zip(second, draws(again)):
        np.testing.assert_array_equal(a, b)
    assert all((a != b).any() for a, b in zip(first, second))


def test_one_draw_never_reuses_the_words_of_the_one_before():
    generator = Generator(1)
    for draw, words in [
        (lambda: generator.uniform(6), 6),
        (lambda: generator.uniform(6, dtype=np.float64), 12),
        (lambda: generator.normal(5), 6),
        (lambda: generator.normal(5, dtype=np.float64), 12),
        (lambda: generator.integers(9, shape=7), 14),
        (lambda: generator.permutation(9), 18),
        (lambda: generator.bernoulli(5), 5),
        (lambda: dropout(np.ones((3, 3), np.float32), 0.1, generator), 9),
    ]:
        before = generator.counter
        draw()
        assert generator.counter - before == -(-words // 4)


def test_set_random_seed_begins_anew():
    dlgpu.set_random_seed(5)
    first = to_host(default_generator().uniform(10))
    other = to_host(default_generator().uniform(10))
    dlgpu.set_random_seed(5)
    np.testing.assert_array_equal(to_host(default_generator().uniform(10)), first)
    assert (other != first).any()
    dlgpu.set_random_seed(6)
    assert (to_host(default_generator().uniform(10)) != first).any()


def test_generators_without_a_seed_differ():
    assert Generator().seed != Generator().seed


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_uniform_is_uniform(dtype):
    n = 100_000
    x = to_host(Generator(3).uniform((n // 4, 4), -1, 3, dtype=dtype))
    assert x.dtype == dtype
    assert x.min() >= -1
    assert x.max() < 3
    # five standard errors of each bin's count and of the mean
    counts = np.histogram(x, 20, (-1, 3))[0]
    assert np.abs(counts - n / 20).max() < 5 * math.sqrt(n / 20)
    assert abs(x.mean() - 1) < 5 * 4 / math.sqrt(12 * n)


def test_float32_uniforms_lie_on_the_grid_of_24_bits():
    x = to_host(Generator(3).uniform(1000)).astype(np.float64) * 2**24
    assert (x == np.round(x)).all()
    assert (x % 2 == 1).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normal_is_normal(dtype):
    n = 100_001
    x = to_host(Generator(4).normal(n, 2, 0.5, dtype=dtype))
    assert x.dtype == dtype
    z = (x.astype(np.float64) - 2) / 0.5
    for power, moment in enumerate([0, 1, 0, 3, 0, 15], start=1):
        spread = math.prod(range(1, 2 * power, 2)) - moment**2  # the variance of z**power
        assert abs((z**power).mean() - moment) < 5 * math.sqrt(spread / n)
    inside = (np.abs(z) < 1).mean()
    assert abs(inside - math.erf(math.sqrt(0.5))) < 5 * math.sqrt(0.25 / n)
    pairs = z[: n - 1].reshape(-1, 2)
    assert abs((pairs[:, 0] * pairs[:, 1]).mean()) < 5 / math.sqrt(n / 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("word", [0, 2**32 - 1])
def test_normals_of_extreme_words_are_finite(monkeypatch, word, dtype):
    monkeypatch.setattr(kernels, "philox_words", lambda xp, count, seed, counter: np.full(count, word, np.uint32))
    assert np.isfinite(Generator(0).normal(6, dtype=dtype)).all()


def test_integers_cover_their_range_evenly():
    n = 70_000
    x = to_host(Generator(5).integers(-3, 4, n))
    assert x.dtype == np.int64
    counts = np.unique(x, return_counts=True)
    assert counts[0].tolist() == list(range(-3, 4))
    assert np.abs(counts[1] - n / 7).max() < 5 * math.sqrt(n / 7)
    wide = to_host(Generator(5).integers(0, 2**32, 1000))
    assert wide.max() > 2**31 > wide.min() >= 0
    assert not Generator(1).integers(1, shape=5).any()


@pytest.mark.parametrize("probability", [0.0, 0.25, 1 - 2**-20, 1.0])
def test_bernoulli_is_true_as_often_as_said(probability):
    n = 100_000
    x = Generator(6).bernoulli(n, probability)
    assert x.dtype == bool
    error = abs(x.mean() - probability)
    assert error <= 5 * math.sqrt(probability * (1 - probability) / n)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 64, 1000])
def test_a_permutation_holds_each_number_once(n):
    x = Generator(7).permutation(n)
    assert x.dtype == np.int64
    assert sorted(x.tolist()) == list(range(n))


def test_permutations_are_equally_likely():
    generator, times = Generator(8), 6000
    counts: dict = {}
    for _ in range(times):
        order = tuple(generator.permutation(4).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert max(abs(c - times / 24) for c in counts.values()) < 5 * math.sqrt(times / 24)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_expectation(rate):
    n = 100_000
    y = dropout(np.ones((n // 10, 10), np.float32), rate, Generator(9)).numpy()
    assert y.dtype == np.float32
    kept = np.float32(1 / (1 - rate))
    assert set(np.unique(y)) == {np.float32(0), kept}
    assert abs((y == 0).mean() - rate) < 5 * math.sqrt(rate * (1 - rate) / n)


def test_the_mask_is_an_exact_comparison_of_integers():
    word = int(bits(1, 9, 0)[0])
    assert dropout(np.ones(1), word / 2**32, Generator(9)).numpy() > 0
    assert dropout(np.ones(1), (word + 1) / 2**32, Generator(9)).numpy() == 0
    assert not Generator(9).bernoulli(1, word / 2**32)
    assert Generator(9).bernoulli(1, (word + 1) / 2**32)


def test_dropout_at_the_ends_of_its_range():
    x = Tensor(np.ones((2, 3), np.float32), requires_grad=True)
    assert dropout(x, 0) is x
    y = dropout(x, 1.0)
    np.testing.assert_array_equal(y.numpy(), 0)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), 0)
    assert dropout(np.ones((0, 3), np.float32), 0.5).shape == (0, 3)


def test_the_gradient_of_dropout_has_the_mask_of_its_output():
    x = Tensor(np.ones((50, 20), np.float32), requires_grad=True)
    generator = Generator(10)
    y = dropout(x, 0.3, generator)
    dropout(x, 0.3, generator)  # another draw must not matter
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())


@pytest.mark.parametrize("noise_shape", [None, (None, 1, 2), (1, 3, 1)])
def test_dropout_derivatives(noise_shape):
    x = np.random.default_rng(0).normal(size=(4, 3, 2))[:, ::-1]
    gradcheck(lambda x: dropout(x, 0.4, Generator(11), noise_shape) ** 2, x)


def test_noise_shape_drops_together():
    y = dropout(np.ones((6, 5, 4), np.float32), 0.5, Generator(12), (None, 1, None)).numpy()
    assert (y == y[:, :1]).all()
    assert len(np.unique(y[:, 0], axis=0)) > 1


def test_float64_and_integers_through_dropout():
    assert dropout(np.ones(4), 0.5).dtype == np.float64
    assert dropout(np.ones(4, np.int64), 0.5).dtype == np.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Generator(-1), "seed"),
        (lambda: dlgpu.set_random_seed(2**64), "seed"),
        (lambda: dropout(np.ones(3), 1.5), "rate in .* got 1.5"),
        (lambda: dropout(np.ones((2, 3)), 0.5, noise_shape=(2,)), r"noise_shape \(2,\) does not fit .* \(2, 3\)"),
        (lambda: dropout(np.ones((2, 3)), 0.5, noise_shape=(2, 2)), "noise_shape"),
        (lambda: Generator(0).integers(3, 3), "range"),
        (lambda: Generator(0).integers(2**33), "range"),
        (lambda: Generator(0).bernoulli(3, -0.1), "probability"),
    ],
)
def test_nonsense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
