"""Layers around layers: Bidirectional and TimeDistributed."""

from typing import Any

from dlgpu.layers.base import Layer
from dlgpu.ops.recurrent import stack_time, unstack_time
from dlgpu.ops.shape import concatenate, flip, reshape
from dlgpu.tensor import Tensor

MERGES = {
    "concat": lambda a, b: concatenate([a, b], -1),
    "sum": lambda a, b: a + b,
    "ave": lambda a, b: (a + b) * 0.5,
    "mul": lambda a, b: a * b,
}


class Bidirectional(Layer):
    """A recurrent layer over the sequence from its beginning, another over it from its end, and their outputs merged

    The layers are new ones, made from the configuration of `layer`. With return_sequences, the outputs of both are in
    the order of the inputs, and zeros where the mask is False. With return_state, the states of both follow the output,
    the forward layer's first; `initial_state` takes them in that order.

    Args:
        layer: a SimpleRNN, LSTM or GRU, or another layer with `go_backwards`, `return_sequences`, `return_state` and
            `stateful`.
        merge_mode: "concat" (along the last axis), "sum", "mul", "ave", or None for two outputs.
        backward_layer: the layer that goes backwards, instead of one like `layer`; it is used itself.
    """

    autocast = False  # the layers convert for themselves
    supports_masking = True

    def __init__(
        self, layer: Layer, merge_mode: str | None = "concat", backward_layer: Layer | None = None, **kwargs: Any
    ):
        super().__init__(**kwargs)
        if merge_mode is not None and merge_mode not in MERGES:
            self.fail(f"merge_mode must be one of {', '.join(MERGES)} or None, got {merge_mode!r}")
        alike = ("return_sequences", "return_state", "stateful")
        for given in (layer, backward_layer or layer):
            if not isinstance(given, Layer) or not all(hasattr(given, a) for a in ("go_backwards", *alike)):
                self.fail(f"expected a recurrent layer, got {given!r}", TypeError)
        self.merge_mode = merge_mode
        self.forward_layer = _renewed(layer, "forward_")
        self.backward_layer = backward_layer or _renewed(layer, "backward_", go_backwards=True)
        both: Any = self.forward_layer, self.backward_layer
        if self.forward_layer.go_backwards == self.backward_layer.go_backwards:
            self.fail("the two layers must differ in go_backwards")
        for attribute in alike:
            ours, theirs = (getattr(x, attribute) for x in both)
            if ours != theirs:
                self.fail(f"the two layers must have the same {attribute}, got {ours} and {theirs}")
            setattr(self, attribute, ours)
        for one in both:
            one.zero_output_for_mask = self.return_sequences
        if self.input_shape is None:
            self.input_shape = layer.input_shape
        if not self.trainable:
            self.trainable = False  # of the layers too

    def build(self, input_shape: tuple) -> None:
        for layer in (self.forward_layer, self.backward_layer):
            if not layer.built:
                layer._build(input_shape)

    def call(self, inputs: Tensor, initial_state: Any = None, mask: Tensor | None = None) -> Any:
        states: list = [None, None]
        if initial_state is not None:
            half = len(initial_state) // 2
            states = [initial_state[:half], initial_state[half:]]
        forward = self.forward_layer(inputs, initial_state=states[0], mask=mask)
        backward = self.backward_layer(inputs, initial_state=states[1], mask=mask)
        after: tuple = ()
        if self.return_state:
            (forward, *first), (backward, *second) = forward, backward
            after = (*first, *second)
        if self.return_sequences:
            backward = flip(backward, 1)
        if self.merge_mode is None:
            return forward, backward, *after
        output = MERGES[self.merge_mode](forward, backward)
        return (output, *after) if self.return_state else output

    def compute_mask(self, inputs: Tensor, mask: Tensor | None) -> list:
        return [mask if self.return_sequences else None] * (2 if self.merge_mode is None else 1)

    def compute_output_shape(self, input_shape: tuple) -> Any:
        shapes = self.forward_layer.compute_output_shape(input_shape)
        output, *states = shapes if self.return_state else [shapes]
        if self.merge_mode == "concat":
            output = (*output[:-1], 2 * output[-1])
        outputs = [output] * (2 if self.merge_mode is None else 1) + states + states
        return outputs if len(outputs) > 1 else output

    def reset_state(self) -> None:
        """Let the next batch begin with zeros, if the layers are stateful."""
        self.forward_layer.reset_state()
        self.backward_layer.reset_state()


def _renewed(layer: Layer, prefix: str, **changed: Any) -> Layer:
    """A new layer from the same arguments, save for what is changed."""
    named = {"name": prefix + layer.name.removeprefix(prefix), "trainable": layer.trainable}
    return type(layer).from_config(layer._arguments | named | changed)


class TimeDistributed(Layer):
    """The same layer on the inputs of each step

    Shapes: (batch, time, ...) -> (batch, time, ...), where the layer takes (batch, ...).

    All steps go through the layer as one batch of batch * time samples; but one after another where the layer keeps
    state, such as the statistics of BatchNormalization. A mask (batch, time) is handed on; one of more dimensions goes
    through the layer.

    Args:
        layer: any layer of one input and one output.
    """

    autocast = False  # the layer converts for itself
    supports_masking = True

    def __init__(self, layer: Layer, **kwargs: Any):
        super().__init__(**kwargs)
        if not isinstance(layer, Layer):
            self.fail(f"expected a layer, got {layer!r}", TypeError)
        self.layer = layer
        if not self.trainable:
            self.trainable = False  # of the layer too

    def build(self, input_shape: tuple) -> None:
        if not self.layer.built:
            self.layer._build(self._step_shape(input_shape))

    def call(self, inputs: Tensor, mask: Tensor | None = None, training: bool = False) -> Tensor:
        self._step_shape(inputs.shape)
        if mask is not None and mask.shape[:2] != inputs.shape[:2]:
            self.fail(f"expected a mask of shape {inputs.shape[:2]}, got {mask.shape}")
        inner = mask if mask is not None and mask.ndim > 2 else None
        if getattr(self.layer, "stateful", False) or (training and any(not w.trainable for w in self.layer.weights)):
            steps = enumerate(unstack_time(inputs))
            outputs = stack_time([self.layer(x, mask=None if inner is None else inner[:, t]) for t, x in steps])
        else:
            samples = (inputs.shape[0] * inputs.shape[1],)
            inner = None if inner is None else reshape(inner, samples + inner.shape[2:])
            flat = self.layer(reshape(inputs, samples + inputs.shape[2:]), mask=inner)
            outputs = reshape(flat, inputs.shape[:2] + flat.shape[1:])
        if mask is not None and mask.ndim > 2:  # a step counts where anything in it does
            mask = mask.any(axis=tuple(range(2, mask.ndim)))
        outputs.mask = mask
        return outputs

    def compute_mask(self, inputs: Tensor, mask: Tensor | None) -> None:
        """None: `call` has put it on the output."""

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        batch, *rest = self.layer.compute_output_shape(self._step_shape(input_shape))
        return (batch, input_shape[1], *rest)

    def _step_shape(self, shape: tuple) -> tuple:
        """The shape of one step of inputs of a shape."""
        if len(shape) < 3:
            self.fail(f"expected inputs of shape (batch, time, ...) with three dimensions or more, got {shape}")
        return (shape[0], *shape[2:])
