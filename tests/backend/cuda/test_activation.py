"""The activation kernels, also on a grid that is too small for their elements."""

import dlgpu
from dlgpu.backend.cuda import geometry
from dlgpu.backend.reference.activation import bias_activation
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


def test_what_may_be_overwritten_is(rng):
    agree("bias_activation", rng.standard_normal((3, 5)).astype("f"), None, "relu", overwrite=False)
    x = rng.standard_normal((3, 5)).astype("f")
    with dlgpu.device("emulator"):
        output, _ = bias_activation(x, None, "relu", overwrite=True)
    assert output is x
