"""Trainer: compile, fit, evaluate and predict, as Keras has them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from dlgpu import optimizers
from dlgpu.data import ArrayData, Batch, Rows, StreamData, as_data, leaves
from dlgpu.training.callbacks import Callback, CallbackList, History
from dlgpu.training.epochs import Epochs, first_batch, length, with_class_weight
from dlgpu.training.interrupt import deferred_interrupt
from dlgpu.training.objective import Objective
from dlgpu.training.progress import progress
from dlgpu.training.step import Step

PREDICTED_BYTES = 1 << 20  # of inputs that `predict` takes together


class Results(Mapping):
    """The loss and metrics so far, read from the device only when somebody looks."""

    def __init__(self, objective: Objective):
        self._objective = objective

    def __getitem__(self, name: str) -> Any:
        return self._objective.results()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._objective.results())

    def __len__(self) -> int:
        return len(self._objective.results())

    def items(self) -> Any:
        """All names and values, read once."""
        return self._objective.results().items()


class Trainer:
    """The training half of a model; the other half is a Layer."""

    optimizer: Any = None
    stop_training = False
    history: History | None = None
    _step: Step | None = None
    _compiled: dict | None = None

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        auto_scale_loss: bool = True,
    ) -> None:
        """Say what to train for and how.

        Args:
            optimizer: a name or an Optimizer.
            loss: a name, a Loss or a function of (y_true, y_pred); for several outputs a list or dictionary of them.
            loss_weights: factors on the losses of several outputs.
            metrics: a list of names, Metrics or functions.
            weighted_metrics: the same, on samples weighted by sample_weight and class_weight.
            run_eagerly: run the layers' Python at every step. By default a step is recorded and then replayed: what
                layers print or count in Python happens at the first steps only.
            auto_scale_loss: where the model or one of its layers computes in float16, put the optimizer into a
                LossScaleOptimizer.
        Raises:
            ValueError: an unknown name; the message names the nearest known one.
        """
        chosen = optimizers.get(optimizer)
        if auto_scale_loss and chosen is not None and not isinstance(chosen, optimizers.LossScaleOptimizer):
            layers = self._with_inner()  # type: ignore[attr-defined]
            if any(layer.compute_dtype == np.float16 for layer in layers):
                chosen = optimizers.LossScaleOptimizer(chosen)
        objective = Objective(loss, loss_weights, metrics, weighted_metrics, self.output_names)
        self.optimizer, self._step = chosen, Step(self, objective, chosen)
        self.run_eagerly = run_eagerly
        self._compiled = {
            "optimizer": chosen,
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
            "run_eagerly": run_eagerly,
            "auto_scale_loss": auto_scale_loss,
        }

    @property
    def run_eagerly(self) -> bool:
        """Whether every step runs the layers' Python; see `compile`."""
        return self._require_compiled().replays.eager

    @run_eagerly.setter
    def run_eagerly(self, value: bool) -> None:
        self._require_compiled().replays.eager = bool(value)

    @property
    def output_names(self) -> list[str]:
        """The names of the outputs, of which there is one unless a subclass says otherwise."""
        return ["output"]

    @property
    def metrics(self) -> list:
        """The metrics given to `compile`; empty before the first batch."""
        return self._step.objective.metrics if self._step else []

    @property
    def metrics_names(self) -> list[str]:
        """The names of what `evaluate` returns, in order."""
        return list(self._require_compiled().objective.results())

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
                (x, y, sample_weight).
            y: targets, with as many samples.
            batch_size: samples a step, 32 by default; the last batch may be smaller.
            epochs: the number of the last epoch, counted from 1.
            verbose: "auto" or 1 one progress bar, 2 a line for each epoch, 0 nothing.
            callbacks: what happens between batches and epochs.
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
        data = as_data(x, y, sample_weight, batch_size)
        if validation_split and validation_data is None:
            if not isinstance(data, ArrayData):
                raise ValueError("validation_split needs arrays; give validation_data beside a generator")
            data, validation_data = data.split(validation_split)
        elif validation_data is not None and not isinstance(validation_data, (ArrayData, StreamData)):
            parts = validation_data if isinstance(validation_data, (tuple, list)) else (validation_data,)
            sizes = validation_batch_size or (batch_size if len(parts) > 1 else None)
            validation_data = as_data(parts[0], *parts[1:], **({"batch_size": sizes} if sizes else {}))
        self._check(data, step)
        if validation_data is not None:
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
        self.stop_training, self.history = False, history
        with step.objective.run(), deferred_interrupt() as interrupt:
            try:
                run.call("on_train_begin", {})
                for epoch in range(initial_epoch, epochs):
                    run.call("on_epoch_begin", epoch, {})
                    logs = self._run_epoch(batches, step, run, lambda: self.stop_training or interrupt.pressed)
                    if interrupt.pressed:
                        break
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
        for number, batch in enumerate(batches):
            run.call("on_train_batch_begin", number, {})
            self._check_first(batches.data, number, batch, step)
            logs = self.train_step(batch)
            run.call("on_train_batch_end", number, logs)
            if stop():
                break
        if logs is None:
            raise ValueError("x: the generator gave no batch; it may have ended in an earlier epoch")
        return _read(logs)

    def train_step(self, data: "Batch | Rows") -> Mapping:
        """Train on one batch. A subclass may do it in a way of its own.

        Args:
            data: (x, y, sample_weight), the last two perhaps None.
        Returns:
            the values to report, by name; those of the last step of an epoch stand for it.
        """
        step = self._require_compiled()
        step.train(data)
        return Results(step.objective)

    def test_step(self, data: "Batch | Rows") -> Mapping:
        """Evaluate one batch; see `train_step`."""
        step = self._require_compiled()
        step.evaluate(data)
        return Results(step.objective)

    def _check(self, data: ArrayData | StreamData, step: Step) -> None:
        """One look at all data before the run; the first batch builds the model and shows the outputs' shapes."""
        if isinstance(data, ArrayData):
            data.check_finite()
        elif self.built:  # type: ignore[attr-defined]
            return
        step.begin()
        with self.trial():  # type: ignore[attr-defined]
            outputs = step.predict(first_batch(data))
        step.begin()  # the model has weights now
        if isinstance(data, ArrayData):
            labels = step.for_outputs(data.y, "y")
            step.objective.check_labels(labels, [(data.samples, *o.shape[1:]) for o in leaves(outputs)])

    def _check_first(self, data: ArrayData | StreamData, number: int, batch: "Batch | Rows", step: Step) -> None:
        """A look at the first batch of each pass through a stream, of which nothing is known before it comes."""
        if number == 0 and isinstance(data, StreamData):
            self._check(ArrayData(*batch), step)

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
        with step.objective.run():
            step.objective.reset()
            run.call("on_test_begin", {})
            logs: Mapping = Results(step.objective)
            for number, batch in enumerate(islice(data, steps)):
                run.call("on_test_batch_begin", number, {})
                self._check_first(data, number, batch, step)
                logs = self.test_step(batch)
                run.call("on_test_batch_end", number, logs)
            results = _read(logs)
            run.call("on_test_end", results)
        return results

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
        by_batch = steps or callbacks or any(getattr(layer, "stateful", False) for layer in self._with_inner())  # type: ignore[attr-defined]
        if batch_size is None and isinstance(data, ArrayData) and not by_batch:
            data.batch_size = max(32, PREDICTED_BYTES * data.samples // max(1, sum(a.nbytes for a in data.arrays)))
        step = self._step or Step(self)
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

    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """One training step on one batch; the loss, or a list of the loss and the metrics, of this batch."""
        step, data = self._require_compiled(), self._one_batch(x, y, sample_weight)
        if class_weight is not None:
            data = with_class_weight(data, class_weight)
        step.begin_training()
        with step.objective.run():
            step.objective.reset()
            step.train(data.take(slice(None)))
            return self._values(step.objective.results(), return_dict)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False) -> Any:
        """The loss, or a list of the loss and the metrics, of one batch, without training."""
        step, data = self._require_compiled(), self._one_batch(x, y, sample_weight)
        with step.objective.run():
            step.objective.reset()
            step.evaluate(data.take(slice(None)))
            return self._values(step.objective.results(), return_dict)

    def predict_on_batch(self, x: Any) -> Any:
        """The outputs for one batch, as NumPy arrays."""
        step = self._step or Step(self)
        step.begin()
        return step.predict(ArrayData(x).take(slice(None)))

    def _one_batch(self, x: Any, y: Any, sample_weight: Any) -> ArrayData:
        data = ArrayData(x, y, sample_weight)
        self._check(data, self._require_compiled())
        return data

    def _values(self, results: dict[str, Any], return_dict: bool) -> Any:
        values = list(results.values())
        return results if return_dict else values[0] if len(values) == 1 else values

    def _require_compiled(self) -> Step:
        if self._step is None:
            raise ValueError(f"{type(self).__name__}: call compile(optimizer=..., loss=...) first")
        return self._step


def _read(logs: Mapping) -> dict[str, Any]:
    """The values that a step reports, as numbers of the host."""
    return {name: float(v) if getattr(v, "size", 1) == 1 else np.asarray(v) for name, v in logs.items()}
