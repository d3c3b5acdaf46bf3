"""`dlgpu train`: train the four programs, or one, and say how well they do and how long they took."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import dlgpu
from dlgpu.callbacks import History
from dlgpu.cli.curves import draw
from dlgpu.cli.programs import PROGRAMS, Data, compiled_model
from dlgpu.cli.userdata import read_data
from dlgpu.ops.random import default_generator

INTERRUPTED = 130  # the exit status of a program that Ctrl-C ended


@dataclass(frozen=True)
class Result:
    """What a run gave: the History of fit, and the row of the table."""

    name: str
    data: Data
    history: History
    score: str
    goal: str
    seconds: float

    def row(self) -> list[str]:
        """What the table has of it."""
        epochs = f"{len(self.history.epoch)}{' (interrupted)' if self.history.interrupted else ''}"
        return [self.name, self.data.name, epochs, self.score, self.goal, f"{self.seconds:.1f} s"]


@dataclass(frozen=True)
class Task:
    """One program, ready to run.

    Attributes:
        state: of the random numbers, so that a program alone gives what it gives after others.
        file: to save the model to, or None.
    """

    name: str
    data: Data
    model: Any
    state: tuple[int, int]
    file: str | None


def prepare(arguments: argparse.Namespace) -> list[Task]:
    """What the command line asks for, with all looked at that could be wrong.

    Raises:
        ValueError, TypeError, OSError, DeviceError: something cannot be.
    """
    names = [arguments.name] if arguments.name else list(PROGRAMS)
    if arguments.data and not arguments.name:
        raise ValueError(f"--data needs one program: dlgpu train {'|'.join(PROGRAMS)} --data {arguments.data}")
    if arguments.device:
        dlgpu.set_device(arguments.device)
    dlgpu.current_device()
    files = {name: _save_path(arguments.save, name, len(names) > 1) for name in names if arguments.save}
    for path in [arguments.save, *files.values()] if arguments.save else []:
        _require_writable(path, "--save", ".dlgpu", ".safetensors")
    if arguments.plot:
        _require_writable(arguments.plot, "--plot", ".png")
        if find_spec("matplotlib") is None:
            raise ValueError("--plot needs matplotlib: pip install 'dlgpu[plot]'")
    tasks = []
    for name in names:
        data = read_data(arguments.data, name) if arguments.data else PROGRAMS[name].data()
        dlgpu.set_random_seed(arguments.seed)
        model = compiled_model(name, data)
        tasks.append(Task(name, data, model, default_generator().state, files.get(name)))
    return tasks


def run(tasks: list[Task], arguments: argparse.Namespace) -> int:
    """Train, save and draw; then print a table of scores and times. The exit status."""
    results: list[Result] = []
    problems: list[str] = []
    interrupted = False
    try:
        for task in tasks:
            default_generator().state = task.state
            results.append(_run(task, arguments))
            if task.file:
                save = task.model.save if task.file.endswith(".dlgpu") else task.model.save_weights
                problems += _problem(task.file, save, task.file)
            if results[-1].history.interrupted:
                interrupted = True
                break
    except KeyboardInterrupt:  # between two calls of fit, which handles it itself
        interrupted = True
    print(_table(results))
    if arguments.plot and any(r.history.epoch for r in results):
        problems += _problem(arguments.plot, draw, results, arguments.plot)
    for problem in problems:
        print(f"dlgpu train: error: {problem}", file=sys.stderr)
    return INTERRUPTED if interrupted else 1 if problems else 0


def _problem(path: str, write: Callable, *arguments: Any) -> list[str]:
    """Write a file; what went wrong, if anything did: what has been trained must not be lost for it."""
    try:
        write(*arguments)
    except OSError as error:
        return [f"{path} could not be written: {error}"]
    return []


def _run(task: Task, arguments: argparse.Namespace) -> Result:
    program, data = PROGRAMS[task.name], task.data
    print(_title(task.name, data), flush=True)
    start = time.perf_counter()
    history = task.model.fit(
        *data.train,
        epochs=arguments.epochs or program.epochs,
        batch_size=arguments.batch_size or program.batch_size,
        validation_data=data.test,
        validation_batch_size=256,
    )
    seconds = time.perf_counter() - start
    score, goal = _score(data, task.model.predict(data.test[0], batch_size=256, verbose=0), program.goal)
    return Result(task.name, data, history, score, "" if arguments.data else goal, seconds)


def _score(data: Data, predictions: np.ndarray, goal: float) -> tuple[str, str]:
    """Accuracy, or the root of the mean squared error (RMSE) beside the baseline's; and the goal, marked if missed."""
    y = data.test[1]
    if data.classes is not None:
        found = predictions.argmax(axis=1) if data.classes > 2 else predictions[:, 0] > 0.5
        accuracy = round(float(np.mean(found == y)), 3)
        return f"accuracy {accuracy:.3f}", f"at least {goal:g}{'' if accuracy >= goal else ', missed'}"
    error, baseline = (np.sqrt(np.mean((p - y) ** 2, dtype=np.float64)) for p in (predictions, data.baseline))
    share = round(float(error / baseline), 3)
    score = f"RMSE {error:.4g}, {share:.3f} of {data.baseline_name}'s"
    return score, f"at most {goal:g}{'' if share <= goal else ', missed'}"


def _table(results: list[Result]) -> str:
    rows = [["Program", "Data", "Epochs", "Test score", "Goal", f"Time on {dlgpu.current_device()}"]]
    rows += [result.row() for result in results]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _title(name: str, data: Data) -> str:
    """The program and what there is to learn."""
    (x, y), (x_test, _) = data.train, data.test
    target = f"{data.classes} classes" if data.classes else f"{y.shape[1]} number{'s' if y.shape[1] > 1 else ''}"
    labels = f" ({_listed(data.labels)})" if data.labels else ""
    shape = " x ".join(map(str, x.shape[1:]))
    return f"{name} on {data.name}: {len(x)} samples of {shape} to {target}{labels}, {len(x_test)} more for the test"


def _listed(labels: tuple) -> str:
    shown = [f"{label:g}" for label in labels]
    return ", ".join(shown if len(shown) <= 10 else [*shown[:8], "...", shown[-1]])


def _save_path(path: str, name: str, several: bool) -> str:
    return str(Path(path).with_stem(f"{Path(path).stem}-{name}")) if several else path


def _require_writable(path: str, flag: str, *extensions: str) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    if not path.endswith(extensions):
        raise ValueError(f"{flag}: expected a file name that ends in {' or '.join(extensions)}, got {path!r}")
    if not os.path.isdir(folder):
        raise ValueError(f"{flag}: there is no folder {folder}")
    if os.path.isdir(path) or not os.access(folder, os.W_OK):
        raise ValueError(f"{flag}: cannot write {path}")
