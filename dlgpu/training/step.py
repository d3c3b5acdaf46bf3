"""The step: everything that is done with one batch. The one place that runs forward, loss, backward and update."""

from typing import Any

from dlgpu.autograd import no_grad
from dlgpu.backend.devices import Device
from dlgpu.backend.dispatch import is_floating
from dlgpu.data import Batch, leaves, map_structure
from dlgpu.ops.differentiation import pull_back
from dlgpu.parameters import FlatParameters, flatten
from dlgpu.tensor import Tensor, wrap


class Step:
    """Training, evaluating and predicting one batch with a model.

    Args:
        model: a built model.
        objective: its Objective; None for prediction only.
        optimizer: what changes its weights, likewise.
    """

    def __init__(self, model: Any, objective: Any = None, optimizer: Any = None):
        self.model = model
        self.objective = objective
        self.optimizer = optimizer
        self.flats: list[FlatParameters] = []
        self.device: Device | None = None
        self.begin()

    def begin(self) -> None:
        """Look once, before a run, at what does not change during it: where the weights are and which are penalized."""
        before, self.device = self.device, self.model.device
        if self.device != before:
            self.send = self.device.sender()
        if self.objective is not None:
            self.objective.to(self.device)
        self.penalized = [w for w in self.model.trainable_weights if w.regularizer is not None]

    def begin_training(self) -> None:
        """Put the trainable weights into the flat buffer, unless they are there; the optimizer's state is kept."""
        self.begin()
        parameters = self.model.trainable_weights
        if not parameters:
            raise ValueError("the model has no trainable weights: is every layer frozen?")
        self.flats = flatten(parameters, self.flats)
        self.optimizer.build(self.flats)

    def train(self, batch: Batch) -> None:
        """Forward, loss, backward and update; the loss and metrics join the epoch's sums."""
        if not all(flat.in_place() for flat in self.flats):  # another model has trained a shared layer since
            self.begin_training()
        x, y, sample_weight = self.place(batch)
        outputs, loss = self._forward(x, y, sample_weight, training=True)
        if not loss.requires_grad:
            raise ValueError("the loss does not depend on any trainable weight: is every layer frozen?")
        scaled = self.optimizer.scale_loss(loss)
        for flat in self.flats:
            flat.set_gradients(pull_back([scaled], [None], flat.parameters))
        self.optimizer.apply(self.flats)
        self._count(batch, y, outputs, sample_weight, loss)

    def evaluate(self, batch: Batch) -> None:
        """Forward and loss; they join the sums."""
        with no_grad():
            x, y, sample_weight = self.place(batch)
            outputs, loss = self._forward(x, y, sample_weight, training=False)
            self._count(batch, y, outputs, sample_weight, loss)

    def predict(self, batch: Batch) -> Any:
        """The outputs on a batch, as NumPy arrays."""
        with no_grad():
            outputs = self.model(self.place(Batch(batch.x))[0], training=False)
        return map_structure(lambda t: t.numpy(), outputs)

    def place(self, batch: Batch) -> tuple[Any, list, list]:
        """The batch as Tensors on the model's device: inputs, and lists of targets and weights for each output."""
        arrays, floating = leaves(batch), self.model.dtype
        sent = iter(self.send(arrays, [floating if is_floating(a) else None for a in arrays]))

        def tensors(given: Any) -> Any:
            return map_structure(lambda _: wrap(next(sent)), given)

        x, y, weights = map(tensors, (batch.x, batch.y, batch.sample_weight))
        return x, self.for_outputs(y, "y"), self.for_outputs(weights, "sample_weight")

    def for_outputs(self, given: Any, what: str) -> list:
        """Targets or sample weights as a list with one for each output."""
        names = ["output"] if self.objective is None else self.objective.names
        count = len(names)
        if isinstance(given, dict):
            unknown = [name for name in given if name not in names]
            if unknown:
                raise ValueError(f"{what}: there is no output {unknown[0]!r}; the outputs are {', '.join(names)}")
            return [given.get(name) for name in names]
        if isinstance(given, list):
            if len(given) != count:
                raise ValueError(f"{what}: the model has {count} outputs, got {len(given)} arrays")
            return given
        if given is None or what == "sample_weight":
            return [given] * count
        if count > 1:
            raise ValueError(f"{what}: the model has {count} outputs, expected a list of as many arrays, got one")
        return [given]

    def _forward(self, x: Any, y: list, sample_weight: list, training: bool) -> tuple[Any, Tensor]:
        with self.model.penalties() as penalties:
            outputs = self.model(x, training=training)
        loss = self.objective.loss(y, leaves(outputs), sample_weight)
        for penalty in (*penalties, *(weight.regularizer(weight) for weight in self.penalized)):
            loss = loss + penalty
        return outputs, loss

    def _count(self, batch: Batch, y: list, outputs: Any, sample_weight: list, loss: Tensor) -> None:
        with no_grad():
            self.objective.update(y, leaves(outputs), sample_weight, loss.array, batch.samples)
