"""Which of several ways to do the same is the fastest on a GPU: measured at the first use, and remembered on disk.

All of dlgpu's ways give the same bits, so that what was measured, here or elsewhere, changes time alone; cudnn.py has
others. Where nothing can be measured, in the emulator, while a graph is captured, and with DLGPU_TUNING=0, the first
way is taken: the rule's.
"""

import functools
import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from dlgpu.backend.cuda.source import FOLDER, headers_hash, source
from dlgpu.backend.devices import Device
from dlgpu.backend.emulator.compiler import cache_folder

SWITCH = "DLGPU_TUNING"
ROUNDS, LAUNCHES = 3, 5  # the best round counts, so that what else the GPU does then matters little


class Unfit(Exception):
    """A way turned out not to be one."""


_chosen: dict[tuple[int, Hashable], Any] = {}  # by GPU and key, in this process


def fastest(key: Hashable, ways: Sequence[Any], run: Callable[[Any], None], device: Device, filename: str) -> Any:
    """The fastest of `ways`, or the first.

    Args:
        key: what the choice depends on beside the GPU; its `repr` is the key on disk.
        ways: each with a name of its own by `str`, by which it is known on disk.
        run: launches one of them; it is called many times, on the same arguments. It may raise Unfit, save for the
            first.
        device: where.
        filename: of the kernels: what was measured of an older version counts no more.
    """
    if device.on_host or len(ways) < 2 or os.environ.get(SWITCH) == "0":
        return ways[0]
    if (device.index, key) in _chosen:
        return _chosen[device.index, key]
    path, version = _file(device.index), _version(filename)
    known = _read(path, version).get(repr(key))
    found = next((way for way in ways if str(way) == known), None)
    if found is None:
        if import_module("cupy").cuda.get_current_stream().is_capturing():
            return ways[0]  # the next time that it is not captured may tell
        found = min(ways, key=lambda way: _milliseconds(functools.partial(run, way)))
        _write(path, version, repr(key), str(found))
    _chosen[device.index, key] = found
    return found


def _milliseconds(run: Callable[[], None]) -> float:
    try:
        return milliseconds(run)
    except Unfit:
        return math.inf


def milliseconds(run: Callable[[], None]) -> float:
    """How long `run` takes on the GPU, by its own clock."""
    cuda = import_module("cupy").cuda
    run()  # compiles
    times = []
    for _ in range(ROUNDS):
        start, end = cuda.Event(), cuda.Event()
        start.record(cuda.get_current_stream())
        for _ in range(LAUNCHES):
            run()
        end.record(cuda.get_current_stream())
        end.synchronize()
        times.append(cuda.get_elapsed_time(start, end) / LAUNCHES)
    return min(times)


@functools.cache
def _file(index: int) -> Path:
    name = import_module("cupy").cuda.runtime.getDeviceProperties(index)["name"].decode()
    return cache_folder() / "tuning" / f"{re.sub('[^A-Za-z0-9]+', '-', name)}.json"


@functools.cache
def _version(filename: str) -> str:
    return hashlib.sha256((headers_hash(FOLDER) + source(filename).text).encode()).hexdigest()[:16]


def _read(path: Path, version: str) -> dict[str, str]:
    """What was chosen for this version of the kernels; nothing from a file that cannot be read."""
    with suppress(OSError, ValueError, AttributeError):
        choices = json.loads(path.read_text()).get(version)
        return choices if isinstance(choices, dict) else {}
    return {}


def _write(path: Path, version: str, key: str, way: str) -> None:
    """Add a choice to the file, which other processes may read and write meanwhile; older versions leave it."""
    with suppress(OSError):  # then it is measured again in the next process
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = Path(folder, path.name)
            made.write_text(json.dumps({version: _read(path, version) | {key: way}}, indent=1))
            os.replace(made, path)
