"""The optimizer steps: their launches, sums in blocks of all sizes, and 16 bits."""

import numpy as np
import pytest

import dlgpu
from dlgpu import optimizers
from dlgpu.backend.cuda.source import Source, source
from dlgpu.backend.cuda.update import AT_ONCE
from dlgpu.parameters import Parameter, flatten
from tests.backend.column import agree, on_device
from tests.backend.comparison import FLOATS
from tests.backend.rows.update import *
from tests.backend.rows.update import (
    test_each_segment_is_clipped_by_its_own_norm_and_the_gaps_stay,
    test_other_dtypes,
    values,
)

SHAPES = [(3, 5), (), (0, 4), (70001,), (33, 7), (1, 1), (1025,), (1, 31), (32,), (33,)]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bits(dtype, rng):
    test_other_dtypes(dtype, rng)
    test_each_segment_is_clipped_by_its_own_norm_and_the_gaps_stay(dtype, rng)


def test_a_block_sums_up_no_more_warps_than_it_has():
    def summed(x, total, threads):
        source("update.cu").launch("square_norm", 1, threads, (x, total, x.size), dtype="float32")

    for threads in 1024, 256, 32:  # what a larger block left in shared memory is still there
        total = np.zeros(1)
        on_device(summed, np.ones(2000, "f"), total, threads)
        assert total[0] == 2000


@pytest.mark.parametrize(
    ("make", "launches"),
    [
        (lambda: optimizers.SGD(0.5, 0.9, weight_decay=0.1), 1),
        (lambda: optimizers.RMSprop(0.01, weight_decay=0.1), 1),
        (lambda: optimizers.Adagrad(optimizers.schedules.ExponentialDecay(0.5, 2, 0.5)), 1),
        (lambda: optimizers.AdamW(0.01), 1),
        (lambda: optimizers.Nadam(optimizers.schedules.ExponentialDecay(0.01, 2, 0.5), global_clipnorm=0.5), 4),
        (lambda: optimizers.Adam(0.01, clipnorm=0.5), 3),
    ],
)
def test_launches_that_were_recorded_once_can_be_replayed(make, launches, rng, monkeypatch):
    """As a CUDA graph does it: between replays the host only prepares the step, and gradients come into their place."""
    shapes, taken = [(33, 5), (), (300,)], []
    starts = [values(rng, shape, edges=False) for shape in shapes]
    gradients = [[values(rng, shape, edges=False) for shape in shapes] for _ in range(7)]
    launch = Source.launch

    def trained(replay):
        optimizer, ps = make(), [Parameter(x.copy(), "w") for x in starts]
        flats = flatten(ps)
        for step, given in enumerate(gradients):
            if step == 5 and isinstance(make()._learning_rate, float):
                optimizer.learning_rate = 0.003
            flats[0].set_gradients([dlgpu.Tensor(g) for g in given])
            if not replay or step < 2:
                taken.clear()
                optimizer.apply(flats)
            else:
                optimizer.prepare(flats)
                for call, options in tuple(taken):
                    launch(*call, **options)
        return [p.numpy() for p in ps]

    def recorded(*args, **options):
        taken.append((args, options))
        launch(*args, **options)

    monkeypatch.setattr(Source, "launch", recorded)
    with dlgpu.device("emulator"):
        for a, b in zip(trained(replay=True), trained(replay=False)):
            np.testing.assert_array_equal(a, b)
    assert len(taken) == launches


@pytest.mark.parametrize("count", [1, AT_ONCE, len(SHAPES)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_each_gradient_comes_to_its_place_and_what_is_missing_is_zero(count, dtype, rng):
    given = [values(rng, shape, dtype) for shape in SHAPES[:count]]
    given[-1] = None
    if count > 1:
        given[0] = rng.standard_normal((5, 3)).astype("d").T  # neither contiguous nor of the dtype
        given[4].flat[:3] = np.array([np.nan, 3e4, 1e-7], dtype)
    agree("collect", np.zeros(1, dtype), tuple(np.full(shape, 7, dtype) for shape in SHAPES[:count]), tuple(given))
