"""Every kernel in kernels/ through NVRTC, NVIDIA's compiler at run time, which needs no GPU.

    python -m benchmarks.resources --arch sm_90 --dtype float32
    python -m benchmarks.resources --write                            benchmarks/results/resources.json, for sm_90

prints what each kernel takes of a multiprocessor: registers a thread, static shared memory a block, bytes that a thread
spills from registers to memory, and the share of the multiprocessor's threads that its registers suffice for.

The file has, for each kernel, [registers, shared, spilled] by what it was compiled with: each type, and with float32
each value of each macro; under "any" if that makes no difference. NVRTC's version, on which it depends, is in it.
"""

import argparse
import functools
import hashlib
import inspect
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from dlgpu.backend.cuda import graph, persistence, pooling, random, tensor_cores
from dlgpu.backend.cuda.source import FOLDER, STORAGE, Source, for_nvrtc, source
from dlgpu.backend.emulator.compiler import KernelError, cache_folder
from dlgpu.backend.reference.activation import NAMES

ARCHITECTURES = {
    "sm_75": 1024,
    "sm_80": 2048,
    "sm_90": 2048,
    "sm_100": 2048,
    "sm_120": 1536,
}  # threads a multiprocessor
REGISTERS = 1 << 16  # of a multiprocessor
FILES = sorted(path.name for path in FOLDER.glob("*.cu"))
RESULTS = Path(__file__).parent / "results" / "resources.json"
REPORTED = "sm_90"
CUPY_ADDS = ("-ftz=true", "--device-as-default-execution-space")
# What the CUDA column may define beside STORAGE, by macro; the values of SHAPE are `persistence.shapes`.
VALUES = {
    "ACTIVATION": NAMES,
    "EACH": ("1", "2", "4"),
    "INDEX": tuple(pooling.INDEX_NAMES.values()),
    "INTEGER": tuple(dict.fromkeys(random.C_NAMES[f"{kind}{8 << n}"] for kind in ("int", "uint") for n in range(4))),
    "LEFT_WORD": ("4", "16"),
    "RIGHT_WORD": ("4", "16"),
    "SLOPE": NAMES,
    "TILE": tuple(map(str, tensor_cores.TILES)),
    "WORD": tuple(graph.WORDS.values()),
}


@dataclass(frozen=True)
class Resources:
    """What one kernel takes: registers a thread, static shared memory a block, stack and spills in bytes a thread."""

    registers: int
    shared: int
    stack: int
    spilled: int

    def occupancy(self, architecture: str) -> float:
        """The share of a multiprocessor's threads that its registers suffice for; they are given by eights."""
        threads = ARCHITECTURES[architecture]
        warps = REGISTERS // (-(-max(self.registers, 1) // 8) * 8 * 32)
        return min(threads, warps * 32) / threads


def variants(filename: str, dtype: str = "float32") -> list[tuple[str, ...]]:
    """The extra definitions that the column may give to a file: none, and each value of each macro that it asks for.

    With the macro SHAPE registers are scarce, and more so in float64; the others are tried with float32 alone.
    """
    macros = [m for m in re.findall(r"^#ifndef (\w+)", source(filename).text, re.MULTILINE) if m != "STORAGE"]
    values = VALUES | {"SHAPE": persistence.shapes({"float64": 8, "float32": 4}.get(dtype, 2))}
    return [(), *((f"{m}={v}",) for m in macros if m == "SHAPE" or dtype == "float32" for v in values[m])]


def compiled(code: Source, defines: Sequence[str], architecture: str) -> dict[str, Resources]:
    """Compile with the launcher's own options, and with warnings as errors.

    Args:
        code: the source.
        defines: as for `Source.launch`, with those of STORAGE.
        architecture: such as "sm_90".
    Returns:
        what each kernel takes; kept on disk by the content of all that it is made from, this code too.
    Raises:
        KernelError: NVRTC's message.
    """
    text, options = for_nvrtc(code, defines)
    options += (*CUPY_ADDS, f"-arch={architecture}", "-Xptxas=-v")
    reading = inspect.getsource(_compile), inspect.getsource(_resources)
    key = hashlib.sha256("\0".join((text, *options, _version(), *reading)).encode()).hexdigest()[:32]
    path = cache_folder() / "nvrtc" / f"{key}.json"
    if not path.exists():
        found = _resources(_compile(text, (*options, f"-I{_headers()}")))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({kernel: asdict(r) for kernel, r in found.items()}))
    return {kernel: Resources(**r) for kernel, r in json.loads(path.read_text()).items()}


def all_compiled(modules: Sequence[tuple[Source, Sequence[str], str]]) -> list[dict[str, Resources]]:
    """`compiled` of each, on all processors."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda module: compiled(*module), modules))


def _compile(text: str, options: Sequence[str]) -> str:
    """What NVRTC says of a source that it compiles; a warning is an error (-Werror is younger than NVRTC 13.0)."""
    from cuda.bindings import nvrtc

    _, program = nvrtc.nvrtcCreateProgram(text.encode(), b"kernel.cu", 0, [], [])
    (result,) = nvrtc.nvrtcCompileProgram(program, len(options), [o.encode() for o in options])
    _, length = nvrtc.nvrtcGetProgramLogSize(program)
    log = b" " * length
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(program)
    said = log.decode(errors="replace").strip("\0 \n")
    if result != nvrtc.nvrtcResult.NVRTC_SUCCESS or "warning" in said:
        raise KernelError(f"the kernel does not compile:\n{said}")
    return said


def _resources(log: str) -> dict[str, Resources]:
    """The resources of each kernel in what `ptxas -v` prints."""
    found = {}
    for name, report in re.findall(r"Compiling entry function '(\w+)'(.*?registers[^\n]*)", log, re.DOTALL):
        number = {what: int(n) for n, what in re.findall(r"(\d+) (registers|bytes stack|bytes spill stores)", report)}
        shared = re.search(r"(\d+) bytes smem", report)
        found[name] = Resources(
            number["registers"], int(shared[1]) if shared else 0, number["bytes stack"], number["bytes spill stores"]
        )
    return found


@functools.cache
def _version() -> str:
    from cuda.bindings import nvrtc

    return str(nvrtc.nvrtcVersion())


@functools.cache
def _headers() -> Path:
    """The folder of CUDA's own headers, of which the 16-bit types need one; CuPy finds it likewise."""
    from cuda.pathfinder import find_nvidia_header_directory

    return Path(find_nvidia_header_directory("cudart"))


def report() -> dict:
    """What the file is to hold."""
    kernels: dict[str, dict[str, list[int]]] = {}
    for filename in FILES:
        ways = {dtype: STORAGE[dtype] for dtype in STORAGE}
        ways |= {macro: (*STORAGE["float32"], macro) for (macro,) in variants(filename)[1:]}
        modules = all_compiled([(source(filename), defines, REPORTED) for defines in ways.values()])
        for way, module in zip(ways, modules):
            for kernel, r in sorted(module.items()):
                kernels.setdefault(f"{filename} {kernel}", {})[way] = [r.registers, r.shared, r.spilled]
    same = {
        name: {"any": found["float32"]} for name, found in kernels.items() if len(set(map(tuple, found.values()))) == 1
    }
    version = ".".join(re.findall(r"\d+", _version())[-2:])
    return {"nvrtc": version, "architecture": REPORTED, "kernels": kernels | same}


def written(found: dict) -> str:
    """The report as JSON, a line for each kernel."""
    about = "".join(f" {json.dumps(key)}: {json.dumps(found[key])},\n" for key in ("nvrtc", "architecture"))
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(ways)}" for name, ways in found["kernels"].items())
    return f'{{\n{about} "kernels": {{\n{lines}\n }}\n}}\n'


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, compile, print the table or write the file."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.resources", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name} instead of printing")
    parser.add_argument("--arch", default="sm_90", choices=ARCHITECTURES)
    parser.add_argument("--dtype", default="float32", choices=STORAGE)
    options = parser.parse_args(arguments)
    if options.write:
        RESULTS.write_text(written(report()))
        return
    print(f"{'kernel':44}{'registers':>10}{'shared':>10}{'spilled':>10}{'threads':>10}")
    for filename in FILES:
        for kernel, r in sorted(compiled(source(filename), STORAGE[options.dtype], options.arch).items()):
            name = f"{filename.removesuffix('.cu')}: {kernel}"
            print(f"{name:44}{r.registers:10}{r.shared:10}{r.spilled:10}{r.occupancy(options.arch):10.0%}")


if __name__ == "__main__":
    main()
