"""The random kernels against their reference: the same bits, wherever a draw begins and ends."""

import numpy as np
import pytest

from dlgpu.backend.dispatch import registry
from tests.backend.column import on_device, tried
from tests.backend.comparison import FLOATS

SIZES = [0, 1, 3, 31, 32, 33, 1025, 300001]
# counters about to wrap, and to carry into the words of the counter
STATES = [(0, 0), (2**64 - 1, 2**64 - 3), (2**63 + 5, 2**128 - 1), (12345, (7 << 64) + 2**32 - 2)]


def drawn(name, out, *args):
    """What the column's kernel and its reference make of `out`."""
    found, wanted = out.copy(), out.copy()
    tried(name, out)
    on_device(registry[name], found, *args)
    registry[name].reference(wanted, *args)
    return found, wanted


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("size", SIZES)
def test_bits_are_those_of_the_reference(size, state):
    for name, out, *args in [
        ("random_bits", np.zeros(size, np.uint32)),
        ("random_uniform", np.zeros(size, "f"), -0.3, 0.7),
        ("random_uniform", np.zeros(size, "d"), -0.3, 0.7),
        ("random_integers", np.zeros(size, np.int64), -5, 2**32 - 5),
        ("random_bernoulli", np.zeros(size, bool), 0.3),
        ("random_permutation", np.zeros(size, np.int64)),
    ]:
        np.testing.assert_array_equal(*drawn(name, out, *args, *state), err_msg=name)


def test_the_generator_is_philox_4x32_10():
    words = np.zeros(4, np.uint32)  # the published answers for all ones, and for digits of pi
    on_device(registry["random_bits"], words, 2**64 - 1, 2**128 - 1)
    assert [f"{w:08x}" for w in words] == ["408f276d", "41c83b0e", "a20bc7c6", "6d5451fd"]
    counter = 0x0370734413198A2E85A308D3243F6A88
    on_device(registry["random_bits"], words, 0x299F31D0A4093822, counter)
    assert [f"{w:08x}" for w in words] == ["d16cfe09", "94fdcceb", "5001e420", "24126ea1"]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_integers_of_every_width(dtype):
    limits = np.iinfo(dtype)
    low = max(int(limits.min), -(2**31))
    high = low + min(int(limits.max) - low, 2**32)
    np.testing.assert_array_equal(*drawn("random_integers", np.zeros(77, dtype), low, high, 1, 2))
    with pytest.raises(OverflowError):
        drawn("random_integers", np.zeros(7, dtype), int(limits.max) + 1, int(limits.max) + 2, 1, 2)


@pytest.mark.parametrize("probability", [0.0, 1e-12, 0.5, 1 - 1e-12])
def test_probabilities_at_the_edges(probability):
    np.testing.assert_array_equal(*drawn("random_bernoulli", np.zeros((9, 77), bool), probability, 5, 6))


@pytest.mark.parametrize("place", range(4))
def test_a_word_at_the_threshold_is_not_below_it(place):
    probability = int(drawn("random_bits", np.zeros(4, np.uint32), 5, 6)[1][place]) / 2**32
    found, wanted = drawn("random_bernoulli", np.zeros(4, bool), probability, 5, 6)
    np.testing.assert_array_equal(found, wanted)
    assert not found[place]
    kept = on_device(registry["dropout"], np.ones(4, "f"), probability, 5, 6, (4,))
    np.testing.assert_array_equal(kept == 0, found)


def test_scalars_and_unaligned_memory_are_filled():
    np.testing.assert_array_equal(*drawn("random_uniform", np.zeros((), "f"), 0.0, 1.0, 7, 8))
    np.testing.assert_array_equal(*drawn("random_permutation", np.zeros(33, np.int32), 7, 8))
    for start in range(4):
        whole = np.zeros(50, np.uint32)
        on_device(lambda whole, at: registry["random_bits"](whole[at:47], 7, 8), whole, start)
        np.testing.assert_array_equal(whole[start:47], drawn("random_bits", np.zeros(47 - start, np.uint32), 7, 8)[1])
        assert not whole[:start].any()
        assert not whole[47:].any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_uniforms_are_float32_rounded(dtype):
    wide, narrow = np.zeros(1000, "f"), np.zeros(1000, dtype)
    tried("random_uniform", narrow)
    for out in wide, narrow:
        on_device(registry["random_uniform"], out, 0.0, 1.0, 7, 8)
    np.testing.assert_array_equal(narrow, wide.astype(dtype))


DROPPED = [(0, 3), (1,), (), (3, 11), (3, 31), (2, 32), (5, 33), (3, 1025), (1025, 3), (70001,), (300001,)]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", DROPPED)
def test_dropout_is_that_of_the_reference(shape, dtype, rng):
    x = np.array(rng.standard_normal(shape), dtype)
    if x.size > 20:
        x.flat[:8] = np.nan
        x.flat[8:20] = np.array([-np.inf, np.inf, -0.0], dtype).repeat(4)
        x.flat[20:26] = np.array([3e4, -2e-7], dtype).repeat(3)
    tried("dropout", x)
    for rate in (0.3, 0.0, 1 - 1e-3):
        for state in STATES:
            with np.errstate(all="ignore"):
                wanted = registry["dropout"].reference(x, rate, *state, shape)
                found = on_device(registry["dropout"], x, rate, *state, shape)
            assert found.dtype == wanted.dtype
            found, wanted = found.astype("d"), wanted.astype("d")
            np.testing.assert_array_equal(found, wanted)
            np.testing.assert_array_equal(np.signbit(found[found == 0]), np.signbit(wanted[wanted == 0]))


@pytest.mark.parametrize("mask_shape", [(1, 5, 1), (3, 1, 33), (5, 1), (1, 1, 1), (3, 5, 33)])
def test_masks_broadcast_and_inputs_need_not_be_contiguous(mask_shape, rng):
    for x in (rng.standard_normal((3, 5, 33)), rng.standard_normal((33, 10, 3)).T[:, ::2]):
        x = x.astype("f", order="K")
        tried("dropout", x)
        found = on_device(registry["dropout"], x, 0.4, 1, 2, mask_shape)
        np.testing.assert_array_equal(found, registry["dropout"].reference(x, 0.4, 1, 2, mask_shape))
