"""Callbacks: what happens between batches and between epochs."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO


class Callback:
    """Something that a training run calls at its turning points; a subclass overrides what it wants.

    `logs` is a mapping of the loss and the metrics by name. Reading it during an epoch waits for the device.

    Attributes:
        model: the model that is run.
        params: a dictionary with "steps", batches in an epoch (None where unknown); of fit also "epochs",
            "initial_epoch", and "validation", whether there are validation data.
        seldom: whether it is enough to call hooks of training batches for the last of several, which a GPU may then do
            together.
    """

    model: Any = None
    params: dict = {}
    seldom = False

    def on_train_begin(self, logs: Mapping | None = None) -> None:
        """Before the first epoch."""

    def on_train_end(self, logs: Mapping | None = None) -> None:
        """After the last epoch, also when it was stopped early."""

    def on_epoch_begin(self, epoch: int, logs: Mapping | None = None) -> None:
        """Before an epoch, counted from 0."""

    def on_epoch_end(self, epoch: int, logs: Mapping | None = None) -> None:
        """After an epoch and its validation."""

    def on_train_batch_begin(self, batch: int, logs: Mapping | None = None) -> None:
        """Before a training step, counted from 0 in each epoch."""

    def on_train_batch_end(self, batch: int, logs: Mapping | None = None) -> None:
        """After a training step."""

    def on_test_begin(self, logs: Mapping | None = None) -> None:
        """Before an evaluation."""

    def on_test_end(self, logs: Mapping | None = None) -> None:
        """After an evaluation."""

    def on_test_batch_begin(self, batch: int, logs: Mapping | None = None) -> None:
        """Before an evaluation step."""

    def on_test_batch_end(self, batch: int, logs: Mapping | None = None) -> None:
        """After an evaluation step."""

    def on_predict_begin(self, logs: Mapping | None = None) -> None:
        """Before a prediction."""

    def on_predict_end(self, logs: Mapping | None = None) -> None:
        """After a prediction."""

    def on_predict_batch_begin(self, batch: int, logs: Mapping | None = None) -> None:
        """Before a prediction step."""

    def on_predict_batch_end(self, batch: int, logs: Mapping | None = None) -> None:
        """After a prediction step."""

    def set_model(self, model: Any) -> None:
        """Called once, before the run."""
        self.model = model

    def set_params(self, params: dict) -> None:
        """Called once, before the run."""
        self.params = params


class CallbackList:
    """Calls each callback that overrides a hook; the others cost nothing."""

    def __init__(self, callbacks: Sequence[Callback], model: Any, **params: Any):
        self.callbacks = list(callbacks)
        for callback in self.callbacks:
            if not isinstance(callback, Callback):
                raise TypeError(f"callbacks: expected Callback objects, got {callback!r}")
            callback.set_model(model)
            callback.set_params(params)
        self._hooks: dict[str, list[Callable]] = {}

    def call(self, hook: str, *args: Any) -> None:
        """Call `hook` (such as "on_epoch_end") of all callbacks."""
        if hook not in self._hooks:
            self._hooks[hook] = [getattr(c, hook) for c in self.callbacks if _overrides(c, hook)]
        for function in self._hooks[hook]:
            function(*args)

    def watching(self) -> list[str]:
        """The names of those that want to see every training batch."""
        hooks = "on_train_batch_begin", "on_train_batch_end"
        return [type(c).__name__ for c in self.callbacks if not c.seldom and any(_overrides(c, h) for h in hooks)]


def _overrides(callback: Callback, hook: str) -> bool:
    found = getattr(callback, hook)
    return getattr(found, "__func__", found) is not getattr(Callback, hook)


class History(Callback):
    """Every epoch's loss and metrics.

    Attributes:
        history: name -> list with a value for each epoch.
        epoch: the numbers of those epochs, from 0.
        interrupted: whether Ctrl-C ended the run.
    """

    def __init__(self) -> None:
        self.history: dict[str, list] = {}
        self.epoch: list[int] = []
        self.interrupted = False

    def on_epoch_end(self, epoch: int, logs: Mapping | None = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)


class LambdaCallback(Callback):
    """Functions as a callback: LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, logs["loss"]))."""

    def __init__(self, **hooks: Callable):
        for name, function in hooks.items():
            if not name.startswith("on_") or not hasattr(Callback, name):
                known = ", ".join(h for h in vars(Callback) if h.startswith("on_"))
                raise TypeError(f"LambdaCallback: unknown hook {name!r}; expected one of {known}")
            setattr(self, name, function)


class TerminateOnNaN(Callback):
    """Stops the run when the loss is NaN or infinite. Reads the loss after every batch."""

    def on_train_batch_end(self, batch: int, logs: Mapping | None = None) -> None:
        loss = (logs or {}).get("loss", 0.0)
        if not abs(loss) < float("inf"):
            print(f"Batch {batch}: the loss is {loss}; training stops.")
            self.model.stop_training = True


class LearningRateScheduler(Callback):
    """Sets the learning rate at the start of each epoch.

    Args:
        schedule: a function of the epoch (from 0) and the present learning rate, or of the epoch alone, to the new one.
        verbose: 1 prints each change.
    """

    def __init__(self, schedule: Callable[..., float], verbose: int = 0):
        self.schedule = schedule
        try:
            inspect.signature(schedule).bind(0, 0.0)
            self._takes_rate = True
        except TypeError:
            self._takes_rate = False
        self.verbose = verbose

    def on_epoch_begin(self, epoch: int, logs: Mapping | None = None) -> None:
        rates = (float(self.model.optimizer.learning_rate),) if self._takes_rate else ()
        rate = float(self.schedule(epoch, *rates))
        self.model.optimizer.learning_rate = rate
        if self.verbose:
            print(f"Epoch {epoch + 1}: learning rate {rate:g}.")

    def on_epoch_end(self, epoch: int, logs: Mapping | None = None) -> None:
        if isinstance(logs, dict):
            logs["learning_rate"] = float(self.model.optimizer.learning_rate)


class CSVLogger(Callback):
    """Writes a row with every epoch's number, loss and metrics to a CSV file, each as soon as it is known.

    Args:
        filename: the file.
        separator: between the columns.
        append: add to what is in the file instead of beginning it anew.
    """

    def __init__(self, filename: str, separator: str = ",", append: bool = False):
        self.filename = filename
        self.separator = separator
        self.append = append
        self._file: TextIO | None = None

    def on_train_begin(self, logs: Mapping | None = None) -> None:
        self._file = open(self.filename, "a" if self.append else "w", newline="")  # noqa: SIM115, closed on_train_end
        self._columns: list[str] | None = None

    def on_epoch_end(self, epoch: int, logs: Mapping | None = None) -> None:
        row = {"epoch": epoch, **(logs or {})}
        assert self._file is not None
        first = self._columns is None
        if self._columns is None:
            self._columns = list(row)
            if self.params["validation"] and not any(name.startswith("val_") for name in row):  # not in every epoch
                self._columns += [f"val_{name}" for name in logs or {}]
        from csv import DictWriter  # only here, as few use it

        writer = DictWriter(self._file, self._columns, delimiter=self.separator, extrasaction="ignore")
        if first and self._file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)
        self._file.flush()

    def on_train_end(self, logs: Mapping | None = None) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
