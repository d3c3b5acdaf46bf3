"""BatchTrainer: what a model is trained for, and training, evaluating and predicting one batch, as Keras has them."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np

from dlgpu import optimizers
from dlgpu.data import ArrayData, Batch, Rows, StreamData, leaves
from dlgpu.training.epochs import first_batch, with_class_weight
from dlgpu.training.objective import Objective
from dlgpu.training.step import Step


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


def read(logs: Mapping) -> dict[str, Any]:
    """The values that a step reports, as numbers of the host."""
    return {name: float(v) if getattr(v, "size", 1) == 1 else np.asarray(v) for name, v in logs.items()}


class BatchTrainer:
    """The half of a model that compiles it and works on single batches; the other half is a Layer."""

    optimizer: Any = None
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
            run_eagerly: run the layers' Python at every step. By default a step is recorded (on a GPU: captured into a
                CUDA graph) and then replayed: what layers print happens at the first steps only, and what they read may
                change between epochs only.
            auto_scale_loss: where the model or one of its layers computes in float16, put the optimizer into a
                LossScaleOptimizer.
        Raises:
            ValueError: an unknown name; the message names the nearest known one.
        """
        chosen, model = optimizers.get(optimizer), cast(Any, self)
        narrow = auto_scale_loss and any(layer.compute_dtype == np.float16 for layer in model._with_inner())
        if narrow and chosen is not None and not isinstance(chosen, optimizers.LossScaleOptimizer):
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

    def train_step(self, data: Batch | Rows) -> Mapping:
        """Train on one batch. A subclass may do it in a way of its own.

        Args:
            data: (x, y, sample_weight), the last two perhaps None.
        Returns:
            the values to report, by name; those of the last step of an epoch stand for it.
        """
        step = self._require_compiled()
        step.train(data)
        return Results(step.objective)

    def test_step(self, data: Batch | Rows) -> Mapping:
        """Evaluate one batch; see `train_step`."""
        step = self._require_compiled()
        step.evaluate(data)
        return Results(step.objective)

    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """One training step on one batch; the loss, or a list of the loss and the metrics, of this batch."""
        step, data = self._require_compiled(), self._one_batch(x, y, sample_weight)
        if class_weight is not None:
            data = with_class_weight(data, class_weight)
        step.begin_training()
        with step.shortage, step.objective.run():
            step.objective.reset()
            step.train(data.take(slice(None)))
            return self._values(step.objective.results(), return_dict)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False) -> Any:
        """The loss, or a list of the loss and the metrics, of one batch, without training."""
        step, data = self._require_compiled(), self._one_batch(x, y, sample_weight)
        with step.shortage, step.objective.run():
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

    def _check(self, data: ArrayData | StreamData, step: Step) -> None:
        """One look at all data before the run; the first batch builds the model and shows the outputs' shapes."""
        if isinstance(data, ArrayData):
            data.check_finite(step.model.dtype)
            labels = step.for_outputs(data.y, "y")
            step.objective.require_labels(labels)
        elif step.model.built:
            return
        step.begin()
        with step.model.trial():
            outputs = step.predict(first_batch(data))
        step.begin()  # the model has weights now
        if isinstance(data, ArrayData):
            step.objective.check_labels(labels, [(data.samples, *o.shape[1:]) for o in leaves(outputs)])

    def _values(self, results: dict[str, Any], return_dict: bool) -> Any:
        values = list(results.values())
        return results if return_dict else values[0] if len(values) == 1 else values

    def _require_compiled(self) -> Step:
        if self._step is None:
            raise ValueError(f"{type(self).__name__}: call compile(optimizer=..., loss=...) first")
        return self._step
