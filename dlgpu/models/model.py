"""Model: a layer that can be trained, described and saved."""

import copy
from collections.abc import Callable
from typing import Any

from dlgpu.backend.devices import Device, device
from dlgpu.layers.base import Layer
from dlgpu.models import saving
from dlgpu.models.summary import summary_table
from dlgpu.saving.configurable import Configurable
from dlgpu.training.trainer import Trainer


class Model(Trainer, Layer):
    """A network that can be trained. Three ways to make one:

        Model(inputs, outputs)          # from symbols: x = Input((20,)); y = Dense(1)(x)
        Sequential([Dense(64), ...])    # layers one after another
        class Net(Model):               # layers made in __init__, used in call(self, inputs)

    Args:
        inputs: a Symbol from `Input`, or a list or dictionary of them.
        outputs: Symbols made from them, alone, in a list or in a dictionary.
        name: made from the class's name by default.
    """

    autocast = False  # each layer converts for itself: an Embedding wants integers
    supports_masking = True
    built_for: Any = None  # the shape of the inputs, or shapes in a list or dictionary, once built

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        drawn = cls is Model and (args or "inputs" in kwargs)
        return super().__new__(Model.class_named("Functional") if drawn else cls, *args, **kwargs)

    @property
    def layers(self) -> list[Layer]:
        """The layers, in order."""
        return list({id(layer): layer for layer in self.sublayers()}.values())

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """The layer of that name, or at that place."""
        if index is not None:
            return self.layers[index]
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise ValueError(f"no layer is named {name!r}; there are {', '.join(layer.name for layer in self.layers)}")

    def compute_mask(self, inputs: Any, mask: Any) -> Any:
        """None: the layers inside have put masks on the outputs."""
        return None

    def _build(self, input_shape: Any) -> None:
        super()._build(input_shape)
        self.built_for = input_shape

    def to(self, target: str | Device) -> "Model":
        """Move all weights to a device, in place; returns the model."""
        place = device(target)
        for weight in self.weights:
            weight.array = place.asarray(weight.array)
        return self

    def summary(self, print_fn: Callable[[str], Any] = print) -> None:
        """Print a table of the layers, their output shapes and numbers of parameters."""
        print_fn(summary_table(self))

    def save(self, path: Any) -> None:
        """Write architecture, weights, compile arguments and optimizer state to one file; see `load_model`."""
        saving.save_model(self, path)

    def save_weights(self, path: Any) -> None:
        """Write all weights to a .safetensors file, atomically."""
        saving.save_weights(self, path)

    def load_weights(self, path: Any) -> None:
        """Read all weights from a .safetensors, .dlgpu or Keras's .weights.h5 file; on an error nothing is changed."""
        saving.load_weights(self, path)

    def __reduce__(self) -> tuple:
        """A pickle holds what a file of `save` does, and where the classes and functions of one's own are."""
        return saving.from_members, saving.to_members(self)

    def __deepcopy__(self, memo: dict) -> "Model":
        made = memo[id(self)] = object.__new__(type(self))
        vars(made).update(copy.deepcopy(vars(self), memo))
        return made

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments of a subclass as JSON values."""
        config = Configurable.get_config(self)
        config = {**config, "dtype": self.dtype_policy.name}
        return {**config, "name": self.name} if "name" in config else config
