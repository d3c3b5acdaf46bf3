"""Every kernel compiles for the GPUs that are supported, with NVRTC, which needs none of them.

Each file is compiled for every type and architecture with its default macros, and once with each value that the column
gives to a macro. What was compiled is kept beside the emulator's libraries, by its content.
"""

import itertools
import json

import pytest

from benchmarks import resources
from benchmarks.resources import ARCHITECTURES, FILES, all_compiled, compiled, variants
from dlgpu.backend.cuda import tensor_cores
from dlgpu.backend.cuda.source import STORAGE, Source, for_nvrtc, headers_hash, source
from dlgpu.backend.emulator.compiler import KernelError

KERNEL = """extern "C" __global__ void swish(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[i] / (1 + expf(-x[i]));
}"""


@pytest.mark.parametrize("filename", FILES)
def test_each_file_compiles_everywhere_without_warnings_and_spills(filename):
    modules = [(*pair, ()) for pair in itertools.product(STORAGE, ARCHITECTURES)]
    modules += [(dtype, "sm_90", extra) for dtype in STORAGE for extra in variants(filename, dtype)[1:]]
    ways = [(source(filename), (*STORAGE[dtype], *extra), architecture) for dtype, architecture, extra in modules]
    for (dtype, architecture, extra), found in zip(modules, all_compiled(ways)):
        assert found.keys() == source(filename).kernels.keys(), (dtype, architecture, extra)
        spilling = {name: r for name, r in found.items() if r.spilled}
        assert not spilling, (dtype, architecture, extra)


@pytest.mark.parametrize("tile", tensor_cores.TILES, ids=str)
def test_every_tile_of_tensor_cores_compiles_without_spills(tile):
    """With long words everywhere; the smallest tile with each mixture of long and short ones, too."""
    words = list(itertools.product((True, False), repeat=2))
    ways = []
    for dtype, architecture in itertools.product(("float32", "bfloat16"), ("sm_80", "sm_90", "sm_100", "sm_120")):
        short = 4 if dtype == "float32" else 2
        for long in words if (architecture, tile) == ("sm_90", tensor_cores.TILES[-1]) else words[:1]:
            defines = tensor_cores.defines(tile, "linear", tuple(16 if each else short for each in long))
            ways.append((source(tensor_cores.FILE), (*STORAGE[dtype], *defines), architecture))
    for (_, *way), found in zip(ways, all_compiled(ways)):
        spilling = {name: r for name, r in found.items() if r.spilled or r.stack or r.registers < 32}
        assert not spilling, way


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("x[i] /", "z[i] /", r'swish.cu\(3\): error: identifier "z" is undefined'),
        (
            "int n) {",
            "int n) { int unused;",
            r'swish.cu\(1\): warning #177-D: variable "unused" was declared but never',
        ),
    ],
)
def test_errors_and_warnings_name_the_kernels_own_line(right, wrong, message):
    assert compiled(Source(KERNEL, "swish.cu"), (), "sm_90").keys() == {"swish"}
    with pytest.raises(KernelError, match=message):
        compiled(Source(KERNEL.replace(right, wrong), "swish.cu"), (), "sm_90")


def test_the_committed_report_is_of_these_kernels_and_nothing_spills():
    found, committed = resources.report(), json.loads(resources.RESULTS.read_text())
    print(resources.written(found))
    assert {name: ways for name, ways in found["kernels"].items() if any(r[2] for r in ways.values())} == {}
    anew = "python -m benchmarks.resources --write"
    assert committed["kernels"].keys() == found["kernels"].keys(), anew
    if committed["nvrtc"] == found["nvrtc"]:  # another one gives other registers
        assert committed == found, anew


def test_the_report_has_all_ways_in_which_a_kernel_differs(monkeypatch):
    monkeypatch.setattr(resources, "FILES", ["linear.cu", "counting.cu"])
    kernels = json.loads(resources.written(resources.report()))["kernels"]
    assert kernels["counting.cu count_each"].keys() == {"any"}
    assert {*STORAGE, "EACH=1", "EACH=4", "ACTIVATION=gelu"} <= kernels["linear.cu product"].keys()
    assert kernels["linear.cu product"]["float32"] == kernels["linear.cu product"]["EACH=4"]  # the default
    assert kernels["linear.cu product"]["float64"][1] == 2 * kernels["linear.cu product"]["float32"][1]


def test_a_kernel_that_spills_is_seen():
    code = """extern "C" __global__ void __launch_bounds__(1024, 2) many(float* x, int n) {
        float v[64];
        for (int i = 0; i < 64; i++) v[i] = x[i * 1024 + threadIdx.x];
        for (int k = 0; k < n; k++) {
            #pragma unroll
            for (int i = 0; i < 64; i++) v[i] = v[i] * v[(i * 7 + 1) % 64] + k;
        }
        for (int i = 0; i < 64; i++) x[i * 1024 + threadIdx.x] = v[i];
    }"""
    assert compiled(Source(code, "many.cu"), (), "sm_90")["many"].spilled > 0


def test_a_changed_header_makes_another_module(tmp_path, monkeypatch):
    """CuPy's cache on disk goes by source and options, and does not look into headers."""
    (tmp_path / "common.cuh").write_text("// one")
    monkeypatch.setattr("dlgpu.backend.cuda.source.FOLDER", tmp_path)
    before = for_nvrtc(source("softmax.cu"), ())
    (tmp_path / "common.cuh").write_text("// another")
    headers_hash.cache_clear()
    assert for_nvrtc(source("softmax.cu"), ()) != before
