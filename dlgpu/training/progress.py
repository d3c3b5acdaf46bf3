"""Progress: one tqdm bar for a run (its notebook form in Jupyter), or a line for each epoch."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from dlgpu.training.callbacks import Callback

READ_EVERY = 0.1  # seconds between reads of the loss from the device


class ProgressBar(Callback):
    """One bar over all epochs, with the loss and the metrics of the present one and the last validation."""

    seldom = True

    def __init__(self) -> None:
        self._bar: Any = None
        self._fitting = False

    def _open(self, label: str, epochs: int = 1) -> None:
        from tqdm.auto import tqdm  # here, because in a notebook it brings IPython's widgets

        steps = self.params["steps"]
        self._bar = tqdm(total=steps and steps * epochs, desc=label, unit="batch", dynamic_ncols=True)
        self._due, self._done, self._before = 0.0, 0, 0
        self._validation: dict[str, str] = {}

    def _advance(self, batch: int, logs: Mapping | None) -> None:
        self._done = self._before + batch + 1
        now = time.perf_counter()
        if now >= self._due:
            self._due = now + READ_EVERY
            self._show(logs)

    def _show(self, logs: Mapping | None) -> None:
        self._bar.set_postfix({**_rounded(logs), **self._validation}, refresh=False)
        self._bar.update(self._done - self._bar.n)

    def _close(self, logs: Mapping | None) -> None:
        if self._bar is not None:
            self._show(logs)
            self._bar.close()

    def on_train_begin(self, logs: Mapping | None = None) -> None:
        self._fitting, self._epochs = True, self.params["epochs"] - self.params["initial_epoch"]
        self._last: Mapping = {}
        self._open("Epoch", self._epochs)

    def on_epoch_begin(self, epoch: int, logs: Mapping | None = None) -> None:
        self._before = self._done
        self._bar.set_description(f"Epoch {epoch + 1}/{self.params['epochs']}", refresh=False)

    def on_train_batch_end(self, batch: int, logs: Mapping | None = None) -> None:
        self._last = logs or {}
        self._advance(batch, logs)

    def on_epoch_end(self, epoch: int, logs: Mapping | None = None) -> None:
        if self._bar.total is None:  # a stream: now the number of its batches is known
            self._bar.total = self._done * self._epochs
        self._validation = {name: v for name, v in _rounded(logs).items() if name.startswith("val_")}
        self._last = logs or {}
        self._show(logs)

    def on_train_end(self, logs: Mapping | None = None) -> None:
        self._fitting = False
        self._close(self._last)

    def on_test_begin(self, logs: Mapping | None = None) -> None:
        if not self._fitting:
            self._open("Evaluate")

    def on_test_batch_end(self, batch: int, logs: Mapping | None = None) -> None:
        if not self._fitting:
            self._advance(batch, logs)

    def on_test_end(self, logs: Mapping | None = None) -> None:
        if not self._fitting:
            self._close(logs)

    def on_predict_begin(self, logs: Mapping | None = None) -> None:
        self._open("Predict")

    def on_predict_batch_end(self, batch: int, logs: Mapping | None = None) -> None:
        self._advance(batch, logs)

    def on_predict_end(self, logs: Mapping | None = None) -> None:
        self._close(logs)


class EpochLines(Callback):
    """One line for each epoch, for logs: `verbose=2`."""

    def on_epoch_begin(self, epoch: int, logs: Mapping | None = None) -> None:
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Mapping | None = None) -> None:
        values = "  ".join(f"{name} {value}" for name, value in _rounded(logs).items())
        seconds = time.perf_counter() - self._start
        print(f"Epoch {epoch + 1}/{self.params['epochs']}  {seconds:.1f} s  {values}", flush=True)


def progress(verbose: str | int) -> list[Callback]:
    """The callbacks that show progress: "auto" or 1 a bar, 2 a line for each epoch, 0 nothing."""
    if verbose not in ("auto", 0, 1, 2):
        raise ValueError(f"verbose: expected 'auto', 0, 1 or 2, got {verbose!r}")
    return [] if verbose == 0 else [EpochLines()] if verbose == 2 else [ProgressBar()]


def _rounded(logs: Mapping | None) -> dict[str, str]:
    def text(value: Any) -> str:
        return f"{value:.4g}" if np.ndim(value) == 0 else np.array2string(value, precision=3)

    return {name: text(value) for name, value in (logs or {}).items()}
