"""The step: everything that is done with one batch. The one place that runs forward, loss, backward and update."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from dlgpu.autograd import no_grad
from dlgpu.backend import held
from dlgpu.backend.devices import Device
from dlgpu.backend.dispatch import is_floating
from dlgpu.backend.narrow import at_least_float32
from dlgpu.data import Batch, Rows, leaves, map_structure
from dlgpu.ops.differentiation import pull_back
from dlgpu.parameters import FlatParameters, flatten
from dlgpu.tensor import Tensor, wrap
from dlgpu.training.replay import Replays
from dlgpu.training.settings import Settings
from dlgpu.training.shortage import Shortage
from dlgpu.training.undo import Passing, states_of


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
        self._ones: dict[tuple, Tensor] = {}
        self.replays = Replays()
        self.shortage = Shortage(self)
        self.begin()

    def begin(self) -> None:
        """Look once, before a run, at what does not change during it: where the weights are and which are penalized."""
        before, self.device = self.device, self.model.device
        if self.device != before:
            self.device.load()
            self.send = self.device.sender()
        if self.objective is not None:
            self.objective.to(self.device)
            self.penalized = [w for w in self.model.trainable_weights if w.regularizer is not None]

    def forget(self) -> None:
        """Let go of recorded steps, and of the memory in which batches were sent."""
        self.replays.forget()
        if self.device is not None:
            self.send = self.device.sender()

    def begin_training(self) -> None:
        """Put the trainable weights into the flat buffer, unless they are there; the optimizer's state is kept."""
        self.begin()
        parameters = self.model.trainable_weights
        if not parameters:
            why = "is every layer frozen?" if self.model.weights else "its layers must be made in __init__, not in call"
            raise ValueError(f"the model has no trainable weights: {why}")
        with self.shortage:
            flats = flatten(parameters, self.flats)
            if flats != self.flats:
                self.flats = flats
                self.replays.forget()
            self.optimizer.build(flats)
        self.passing = Passing(self.model)
        self.replays.begin(self.device, self.settings)

    def settings(self) -> Settings:
        """What a recording takes for constant."""
        judges = [*filter(None, self.objective.losses), *self.objective.metrics]
        weights = [part for w in self.model.weights for part in (w.array, w.regularizer)]
        changing = [part for place in self.holders() for part in (place[0], held.read(*place))]
        parts = *self.model._with_inner(), *self.optimizer.parts(), *judges, *weights
        return Settings([*parts, self.penalized], changing)

    def train(self, *batches: Batch | Rows) -> None:
        """Forward, loss, backward and update on each; the loss and metrics join the epoch's sums."""
        if not all(flat.in_place() for flat in self.flats):  # another model has trained a shared layer since
            self.begin_training()
        with self.shortage, self.optimizer.overflowing():
            self.replays.run(self, *batches)
        for batch in batches:
            self.objective.samples += batch.samples

    def groups(self, batches: Iterable[Any], most: int) -> Iterator[list]:
        """The batches, with those in one list that `train` does by one launch.

        Args:
            batches: of an epoch.
            most: as many follow each other at most.
        """
        if min(most, self.replays.repeater.at_once) == 1:
            yield from ([batch] for batch in batches)
            return
        waiting: list = []
        for batch in batches:
            if waiting and not batch.follows(waiting[-1]):
                yield from ([each] for each in waiting)
                waiting = []
            if not waiting:
                size = self.replays.group_size(self, batch, most)
            waiting.append(batch)
            if len(waiting) == size:
                yield waiting
                waiting = []
            elif batch.ends:  # then comes another order, which is to be drawn after what these steps draw
                yield from ([each] for each in waiting)
                waiting = []
        yield from ([each] for each in waiting)

    def run(self, x: Any, y: list, sample_weight: list, samples: int) -> None:
        """Forward, loss, backward and update: all that a step does with arrays. The optimizer has counted the step.

        Args:
            x, y, sample_weight: from `place`.
            samples: the length of the batch.
        """
        outputs, loss = self._forward(x, y, sample_weight, training=True)
        if not loss.requires_grad:
            raise ValueError("the loss does not depend on any trainable weight: is every layer frozen?")
        scaled = self.optimizer.scale_loss(loss)
        weights = [w for flat in self.flats for w in flat.parameters]
        found = iter(pull_back([scaled], [self._one(scaled)], weights, once=True))
        for flat in self.flats:
            flat.set_gradients([*islice(found, len(flat.parameters))])
        self._count(y, outputs, sample_weight, loss, samples)
        self.optimizer.change()  # last, so that where memory runs out before no weight has changed

    def _one(self, loss: Tensor) -> Tensor:
        """The derivative of the loss by itself; it is made once, so that a step need not."""
        kind = self.device, loss.shape, loss.dtype
        if kind not in self._ones:
            self._ones[kind] = wrap(loss.device.asarray(np.ones(loss.shape, loss.dtype)))
        return self._ones[kind]

    def written(self, batch: Batch | Rows) -> Callable[[list], None]:
        """The step as it is written, from arrays that stand for the batch's; see `run`."""
        return lambda arrays: self.run(*self.arranged(batch, arrays), batch.samples)

    def holders(self) -> Iterator[tuple[Any, str]]:
        """The (object, attribute) of each array that `run` changes or reads, besides the batch."""
        yield self.objective, "loss_sum"
        yield from ((v, "array") for metric in self.objective.metrics for v in metric.variables)
        yield from ((w, "array") for w in self.model.weights)
        for layer in self.model._with_inner():
            yield from ((s, "array") for s in states_of(layer))
        yield from self.optimizer.holders()

    def evaluate(self, batch: Batch | Rows) -> None:
        """Forward and loss; they join the sums."""
        with self.shortage, no_grad():
            x, y, sample_weight = self.place(batch)
            outputs, loss = self._forward(x, y, sample_weight, training=False)
            self._count(y, outputs, sample_weight, loss, batch.samples)
        self.objective.samples += batch.samples

    def predict(self, batch: Batch | Rows) -> Any:
        """The outputs on a batch, as NumPy arrays."""
        with self.shortage, no_grad():
            outputs = self.model(self.place(Batch(batch.x))[0], training=False)
            return map_structure(lambda t: t.numpy(), outputs)

    def place(self, batch: Batch | Rows) -> tuple[Any, list, list]:
        """The batch as Tensors on the model's device: inputs, and lists of targets and weights for each output."""
        return self.arranged(batch, self.sent(batch))

    def sent(self, batch: Batch | Rows) -> list:
        """The batch's arrays on the model's device."""
        arrays, floating = leaves(tuple(batch)), at_least_float32(self.model.dtype)
        return self.send(arrays, [floating if is_floating(a) else None for a in arrays])

    def arranged(self, batch: Batch | Rows, arrays: list) -> tuple[Any, list, list]:
        """What `place` gives, of arrays that stand for the batch's."""
        sent = iter(arrays)

        def tensors(given: Any) -> Any:
            return map_structure(lambda _: wrap(next(sent)), given)

        x, y, weights = map(tensors, batch.structure)
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

    def _count(self, y: list, outputs: Any, sample_weight: list, loss: Tensor, samples: int) -> None:
        with no_grad():
            self.objective.update(y, leaves(outputs), sample_weight, loss.array, samples)
