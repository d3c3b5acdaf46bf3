"""Metric: a number that is gathered over many batches. Sums stay on the device until somebody reads the result."""

from collections.abc import Callable
from typing import Any

from dlgpu.autograd import no_grad
from dlgpu.backend.devices import Device, current_device, device
from dlgpu.backend.dispatch import array_namespace
from dlgpu.backend.narrow import is_narrow
from dlgpu.initializers import Initializer
from dlgpu.losses import Loss
from dlgpu.losses.base import same_rank, weights_along
from dlgpu.saving.configurable import Configurable, function_named, snake_case
from dlgpu.tensor import Tensor, beside, to_array, wrap


class Variable(Tensor):
    """A part of a metric's state: a Tensor that is changed in place, by `assign`, `assign_add` or `+=`."""

    __slots__ = ()

    def assign(self, value: Any) -> None:
        """Overwrite the values."""
        self.array[...] = beside(value, self.array)

    def assign_add(self, value: Any) -> None:
        """Add to the values."""
        self.array += beside(value, self.array)

    def __iadd__(self, value: Any) -> "Variable":  # type: ignore[misc, override]
        self.assign_add(value)
        return self


class Metric(Configurable):
    """A number gathered over batches. A subclass defines `update_state` and `result`.

        class Largest(Metric):
            def __init__(self, name="largest", **kwargs):
                super().__init__(name=name, **kwargs)
                self.largest = self.add_variable()

            def update_state(self, y_true, y_pred, sample_weight=None):
                self.largest.assign(ops.maximum(self.largest, ops.max(y_pred)))

            def result(self):
                return self.largest

    Args:
        name: under which the result is reported; made from the class's name by default.
        dtype: of the sums and the result. float32 cannot count past 2**24 samples.
    """

    def __init__(self, name: str | None = None, dtype: str = "float64", **kwargs: Any):
        super().__init__(**kwargs)
        self.name = name or snake_case(type(self).__name__)
        self.dtype = dtype or "float64"
        self.variables: list[Variable] = []

    def add_variable(
        self, shape: tuple = (), initializer: Any = "zeros", dtype: Any = None, name: str | None = None
    ) -> Variable:
        """A new part of the state, on the current device; `reset_state` sets it to zero. `name` is for Keras's sake."""
        make = initializer if callable(initializer) else Initializer.get(initializer)
        made = Variable(current_device().asarray(make(tuple(shape), dtype=dtype or self.dtype)))
        self.variables.append(made)
        return made

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Args:
            y_true, y_pred: labels and predictions, (batch, ...).
            sample_weight: (batch,) or (batch, time); 1 by default.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define update_state()")

    def result(self) -> Any:
        """The value over all batches so far, as a Tensor: the device is not waited for."""
        raise NotImplementedError(f"{type(self).__name__} does not define result()")

    def reset_state(self) -> None:
        """Forget all batches."""
        for variable in self.variables:
            variable.array[...] = 0

    def to(self, target: str | Device) -> "Metric":
        """Move the state to a device; returns the metric."""
        for variable in self.variables:
            variable.array = device(target).asarray(variable.array)
        return self

    def bare(self, value: Any) -> Any:
        """A Tensor, an array or numbers as a bare array on the device of the state; 16-bit numbers as float32."""
        if self.variables:
            found = beside(value, self.variables[0].array)
        else:
            found = current_device().asarray(value.array if isinstance(value, Tensor) else to_array(value))
        return found.astype("float32") if is_narrow(found) else found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.update_state(*args, **kwargs)
        return self.result()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


class Sum(Metric):
    """sum_i w[i] values[i] over all batches, w = 1 by default."""

    def __init__(self, name: str | None = None, dtype: str = "float64"):
        super().__init__(name, dtype)
        self.total = self.add_variable()

    def update_state(self, values: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        values = self.bare(values)
        if sample_weight is not None:
            values = values * spread_weight(sample_weight, values)
        self.total.array += values.sum()

    def result(self) -> Tensor:
        return wrap(self.total.array.copy())


class Mean(Metric):
    """sum_i w[i] values[i] / sum_i w[i] over all samples of all batches, w = 1 by default; 0 before the first batch.

    Values of shape (batch, ...) are first averaged over all axes that sample_weight does not have.
    """

    def __init__(self, name: str | None = None, dtype: str = "float64"):
        super().__init__(name, dtype)
        self.total = self.add_variable()
        self.count = self.add_variable()

    def update_state(self, values: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        self.add(self.bare(values), None if sample_weight is None else self.bare(sample_weight))

    def add(self, values: Any, weight: Any = None) -> None:
        """Add a batch of values, a bare array (batch, ...), each with its weight, a bare array or None."""
        if weight is None:
            samples = len(values) if values.ndim else 1
            if samples:
                boolean = values.dtype.kind == "b"  # which NumPy counts four times faster than it sums
                total = array_namespace(values).count_nonzero(values) if boolean else values.sum()
                self.total.array += total / (values.size / samples)
                self.count.array += samples
            return
        weight, values = same_rank(weight, values)
        if values.ndim > weight.ndim:
            values = values.mean(axis=tuple(range(weight.ndim, values.ndim)))
        weight = spread_weight(weight, values)
        each = values.size / len(values) if values.size and values.ndim else 1
        self.total.array += (values * weight).sum() / each
        self.count.array += weight.sum() / each

    def result(self) -> Tensor:
        return wrap(ratio(self.total.array, self.count.array))


class SampleMean(Mean, abstract=True):
    """The mean over all samples of a function of labels and predictions; a subclass defines `values`.

    A mask on the predictions weighs masked steps with 0.
    """

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        mask = y_pred.mask if isinstance(y_pred, Tensor) else None
        values = self.values(self.bare(y_true), self.bare(y_pred))
        if isinstance(values, Tensor):
            if values.mask is not None:
                mask = values.mask if mask is None else mask * values.mask
            values = values.array
        weight = None if sample_weight is None else self.bare(sample_weight)
        self.add(values, weight if mask is None else masked_weight(weight, self.bare(mask)))

    def values(self, y_true: Any, y_pred: Any) -> Any:
        """A value for each sample or element, from bare arrays of labels and predictions (batch, ...).

        A Tensor may bear a mask of the values that count.
        """
        raise NotImplementedError


class MeanMetricWrapper(SampleMean):
    """The mean over all samples of a function (y_true, y_pred) of Tensors to a value for each sample.

    Args:
        fn: the function, or its name; or a Loss, of which the single samples' values are taken.
        name: the function's by default.
        dtype: of the sums and the result.
        **kwargs: passed on to fn.
    """

    def __init__(self, fn: Any, name: str | None = None, dtype: str = "float64", **kwargs: Any):
        if isinstance(fn, str):  # from a configuration
            fn = function_named(fn)
        named = getattr(fn, "__name__", None) or getattr(fn, "name", None) or snake_case(type(fn).__name__)
        super().__init__(name or named, dtype)
        self.fn: Callable = fn.call if isinstance(fn, Loss) else fn
        self.kwargs = kwargs

    def values(self, y_true: Any, y_pred: Any) -> Any:
        with no_grad():
            values = self.fn(wrap(y_true), wrap(y_pred), **self.kwargs)
        return values if isinstance(values, Tensor) else to_array(values)


def ratio(a: Any, b: Any) -> Any:
    """a / b, and 0 where b is 0."""
    xp = array_namespace(b)
    return xp.asarray(xp.where(b == 0, 0, a / xp.where(b == 0, 1, b)))


def aligned(metric: Metric, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Labels and predictions of one shape; labels (batch,) go with predictions (batch, 1) and the reverse."""
    if y_true.shape != y_pred.shape:
        y_true, y_pred = same_rank(y_true, y_pred)
        if y_true.shape != y_pred.shape:
            raise ValueError(f"{metric.name}: expected labels of shape {y_pred.shape}, got {y_true.shape}")
    return y_true, y_pred


def spread_weight(weight: Any, like: Any) -> Any:
    """A weight of (batch,), (batch, 1) or more axes for each element of `like`."""
    weight = weights_along(beside(weight, like), like.shape, "sample_weight")
    return array_namespace(like).broadcast_to(weight, like.shape)


def masked_weight(sample_weight: Any, mask: Any) -> Any:
    """sample_weight, None for ones, with 0 at masked steps; bare arrays."""
    return mask.astype("float32") if sample_weight is None else mask * spread_weight(sample_weight, mask)
