"""Progress: a tqdm bar for each epoch (its notebook form in Jupyter), or a line for each."""

import time
from collections.abc import Mapping
from typing import Any

from dlgpu.training.callbacks import Callback

READ_EVERY = 0.1  # seconds between reads of the loss from the device


class ProgressBar(Callback):
    """One bar for each epoch, with the loss and the metrics; for evaluate and predict, one bar."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._fitting = False

    def _open(self, label: str) -> None:
        from tqdm.auto import tqdm

        self._bar = tqdm(total=self.params.get("steps"), desc=label, unit="batch", dynamic_ncols=True)
        self._due = 0.0

    def _advance(self, batch: int, logs: Mapping | None) -> None:
        if self._bar is None:
            return
        now = time.perf_counter()
        if now >= self._due:
            self._due = now + READ_EVERY
            self._bar.set_postfix(_rounded(logs), refresh=False)
            self._bar.update(batch + 1 - self._bar.n)

    def _close(self, done: int, logs: Mapping | None) -> None:
        if self._bar is not None:
            self._bar.set_postfix(_rounded(logs), refresh=False)
            self._bar.total = done
            self._bar.update(done - self._bar.n)
            self._bar.close()
            self._bar = None

    def on_train_begin(self, logs: Mapping | None = None) -> None:
        self._fitting = True

    def on_train_end(self, logs: Mapping | None = None) -> None:
        self._fitting = False
        if self._bar is not None:
            self._bar.close()

    def on_epoch_begin(self, epoch: int, logs: Mapping | None = None) -> None:
        self._done = 0
        self._open(f"Epoch {epoch + 1}/{self.params['epochs']}")

    def on_epoch_end(self, epoch: int, logs: Mapping | None = None) -> None:
        self._close(self._done, logs)

    def on_train_batch_end(self, batch: int, logs: Mapping | None = None) -> None:
        self._done = batch + 1
        self._advance(batch, logs)

    def on_test_begin(self, logs: Mapping | None = None) -> None:
        if not self._fitting:
            self._done = 0
            self._open("Evaluate")

    def on_test_batch_end(self, batch: int, logs: Mapping | None = None) -> None:
        if not self._fitting:
            self.on_train_batch_end(batch, logs)

    def on_test_end(self, logs: Mapping | None = None) -> None:
        if not self._fitting:
            self._close(self._done, logs)

    def on_predict_begin(self, logs: Mapping | None = None) -> None:
        self._done = 0
        self._open("Predict")

    def on_predict_batch_end(self, batch: int, logs: Mapping | None = None) -> None:
        self.on_train_batch_end(batch, logs)

    def on_predict_end(self, logs: Mapping | None = None) -> None:
        self._close(self._done, logs)


class EpochLines(Callback):
    """One line for each epoch, for logs: `verbose=2`."""

    def on_epoch_begin(self, epoch: int, logs: Mapping | None = None) -> None:
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Mapping | None = None) -> None:
        values = "  ".join(f"{name} {value}" for name, value in _rounded(logs).items())
        seconds = time.perf_counter() - self._start
        print(f"Epoch {epoch + 1}/{self.params['epochs']}  {seconds:.1f} s  {values}", flush=True)


def progress(verbose: "str | int") -> list[Callback]:
    """The callbacks that show progress: "auto" or 1 a bar, 2 a line for each epoch, 0 nothing."""
    if verbose not in ("auto", 0, 1, 2):
        raise ValueError(f"verbose: expected 'auto', 0, 1 or 2, got {verbose!r}")
    return [] if verbose == 0 else [EpochLines()] if verbose == 2 else [ProgressBar()]


def _rounded(logs: Mapping | None) -> dict[str, str]:
    return {name: f"{value:.4g}" for name, value in (logs or {}).items()}
