"""Trainer: fit, evaluate and predict, as Keras has them."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, ClassVar

import numpy as np

from dlgpu.data import ArrayData, Batch, Rows, StreamData, as_data
from dlgpu.data.checks import require_integers
from dlgpu.training.batch_trainer import BatchTrainer, Results, read
from dlgpu.training.callbacks import Callback, CallbackList, History
from dlgpu.training.epochs import Epochs, length, with_class_weight
from dlgpu.training.interrupt import deferred_interrupt
from dlgpu.training.progress import progress
from dlgpu.training.step import Step

PREDICTED_BYTES = 1 << 20  # of inputs that `predict` takes together
NOT_FINITE = (
    "the loss of epoch {} is {}: lower the learning rate, scale the data to numbers around 1, and see that a generator "
    "gives no NaN; the callback TerminateOnNaN ends such a run at once"
)


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside the `with`, NumPy does not warn of overflow and the like in files of the library: `fit` warns itself."""
    quiet: dict[str, Any] = {kind: "ignore" for kind, wanted in np.geterr().items() if wanted == "warn"}
    with np.errstate(**quiet):
        yield


@contextmanager
def _naming(argument: str) -> Iterator[None]:
    """Inside the `with`, errors in what the user gave begin with the argument's name."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise (TypeError if isinstance(error, TypeError) else ValueError)(f"{argument}: {error}") from error


class Trainer(BatchTrainer):
    """The training half of a model, on data of many batches; the other half is a Layer."""

    stop_training = False
    history: History | None = None
    _varying: ClassVar[tuple[str, ...]] = ("stop_training", "history")

    @_quiet()
    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: Sequence[Callback] | Callback | None = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: dict[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int = 1,
    ) -> History:
        """Train for a number of epochs. Ctrl-C ends the run after the step in progress, with the history so far.

        Args:
            x: an array (samples, ...), a list or dictionary of arrays, or a generator of batches (x, y) or
                (x, y, sample_weight). A GPU gets small arrays once: what is changed during the run it does not see.
            y: targets, with as many samples.
            batch_size: samples a step, 32 by default; the last batch may be smaller.
            epochs: the number of the last epoch, counted from 1.
            verbose: "auto" or 1 one progress bar, 2 a line for each epoch, 0 nothing.
            callbacks: what happens between batches and epochs. A GPU does several steps at once where no callback looks
                at every batch.
            validation_split: the last fraction of x and y is held out and evaluated after each epoch.
            validation_data: (x, y) or (x, y, sample_weight) or a generator, evaluated after each epoch.
            shuffle: a new order of the samples in each epoch; generators keep theirs.
            class_weight: class -> factor on the loss of its samples.
            sample_weight: (samples,) factors on the loss.
            initial_epoch: the epoch to begin with, counted from 0.
            steps_per_epoch: batches in an epoch; needed for an endless generator.
            validation_steps, validation_batch_size, validation_freq: likewise; every how many epochs to validate.
        Returns:
            a History, whose `history` maps names to a value for each epoch.
        Raises:
            ValueError: lengths differ, there is no data, a value is NaN or infinite, labels do not suit the loss.
            TypeError: arrays that are not numbers.
        """
        step = self._require_compiled()
        require_integers(0, epochs=epochs, initial_epoch=initial_epoch)
        require_integers(1, steps_per_epoch=steps_per_epoch, validation_steps=validation_steps)
        require_integers(1, validation_batch_size=validation_batch_size, validation_freq=validation_freq)
        data = as_data(x, y, sample_weight, batch_size)
        if validation_split and validation_data is None:
            if not isinstance(data, ArrayData):
                raise ValueError("validation_split needs arrays; give validation_data beside a generator")
            data, validation_data = data.split(validation_split)
        elif validation_data is not None and not isinstance(validation_data, (ArrayData, StreamData)):
            parts = validation_data if isinstance(validation_data, (tuple, list)) else (validation_data,)
            sizes = validation_batch_size or (batch_size if len(parts) > 1 else None)
            with _naming("validation_data"):
                validation_data = as_data(parts[0], *parts[1:], **({"batch_size": sizes} if sizes else {}))
        self._check(data, step)
        if validation_data is not None:
            with _naming("validation_data"):
                self._check(validation_data, step)
        if class_weight is not None:
            data = with_class_weight(data, class_weight)
        step.begin_training()

        batches = Epochs(data, steps_per_epoch, shuffle)
        history = History()
        given = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or [])
        # progress and history come last, so that they show what other callbacks add to the logs
        run = CallbackList(
            [*given, *progress(verbose), history],
            self,
            epochs=epochs,
            initial_epoch=initial_epoch,
            steps=batches.steps,
            validation=validation_data is not None,
        )
        self.stop_training, self.history, warned = False, history, False
        with step.shortage, step.objective.run(), deferred_interrupt() as interrupt:
            try:
                run.call("on_train_begin", {})
                for epoch in range(initial_epoch, epochs):
                    run.call("on_epoch_begin", epoch, {})
                    logs = self._run_epoch(batches, step, run, lambda: self.stop_training or interrupt.pressed)
                    if interrupt.pressed:
                        break
                    if not (warned or self.stop_training or np.isfinite(logs.get("loss", 0.0))):
                        warned = True
                        warnings.warn(NOT_FINITE.format(epoch + 1, logs["loss"]), RuntimeWarning, stacklevel=3)
                    if validation_data is not None and (epoch + 1) % validation_freq == 0:
                        logs |= {
                            f"val_{k}": v for k, v in self._evaluate(validation_data, validation_steps, run).items()
                        }
                    run.call("on_epoch_end", epoch, logs)
                    if self.stop_training or interrupt.pressed:
                        break
                if not interrupt.pressed:
                    self.optimizer.finalize()
            finally:
                self.history, history.interrupted = history, interrupt.pressed
                run.call("on_train_end", {})
        if interrupt.pressed and verbose != 0:
            print(f"Interrupted in epoch {epoch + 1}; the model is as it was after the last finished step.")
        return history

    def _run_epoch(self, batches: Epochs, step: Step, run: CallbackList, stop: Callable[[], bool]) -> dict:
        step.begin_training()  # a callback may have frozen or thawed layers
        step.objective.reset()
        logs: Any = None
        number, own = 0, getattr(self.train_step, "__func__", None) is not BatchTrainer.train_step
        watching = run.watching()
        if watching and batches.alike > 1:
            step.replays.watched(watching[0])
        for group in step.groups(batches, 1 if own or watching else batches.alike):
            run.call("on_train_batch_begin", number, {})
            self._check_first(batches.data, number, group[0], step)
            if own:
                logs = self._own_step(group[0], step)
            else:
                step.train(*group)
                logs = Results(step.objective)
            number += len(group)
            run.call("on_train_batch_end", number - 1, logs)
            if stop():
                break
        if logs is None:
            raise ValueError("x: the generator gave no batch; it may have ended in an earlier epoch")
        return read(logs)

    def _own_step(self, batch: Batch | Rows, step: Step) -> Mapping:
        """`train_step` as a subclass has it."""
        step.replays.used = False
        logs = self.train_step(batch)
        if not step.replays.used:
            step.replays.tell("this model's own train_step does not call that of dlgpu.Model")
        return logs

    def _check_first(self, data: ArrayData | StreamData, number: int, batch: Batch | Rows, step: Step) -> None:
        """A look at the first batch of each pass through a stream, of which nothing is known before it comes."""
        if number == 0 and isinstance(data, StreamData):
            self._check(ArrayData(*batch), step)

    @_quiet()
    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Sequence[Callback] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """The loss and metrics on data, without training; see `fit` for the arguments.

        Returns:
            the loss, or a list of the loss and the metrics if there are any; a dictionary with return_dict.
        """
        data = as_data(x, y, sample_weight, batch_size)
        self._check(data, self._require_compiled())
        shown = progress(0 if verbose == 2 else verbose)
        run = CallbackList([*(callbacks or []), *shown], self, steps=length(data, steps))
        results = self._evaluate(data, steps, run)
        if verbose == 2:
            print("Evaluate  " + "  ".join(f"{name} {value:.4g}" for name, value in results.items()))
        return self._values(results, return_dict)

    def _evaluate(self, data: Any, steps: int | None, run: CallbackList) -> dict[str, Any]:
        step = self._require_compiled()
        with step.shortage, step.objective.run():
            step.objective.reset()
            run.call("on_test_begin", {})
            logs: Mapping = Results(step.objective)
            for number, batch in enumerate(islice(data, steps)):
                run.call("on_test_batch_begin", number, {})
                self._check_first(data, number, batch, step)
                logs = self.test_step(batch)
                run.call("on_test_batch_end", number, logs)
            results = read(logs)
            run.call("on_test_end", results)
        return results

    @_quiet()
    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        steps: int | None = None,
        callbacks: Sequence[Callback] | None = None,
    ) -> Any:
        """The outputs for all samples of x, as one NumPy array, or a list of them for several outputs.

        Args:
            x: an array, a list or dictionary of arrays, or a generator of batches.
            batch_size: samples to take together; by default as many as a megabyte holds, and 32 at least, but 32 where
                something depends on it: a stateful layer, `steps`, or callbacks.
            verbose, steps, callbacks: see `fit`.
        """
        data: Any = as_data(x, None, None, batch_size)
        step = self._step or Step(self)
        by_batch = steps or callbacks or any(getattr(layer, "stateful", False) for layer in step.model._with_inner())
        if batch_size is None and isinstance(data, ArrayData) and not by_batch:
            data.batch_size = max(32, PREDICTED_BYTES * data.samples // max(1, sum(a.nbytes for a in data.arrays)))
        step.begin()
        shown = progress(0 if verbose == 2 else verbose)
        run = CallbackList([*(callbacks or []), *shown], self, steps=length(data, steps))
        run.call("on_predict_begin", {})
        outputs = []
        for number, batch in enumerate(islice(data, steps)):
            run.call("on_predict_batch_begin", number, {})
            outputs.append(step.predict(batch))
            run.call("on_predict_batch_end", number, {})
        run.call("on_predict_end", {})
        if not outputs:
            raise ValueError("x: the generator gave no batch")
        if isinstance(outputs[0], list):
            return [np.concatenate(parts) for parts in zip(*outputs)]
        if isinstance(outputs[0], dict):
            return {key: np.concatenate([o[key] for o in outputs]) for key in outputs[0]}
        return np.concatenate(outputs)
