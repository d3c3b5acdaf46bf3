"""Callbacks that watch a value and act when it becomes better, or does not."""

from collections.abc import Mapping

from dlgpu.training.callbacks import Callback


class Monitor(Callback):
    """A callback that watches one value and knows when it is better than before.

    Args:
        monitor: the name of the value in `logs`.
        mode: "min", "max", or "auto": max for accuracies, AUC, precision, recall and scores, else min.
        min_delta: the least change that counts.
    """

    def __init__(self, monitor: str, mode: str = "auto", min_delta: float = 0.0):
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"mode: expected 'auto', 'min' or 'max', got {mode!r}")
        self.monitor = monitor
        more = any(word in monitor for word in ("acc", "auc", "precision", "recall", "f1", "score"))
        self.sign = 1 if mode == "max" or (mode == "auto" and more) else -1
        self.min_delta = abs(min_delta)
        self.best: float | None = None

    def value(self, logs: Mapping | None) -> float | None:
        """The watched value, None in an epoch without validation; the error names what could be watched instead."""
        logs = logs or {}
        if self.monitor not in logs:
            validated = any(name.startswith("val_") for name in logs)
            if self.monitor.startswith("val_") and self.params["validation"] and not validated:
                return None
            raise ValueError(
                f"{type(self).__name__}: there is no {self.monitor!r} to monitor; there is {', '.join(logs)}"
                + (" (val_ names need validation data)" if self.monitor.startswith("val_") else "")
            )
        return float(logs[self.monitor])

    def better(self, value: float) -> bool:
        """Whether `value` beats the best one by min_delta; NaN never does."""
        return value == value and (self.best is None or self.sign * (value - self.best) > self.min_delta)


class EarlyStopping(Monitor):
    """Stops the run when a value has not become better for `patience` epochs.

    Args:
        monitor, min_delta, mode: what to watch.
        patience: epochs without a better value to wait for.
        verbose: 1 says when it stops.
        baseline: a value to beat at first.
        restore_best_weights: put the weights of the best epoch back at the end.
        start_from_epoch: epochs to let pass before watching.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ):
        super().__init__(monitor, mode, min_delta)
        self.patience = patience
        self.verbose = verbose
        self.baseline = baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = start_from_epoch

    def on_train_begin(self, logs: Mapping | None = None) -> None:
        self.best, self.wait, self.stopped_epoch, self.best_epoch = self.baseline, 0, 0, 0
        self.best_weights: list | None = None

    def on_epoch_end(self, epoch: int, logs: Mapping | None = None) -> None:
        if epoch < self.start_from_epoch:
            return
        value = self.value(logs)
        if value is None:
            return
        better = self.better(value)
        if better or (self.restore_best_weights and self.best_weights is None):
            self.best_epoch = epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
        self.wait = 0 if better else self.wait + 1
        if better:
            self.best = value
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Mapping | None = None) -> None:
        if self.stopped_epoch and self.verbose:
            print(f"Epoch {self.stopped_epoch + 1}: stopped early; the best was epoch {self.best_epoch + 1}.")
        if self.best_weights is not None:
            self.model.set_weights(self.best_weights)


class ReduceLROnPlateau(Monitor):
    """Multiplies the learning rate by `factor` when a value has not become better for `patience` epochs.

    Args:
        monitor, mode, min_delta: what to watch.
        factor: below 1.
        patience: epochs to wait for.
        verbose: 1 says when it reduces.
        cooldown: epochs to let pass after a reduction.
        min_lr: never go below.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ):
        super().__init__(monitor, mode, min_delta)
        if not factor < 1:
            raise ValueError(f"factor: expected a number below 1, got {factor}")
        self.factor = factor
        self.patience = patience
        self.verbose = verbose
        self.cooldown = cooldown
        self.min_lr = min_lr

    def on_train_begin(self, logs: Mapping | None = None) -> None:
        self.best, self.wait, self.resting = None, 0, 0

    def on_epoch_end(self, epoch: int, logs: Mapping | None = None) -> None:
        optimizer = self.model.optimizer
        if isinstance(logs, dict):
            logs["learning_rate"] = float(optimizer.learning_rate)
        value = self.value(logs)
        if value is None:
            return
        if self.resting > 0:
            self.resting, self.wait = self.resting - 1, 0
        if self.better(value):
            self.best, self.wait = value, 0
        elif self.resting <= 0:
            self.wait += 1
            rate = float(optimizer.learning_rate)
            if self.wait >= self.patience and rate > self.min_lr:
                optimizer.learning_rate = max(rate * self.factor, self.min_lr)
                self.resting, self.wait = self.cooldown, 0
                if self.verbose:
                    print(f"Epoch {epoch + 1}: learning rate {rate:g} -> {optimizer.learning_rate:g}.")


class ModelCheckpoint(Monitor):
    """Saves the model, or its weights, after every epoch or at every better one.

    Args:
        filepath: where; may hold {epoch} (from 1) and the names of logs: "best-{epoch:02d}-{val_loss:.3f}.dlgpu".
            With save_weights_only a name that ends in .safetensors.
        monitor, mode: what to watch.
        verbose: 1 says when it saves.
        save_best_only: keep only models that are better than all before.
        save_weights_only: the weights without the architecture.
        initial_value_threshold: save only what is better than this.
    """

    def __init__(
        self,
        filepath: str,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        initial_value_threshold: float | None = None,
    ):
        super().__init__(monitor, mode)
        self.filepath = str(filepath)
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        self.best = initial_value_threshold

    def on_epoch_end(self, epoch: int, logs: Mapping | None = None) -> None:
        if self.save_best_only:
            value = self.value(logs)
            if value is None or not self.better(value):
                return
            self.best = value
        path = self.filepath.format(epoch=epoch + 1, **(logs or {}))
        (self.model.save_weights if self.save_weights_only else self.model.save)(path)
        if self.verbose:
            print(f"Epoch {epoch + 1}: saved {path}.")
