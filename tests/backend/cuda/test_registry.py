"""Every kernel of the CUDA column is compared with its reference in every way that could break it."""

import functools
from pathlib import Path

import pytest

import dlgpu
from dlgpu.backend.dispatch import registry
from tests.backend.comparison import FLOATS
from tests.backend.cuda.hostile import seen

dlgpu.device("emulator")  # registers the column
KERNELS = {name: kernel for name, kernel in registry.items() if "cuda" in kernel.columns}
SIZES = {"0 rows", "1 row", *(f"{n} columns" for n in (1, 31, 32, 33, 1025)), "more rows than a grid has"}
ATTACKS = {*SIZES, *FLOATS, "not contiguous", "NaN", "large values", "tiny values"}

# what a kernel has no place for: one that fills an array reads none
FILLS = {"not contiguous", "NaN", "large values", "tiny values"}
BITS = ["random_bits", "random_integers", "random_bernoulli", "random_permutation"]
EXEMPT = dict.fromkeys(BITS, FILLS | set(FLOATS)) | dict.fromkeys(["random_uniform", "random_normal"], FILLS)
EXEMPT["count_each"] = {*FLOATS, "NaN", "large values", "tiny values"}  # it takes integers
EXEMPT["adjust_scale"] = ATTACKS  # it has four numbers
EXEMPT["add_scaled"] = EXEMPT["spread"] = SIZES | {"not contiguous", "large values", "tiny values"}  # they have one
EXEMPT["add_binary_matches"] = {"0 rows"}  # which have no share


@functools.cache
def run_tests_of(row):
    """What compares a domain's kernels, once, where this file is run without the others."""
    pytest.main([str(Path(__file__).with_name(file)) for file in (f"test_{row}.py", "test_extremes.py")])


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_every_kernel_is_attacked_in_every_way(name):
    wanted = ATTACKS - EXEMPT.get(name, set())
    if not wanted <= seen[name]:
        run_tests_of(KERNELS[name].reference.__module__.rpartition(".")[2])
    assert seen[name] >= wanted, f"not tried: {sorted(wanted - seen[name])}"
