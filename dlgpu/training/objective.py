"""What a model is trained for and watched by: the losses and metrics given to `compile`, bound to its outputs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dlgpu import losses, metrics
from dlgpu.backend.devices import Device, device_of
from dlgpu.backend.dispatch import array_namespace
from dlgpu.backend.reference.counting import add_scaled
from dlgpu.tensor import Tensor


class Objective:
    """The losses of a model's outputs and its metrics, each a sum over the epoch.

    Args:
        loss: a name, a Loss or a function of (y_true, y_pred). For several outputs a list, or a dictionary by
            output name; None leaves an output out.
        loss_weights: factors on the losses of several outputs, in the same form.
        metric: names, Metrics or functions of (y_true, y_pred); for several outputs a list of lists or a dictionary.
        weighted_metrics: the same, on samples weighted by sample_weight.
        names: of the model's outputs.
    """

    def __init__(self, loss: Any, loss_weights: Any, metric: Any, weighted_metrics: Any, names: Sequence[str]):
        self.names = list(names)
        self.losses = [losses.get(item) for item in self._by_output(loss, "loss")]
        self.loss_weights = [1.0 if w is None else float(w) for w in self._by_output(loss_weights, "loss_weights")]
        plain, weighted = (
            [[_early(m) for m in _as_list(group)] for group in self._by_output(given, what)]
            for given, what in ((metric, "metrics"), (weighted_metrics, "weighted_metrics"))
        )
        self._wanted = [[(m, False) for m in p] + [(m, True) for m in w] for p, w in zip(plain, weighted)]
        self._bound: list[list[tuple[Any, bool]]] | None = None
        self.loss_sum: Any = None  # () float64 on the model's device, from the first batch on
        self.samples = 0
        self._running = False

    def _by_output(self, given: Any, what: str) -> list:
        """What was given, as one item for each output."""
        if isinstance(given, dict):
            unknown = sorted(set(given) - set(self.names))
            if unknown:
                raise ValueError(f"{what}: there is no output {unknown[0]!r}; the outputs are {', '.join(self.names)}")
            return [given.get(name) for name in self.names]
        if len(self.names) == 1:
            return [given[0] if "loss" in what and isinstance(given, (list, tuple)) and len(given) == 1 else given]
        if isinstance(given, (list, tuple)):
            if len(given) != len(self.names):
                raise ValueError(f"{what}: expected one for each output ({', '.join(self.names)}), got {len(given)}")
            return list(given)
        return [given] * len(self.names)

    def require_labels(self, y: Sequence) -> None:
        """Raise a ValueError where an output has a loss and no labels."""
        for name, loss, labels in zip(self.names, self.losses, y):
            if loss is not None:
                _required(labels, name)

    def check_labels(self, y: Sequence, output_shapes: Sequence[tuple]) -> None:
        """Raise a ValueError where a whole array of labels does not suit the loss or the output."""
        for loss, labels, shape in zip(self.losses, y, output_shapes):
            if loss is not None:
                loss.check_labels(labels, shape)

    def loss(self, y: Sequence, outputs: Sequence[Tensor], sample_weight: Sequence) -> Tensor:
        """The weighted sum of the outputs' losses on one batch, a Tensor of one element."""
        total: Any = None
        parts = zip(self.names, self.losses, self.loss_weights, y, outputs, sample_weight)
        for name, loss, factor, labels, output, weight in parts:
            if loss is None:
                continue
            labels = _required(labels, name)
            value = loss(labels, output, weight) if factor == 1 else loss(labels, output, weight) * factor
            total = value if total is None else total + value
        if total is None:
            raise ValueError("compile the model with a loss before training or evaluating it")
        return total

    def update(self, y: Sequence, outputs: Sequence[Tensor], sample_weight: Sequence, loss: Any, samples: int) -> None:
        """Add a batch to the sums: `loss` (an array of one element) counts once for each sample.

        The number of samples is kept by the caller: this is what happens on the device.
        """
        if self.loss_sum is None:
            self.loss_sum = array_namespace(loss).zeros((), "float64")  # as metrics: float32 cannot count far
        add_scaled(self.loss_sum, loss, samples)
        if self._bound is None:
            self._bound = [
                [(metrics.for_output(m, labels.shape, o.shape) if isinstance(m, str) else m, w) for m, w in wanted]
                for wanted, labels, o in zip(self._wanted, y, outputs)
            ]
            self.to(outputs[0].device)
        for group, labels, output, weight in zip(self._bound, y, outputs, sample_weight):
            for metric, weighted in group:
                metric.update_state(labels, output, weight if weighted else None)

    def reset(self) -> None:
        """Begin an epoch."""
        self.samples = 0
        if self.loss_sum is not None:
            self.loss_sum[...] = 0
        for metric in self.metrics:
            metric.reset_state()

    def to(self, device: Device) -> None:
        """Let the sums be where the model computes."""
        if self.loss_sum is not None and device_of(self.loss_sum) != device:
            self.loss_sum = device.asarray(self.loss_sum)
        for metric in self.metrics:
            if any(v.device != device for v in metric.variables):
                metric.to(device)

    @contextmanager
    def run(self) -> Iterator[None]:
        """A run. Inside another one, as `evaluate` in a callback of `fit`, it leaves that one's sums as they were."""
        outer, self._running = self._running, True
        samples, loss_sum = self.samples, None if self.loss_sum is None else self.loss_sum.copy()
        states = [(v, v.array.copy()) for metric in self.metrics for v in metric.variables] if outer else []
        try:
            yield
        finally:
            self._running = outer
            if outer:
                self.reset()
                self.samples = samples
                if loss_sum is not None:
                    self.loss_sum[...] = loss_sum
                for variable, state in states:
                    variable.assign(state)

    @property
    def metrics(self) -> list:
        """All metrics in order; empty until the first batch has shown the outputs' shapes."""
        return [metric for group in self._bound or [] for metric, _ in group]

    def results(self) -> dict[str, Any]:
        """The loss and metrics so far, by name; a metric of several values as an array. Waits for the device."""
        found = {"loss": float(self.loss_sum) / self.samples if self.samples else 0.0}
        for name, group in zip(self.names, self._bound or []):
            prefix = "" if len(self.names) == 1 else f"{name}_"
            for metric, weighted in group:
                key = prefix + metric.name
                if weighted and key in found:
                    key = f"{prefix}weighted_{metric.name}"
                value = metric.result()
                found[_unused(key, found)] = float(value) if value.size == 1 else value.numpy()
        return found


def _early(metric: Any) -> Any:
    """The Metric, or the name that must wait for shapes; an unknown name is an error at compile."""
    return metric.lower() if isinstance(metric, str) and metric.lower() in metrics.BY_SHAPE else metrics.get(metric)


def _required(labels: Any, name: str) -> Any:
    if labels is None:
        raise ValueError(f"y: expected targets, got None for {name!r}; arrays are given apart, as in fit(x, y)")
    return labels


def _as_list(value: Any) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]


def _unused(key: str, taken: dict) -> str:
    number, name = 0, key
    while name in taken:
        number += 1
        name = f"{key}_{number}"
    return name
