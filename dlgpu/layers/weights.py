"""The weights of a layer and of the layers inside it, and the dtypes that they have and are computed with."""

import copy
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np

from dlgpu import initializers
from dlgpu.backend.devices import Device, current_device, to_host
from dlgpu.backend.narrow import at_least_float32
from dlgpu.layers import calls
from dlgpu.mixed_precision import DTypePolicy
from dlgpu.parameters import Parameter
from dlgpu.regularizers import Regularizer
from dlgpu.tensor import Tensor


class Weights:
    """The part of a Layer that makes, finds and overwrites weights."""

    name: str
    built: bool
    dtype_policy: DTypePolicy
    _trainable: bool
    _weights: list[Parameter]
    _mixed: dict[str, Parameter]  # those that `call` is to see in the compute dtype, by attribute

    @property
    def compute_dtype(self) -> np.dtype:
        """The dtype of the computation and of the outputs."""
        return self.dtype_policy.compute_dtype

    @property
    def variable_dtype(self) -> np.dtype:
        """The dtype of the weights."""
        return self.dtype_policy.variable_dtype

    dtype = variable_dtype

    def add_weight(
        self,
        shape: tuple,
        initializer: Any = "glorot_uniform",
        name: str = "weight",
        trainable: bool = True,
        regularizer: Any = None,
        dtype: Any = None,
        autocast: bool = True,
    ) -> Parameter:
        """A new weight of this layer, drawn on the host and put on the current device.

        Args:
            shape: of the weight.
            initializer: a name, an Initializer or a function of (shape, dtype).
            name: as Keras names it.
            trainable: False for state such as a running mean.
            regularizer: a name or a Regularizer; its value is added to the loss.
            dtype: the layer's variable dtype by default.
            autocast: whether `call` finds it in the compute dtype, as an attribute of the layer; only trained weights.
        """
        dtype = np.dtype(dtype or self.variable_dtype)
        draw, drawn_as = initializers.get(initializer), at_least_float32(dtype)
        drawn = np.array(to_host(draw(tuple(shape), dtype=drawn_as)), order="C").astype(dtype, copy=False)
        if drawn.shape != tuple(shape):
            self.fail(f"expected {initializer!r} to make {name} of shape {tuple(shape)}, got {drawn.shape}")
        made = Parameter(
            current_device().asarray(drawn), name, f"{self.name}/{name}", trainable, Regularizer.get(regularizer)
        )
        made.requires_grad = trainable and self._trainable
        made.autocast = autocast and trainable
        self._weights.append(made)
        return made

    def __setattr__(self, name: str, value: Any) -> None:
        # weights that `call` is to see in another dtype are no plain attributes: __getattr__ finds them
        mixed = self.__dict__.get("_mixed", {})
        if issubclass(type(value), Parameter) and value.autocast and value.dtype != self.compute_dtype:
            self.__dict__.pop(name, None)
            mixed[name] = value
        else:
            mixed.pop(name, None)
            super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy begins with: a shallow one has the same weights, in containers of its own."""
        state = vars(self)
        return state | {name: copy.copy(state[name]) for name in ("_weights", "_mixed") if name in state}

    def sublayers(self) -> Iterator[Any]:
        """The layers that this one holds in its attributes, alone or in lists, tuples and dictionaries.

        What it refers to by `weakref.proxy` it does not hold.
        """
        return _layers_in({name: value for name, value in vars(self).items() if name not in ("_arguments", "_weights")})

    def _with_inner(self) -> list[Any]:
        """This layer and all inside it, each once, before those that it holds: one may hold the model that it is in."""
        found: dict[int, Any] = {}
        pending = [self]
        while pending:
            layer = pending.pop()
            if id(layer) not in found:
                found[id(layer)] = layer
                pending += reversed([*layer.sublayers()])
        return [*found.values()]

    @property
    def weights(self) -> list[Parameter]:
        """All weights, in Keras's order: own trainable ones, own others, then those of inner layers."""
        found = [w for x in self._with_inner() for w in sorted(x._weights, key=lambda w: not w.trainable)]
        return list({id(w): w for w in found}.values())

    @property
    def device(self) -> Device:
        """The device of the weights; the current one for a layer without any."""
        first = next((w for layer in self._with_inner() for w in layer._weights), None)
        return current_device() if first is None else first.device

    @property
    def trainable_weights(self) -> list[Parameter]:
        """The weights that an optimizer changes."""
        return [w for w in self.weights if w.requires_grad]

    @property
    def non_trainable_weights(self) -> list[Parameter]:
        """The weights that an optimizer leaves alone."""
        return [w for w in self.weights if not w.requires_grad]

    @property
    def trainable(self) -> bool:
        """Whether the optimizer may change the weights; setting it sets it for inner layers too."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for layer in self._with_inner():
            layer._trainable = bool(value)
            for weight in layer._weights:
                weight.requires_grad = weight.trainable and layer._trainable

    @property
    def losses(self) -> list[Tensor]:
        """The regularizers' values at the current weights."""
        return [w.regularizer(w) for w in self.trainable_weights if w.regularizer is not None]

    def get_weights(self) -> list[np.ndarray]:
        """Copies of all weights as NumPy arrays, in the order of `weights`."""
        self._require_built()
        return [np.array(w.numpy()) for w in self.weights]

    def set_weights(self, weights: list) -> None:
        """Overwrite all weights, in the order of `weights`; on an error none is changed."""
        self._require_built()
        own = self.weights
        if len(weights) != len(own):
            self.fail(f"expected {len(own)} weight arrays, got {len(weights)}")
        for w, value in zip(own, weights):
            if np.shape(value) != w.shape:
                self.fail(f"expected an array of shape {w.shape} for {w.path}, got {np.shape(value)}")
        for w, value in zip(own, weights):
            w.assign(value)

    def count_params(self) -> int:
        """The number of values in all weights."""
        self._require_built()
        return sum(w.size for w in self.weights)

    def _require_built(self) -> None:
        if not self.built:
            self.fail("is not built yet and has no weights: call it on data, or give input_shape, first")

    def __getattr__(self, name: str) -> Any:
        found = self.__dict__.get("_mixed", {}).get(name)
        if found is not None:
            return found if calls.state.casts is None else calls.in_compute_dtype(found)
        # reached only for what is missing, such as the kernel of a layer that has not seen its inputs' shape
        if not name.startswith("__") and "_weights" not in self.__dict__:
            raise AttributeError(
                f"{type(self).__name__} has no {name!r}: its __init__ must call super().__init__() first"
            )
        built = self.__dict__.get("built", True)
        hint = "" if built else ", and is not built yet: call it on data, or give input_shape"
        raise AttributeError(f"{type(self).__name__} {self.__dict__.get('name')!r} has no attribute {name!r}{hint}")

    def fail(self, message: str, error: type[Exception] = ValueError) -> NoReturn:
        """Raise an error that begins with this layer's class and name."""
        raise error(f"{type(self).__name__} {self.name!r}: {message}")


def _layers_in(items: Any) -> Iterator[Weights]:
    for item in items.values() if isinstance(items, dict) else items:
        kind = type(item)  # isinstance would take a proxy for what it stands for
        if issubclass(kind, Weights):
            yield item
        elif issubclass(kind, (list, tuple, dict)):
            yield from _layers_in(item)
