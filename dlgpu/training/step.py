"""The step: everything that is done with one batch. The one place that runs forward, loss, backward and update."""

from typing import Any

from dlgpu.autograd import no_grad
from dlgpu.data import Batch, leaves, map_structure
from dlgpu.ops.differentiation import pull_back
from dlgpu.parameters import FlatParameters, flatten
from dlgpu.tensor import Tensor, wrap
from dlgpu.training.objective import Objective


class Step:
    """Training, evaluating and predicting one batch with a model.

    Args:
        model: a built model.
        objective: its losses and metrics.
        optimizer: what changes its weights; None for evaluation only.
    """

    def __init__(self, model: Any, objective: Objective | None, optimizer: Any):
        self.model = model
        self.objective = objective
        self.optimizer = optimizer
        self.flats: list[FlatParameters] = []

    def prepare(self) -> None:
        """Put the trainable weights into the flat buffer, unless they are there; the optimizer's state is kept."""
        parameters = self.model.trainable_weights
        held = [p for flat in self.flats for p in flat.parameters]
        if len(held) == len(parameters) and {id(p) for p in held} == {id(p) for p in parameters}:
            if all(flat.in_place() for flat in self.flats):
                return
        self.flats = flatten(parameters)
        self.optimizer.build(self.flats)

    def train(self, batch: Batch) -> None:
        """Forward, loss, backward and update; the loss and metrics join the epoch's sums."""
        x, y, sample_weight = self.place(batch)
        outputs = self.model(x, training=True)
        loss = self.objective.loss(y, leaves(outputs), sample_weight)  # type: ignore[union-attr]
        for penalty in self.model.losses:
            loss = loss + penalty
        if not loss.requires_grad:
            raise ValueError("the loss does not depend on any trainable weight: is every layer frozen?")
        for flat in self.flats:
            flat.set_gradients(pull_back([loss], [None], flat.parameters))
        self.optimizer.apply(self.flats)
        self._count(batch, y, outputs, sample_weight, loss)

    def evaluate(self, batch: Batch) -> None:
        """Forward and loss; they join the sums."""
        with no_grad():
            x, y, sample_weight = self.place(batch)
            outputs = self.model(x, training=False)
            loss = self.objective.loss(y, leaves(outputs), sample_weight)  # type: ignore[union-attr]
            for penalty in self.model.losses:
                loss = loss + penalty
            self._count(batch, y, outputs, sample_weight, loss)

    def predict(self, batch: Batch) -> Any:
        """The outputs on a batch, as NumPy arrays."""
        with no_grad():
            outputs = self.model(self.place(Batch(batch.x))[0], training=False)
        return map_structure(lambda t: t.numpy(), outputs)

    def place(self, batch: Batch) -> tuple[Any, list, list]:
        """The batch as Tensors on the model's device: inputs, and lists of targets and weights for each output."""
        device, floating = self.model.device, self.model.dtype

        def tensor(array: Any) -> Tensor:
            return wrap(device.asarray(array, floating if array.dtype.kind == "f" else None))

        count = 1 if self.objective is None else len(self.objective.names)
        y, weights = (
            self._for_outputs(map_structure(tensor, given), count, what)
            for given, what in ((batch.y, "y"), (batch.sample_weight, "sample_weight"))
        )
        return map_structure(tensor, batch.x), y, weights

    def _for_outputs(self, given: Any, count: int, what: str) -> list:
        if isinstance(given, dict):
            return [given.get(name) for name in self.objective.names]  # type: ignore[union-attr]
        if isinstance(given, list):
            if len(given) != count:
                raise ValueError(f"{what}: the model has {count} outputs, got {len(given)} arrays")
            return given
        if given is None or what == "sample_weight":
            return [given] * count
        if count > 1:
            raise ValueError(f"{what}: the model has {count} outputs, expected a list of as many arrays, got one")
        return [given]

    def _count(self, batch: Batch, y: list, outputs: Any, sample_weight: list, loss: Tensor) -> None:
        with no_grad():
            self.objective.update(y, leaves(outputs), sample_weight, loss.array, batch.samples)  # type: ignore[union-attr]
