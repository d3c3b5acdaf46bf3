"""Sequential: layers one after another."""

from collections.abc import Iterable
from typing import Any

from dlgpu.layers.base import Layer
from dlgpu.layers.symbol import Symbol
from dlgpu.mixed_precision import DTypePolicy
from dlgpu.models.model import Model
from dlgpu.saving.configurable import deserialize, serialize


class Sequential(Model):
    """Layers one after another, each fed with the output of the one before.

        model = Sequential([Dense(64, activation="relu", input_shape=(20,)), Dense(1)])

    Weights are made as soon as the input shape is known: from the first layer's input_shape, from an `Input` in front,
    or from the first data.

    Args:
        layers: layers, perhaps with an `Input` in front.
        trainable: whether the optimizer may change the weights.
        name: made from the class's name by default.
    """

    def __init__(self, layers: Iterable[Any] | None = None, trainable: bool = True, name: str | None = None):
        super().__init__(trainable=trainable, name=name)
        self._layers: list[Layer] = []
        self._output_shape: Any = None
        if layers is not None and not isinstance(layers, Iterable):
            self.fail(f"expected a list of layers, got {layers!r}", TypeError)
        for layer in layers or []:
            self.add(layer)

    def add(self, layer: Any) -> None:
        """Put a layer at the end."""
        if isinstance(layer, Symbol):
            if self._layers:
                self.fail("an Input can only stand in front")
            self.input_shape = layer.shape[1:]
            return
        if not isinstance(layer, Layer):
            self.fail(f"expected a layer, got {layer!r}", TypeError)
        if any(layer is known or layer.name == known.name for known in self._layers):
            self.fail(f"there is a layer named {layer.name!r} already; names must differ")
        if not self._layers and layer.input_shape is not None:
            self.input_shape = layer.input_shape
        if self.input_shape is not None:
            self._output_shape = extended(layer, self._output_shape if self._layers else (None, *self.input_shape))
            self.built = True
        self._layers.append(layer)
        if not self.trainable:
            layer.trainable = False

    def pop(self) -> Layer:
        """Take the last layer off and return it."""
        if not self._layers:
            self.fail("there is no layer to take off")
        removed = self._layers.pop()
        self.built, self._output_shape = False, None
        if self._layers and self.input_shape is not None:
            self._build((None, *self.input_shape))
        return removed

    def build(self, input_shape: tuple) -> None:
        if not self._layers:
            self.fail("has no layers; add some")
        shape: Any = input_shape
        for layer in self._layers:
            shape = extended(layer, shape)
        self.input_shape, self._output_shape, self.built = tuple(input_shape[1:]), shape, True

    def call(self, inputs: Any) -> Any:
        joined = None
        for layer, following in zip(self._layers, [*self._layers[1:], None]):
            if layer is not joined:
                joined = following if layer.joins(following) else None
                inputs = layer(inputs) if joined is None else layer(inputs, following=joined)
        return inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        for layer in self._layers:
            input_shape = layer.compute_output_shape(input_shape)
        return input_shape

    @property
    def layers(self) -> list[Layer]:
        """The layers, in order."""
        return list(self._layers)

    @property
    def output_shape(self) -> Any:
        """The shape of the output, None for the batch; unknown before the model is built."""
        return self._output_shape

    def get_config(self) -> dict[str, Any]:
        """The layers, the input shape and the name."""
        own = {"name": self.name, "dtype": self.dtype_policy.name, "input_shape": self.input_shape}
        return {**own, "layers": [serialize(x) for x in self._layers]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Sequential":
        """A new model of the same layers, built if the input shape was known."""
        model = cls(name=config["name"])
        model.dtype_policy = DTypePolicy.get(config.get("dtype"))
        if config["input_shape"] is not None:
            model.input_shape = tuple(config["input_shape"])
        for layer in config["layers"]:
            model.add(deserialize(layer))
        return model


def extended(layer: Layer, shape: Any) -> Any:
    """The output shape of a layer for inputs of this shape, for which it is built now unless it is."""
    if not layer.built:
        layer._build(shape)
    return layer.compute_output_shape(shape)
