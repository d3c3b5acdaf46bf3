"""What users change in a program, each beside the plain one: a step must not become slow for a reason nobody sees."""

import importlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import programs
from benchmarks.programs import BATCH

STEPS = {"fnn": 100, "cnn": 4}  # an epoch's
CHANGES = (
    "dropout_and_batch_normalization",
    "batch_1",
    "batch_1024",
    "schedule",
    "clipnorm",
    "class_weight",
    "generator",
    "batch_callback",
)


def changed(program: str, change: str) -> tuple[Any, Callable[[], object]]:
    """The model, and what trains one epoch of it.

    Args:
        program: "fnn" or "cnn".
        change: one of CHANGES, or "plain".
    """
    dlgpu = importlib.import_module("dlgpu")
    model = programs.keras_model("dlgpu", program)
    batch = int(change.removeprefix("batch_")) if change in ("batch_1", "batch_1024") else BATCH
    steps = max(2, STEPS[program] // 2) if batch == 1024 else STEPS[program]
    x, y = programs.data(program, batch * steps)
    given: dict[str, Any] = {"batch_size": batch}
    if change == "dropout_and_batch_normalization":
        model = with_dropout_and_batch_normalization(model)
    elif change == "schedule":
        compile_again(model, learning_rate=dlgpu.schedules.ExponentialDecay(1e-3, 1000, 0.9))
    elif change == "clipnorm":
        compile_again(model, clipnorm=1.0)
    elif change == "class_weight":
        given["class_weight"] = {0: 1.0, 1: 2.0}
    elif change == "batch_callback":
        given["callbacks"] = [dlgpu.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None)]
    if change == "generator":
        stream = batches(x, y)
        return model, lambda: model.fit(stream, steps_per_epoch=steps, epochs=1, verbose=0)
    return model, lambda: model.fit(x, y, epochs=1, verbose=0, **given)


def compile_again(model: Any, **options: Any) -> None:
    """As the program does, with options of Adam."""
    adam = importlib.import_module("dlgpu.optimizers").Adam(**options)
    model.compile(loss="binary_crossentropy", optimizer=adam, metrics=["accuracy"])


def with_dropout_and_batch_normalization(model: Any) -> Any:
    """Batch normalization after the first layer, dropout before the last."""
    layers = importlib.import_module("dlgpu.layers")
    first, *middle, last = model.layers
    stack = [first, layers.BatchNormalization(), *middle, layers.Dropout(0.5), last]
    new = importlib.import_module("dlgpu.models").Sequential(stack)
    compile_again(new)
    return new


def batches(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches without end, as a user's generator gives them."""
    for start in itertools.cycle(range(0, len(x), BATCH)):
        yield x[start : start + BATCH], y[start : start + BATCH]


def compare(program: str, change: str, seconds: float) -> dict:
    """Milliseconds of a step of both, epoch by epoch in turn, and the ratio changed / plain.

    Of a batch of 1024 it is the time of 32 samples, so that the ratio is that of the time of a sample.
    """
    works = {"plain": changed(program, "plain"), "changed": changed(program, change)}
    steps = {"plain": STEPS[program], "changed": STEPS[program]}
    if change == "batch_1024":
        steps["changed"] = max(2, STEPS[program] // 2) * 1024 // BATCH
    times: dict[str, list[float]] = {kind: [] for kind in works}
    for _ in range(2):  # compiled, recorded and tried
        for _, epoch in works.values():
            epoch()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["plain"]) < 3:
        for kind, (_, epoch) in works.items():
            start = time.perf_counter()
            epoch()
            times[kind].append((time.perf_counter() - start) * 1e3 / steps[kind])
    ratio = statistics.median(b / a for a, b in zip(times["plain"], times["changed"]))
    found = {f"{kind}_ms": statistics.median(t) for kind, t in times.items()}
    return {**found, "ratio": ratio, "replayed": replayed(works["changed"][0]), "epochs": len(times["plain"])}


def replayed(model: Any) -> bool:
    """Whether the model's steps, of each layout that came more than once, are replayed."""
    return all(getattr(found, "tried", found == 1) for found in model._step.replays._known.values())
