"""Layer: weights, a computation, and how they are described and saved."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np

from dlgpu.backend.devices import current_device
from dlgpu.backend.narrow import at_least_float32
from dlgpu.data.structure import leaves, map_shapes, map_structure
from dlgpu.layers import calls, names
from dlgpu.layers.symbol import Call, is_symbolic
from dlgpu.layers.weights import Weights
from dlgpu.mixed_precision import DTypePolicy
from dlgpu.ops.operands import astype
from dlgpu.regularizers import Regularizer
from dlgpu.saving.configurable import Configurable, snake_case
from dlgpu.tensor import Tensor, as_tensor

# Keras's arguments that are left out here, and the values at which they change nothing
NEUTRAL: dict[str, tuple] = {
    "_constraint": (None,),  # of any weight
    "autocast": (True,),
    "data_format": ("channels_last", None),
    "interpolation": ("nearest",),
    "lora_alpha": (None,),
    "lora_rank": (None,),
    "output_padding": (None,),
    "quantization_config": (None,),
    "renorm": (False,),
    "synchronized": (False,),
    "use_cudnn": ("auto", True, False),
    "weights": (None,),
}


class Layer(Weights, Configurable):
    """What a network is made of. A subclass defines `call`, and makes its weights in `build`.

        class Scale(Layer):
            def build(self, input_shape):
                self.factor = self.add_weight((input_shape[-1],), "ones", "factor")

            def call(self, inputs):
                return inputs * self.factor

    `call` may take `training` (whether the model is being fitted) and `mask` ((batch, time) booleans of the input).

    Args:
        name: unique in its model; made from the class's name by default.
        trainable: whether the optimizer may change the weights.
        dtype: the policy that says in which dtype the layer computes and which its weights have: a dtype for both, or
            "mixed_float16" or "mixed_bfloat16"; see `dlgpu.mixed_precision`. The global policy by default.
        input_shape: of one sample, without the batch, for the first layer of a Sequential.
        input_dim: short for input_shape=(input_dim,).
        activity_regularizer: a name or a Regularizer; its value at the output, divided by the length of the batch, is
            added to the loss.
        kwargs: arguments that Keras's layers have and these do not, at values at which they change nothing.
    """

    autocast = True  # convert inputs to the layer's compute dtype
    supports_masking = False  # hand the mask on unchanged
    _varying: ClassVar[tuple[str, ...]] = ("built",)

    def __init__(
        self,
        *,
        name: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
        input_shape: tuple | None = None,
        input_dim: int | None = None,
        activity_regularizer: Any = None,
        **kwargs: Any,
    ):
        if input_dim is not None and input_shape is None:
            input_shape = (input_dim,)
        self.name = names.give(name or names.unique_name(snake_case(type(self).__name__)))
        self.dtype_policy = DTypePolicy.get(dtype)
        self.input_shape = None if input_shape is None else tuple(input_shape)
        self.activity_regularizer = Regularizer.get(activity_regularizer)
        self.built = False
        self._trainable = trainable
        self._weights = []
        self._mixed = {}
        rest = {}
        for argument, value in kwargs.items():
            neutral = NEUTRAL.get("_constraint" if argument.endswith("_constraint") else argument)
            if neutral is None:
                rest[argument] = value
            elif not any(value is n or (np.isscalar(value) and value == n) for n in neutral):
                self.fail(f"{argument} must be {' or '.join(map(repr, neutral))}, got {value!r}")
        super().__init__(**rest)

    # -- what a subclass defines

    def build(self, input_shape: Any) -> None:
        """Make the weights for inputs of this shape, whose batch is None; for several inputs, a list of shapes."""

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """The computation on Tensors."""
        raise NotImplementedError(f"{type(self).__name__} does not define call()")

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the output for an input shape, None where a length is unknown.

        By default, a batch of two zero samples is tried; built-in layers state it outright.
        """
        device = current_device()
        zeros = map_shapes(
            lambda s: Tensor(np.zeros([n or 2 for n in s], self.compute_dtype), device=device), input_shape
        )
        with self.trial():
            output = self._run(zeros, {})
        return map_structure(lambda t: (None, *t.shape[1:]), output)

    def compute_mask(self, inputs: Any, mask: Any) -> Any:
        """The mask of the output: the input's where `supports_masking`, else none."""
        return mask if self.supports_masking else None

    def joins(self, following: "Layer | None") -> bool:
        """Whether `self(inputs, following=following)` does what `following(self(inputs))` does, in one pass."""
        return False

    @property
    def unwrapped(self) -> "Layer":
        """The layer that files of weights name: this one, or the one that it only runs in another way."""
        return self

    # -- use

    def __call__(self, inputs: Any, *, training: bool | None = None, **kwargs: Any) -> Any:
        if self.built:
            return self._apply(inputs, training, kwargs)
        with self._built_wholly():
            return self._apply(inputs, training, kwargs)

    def _apply(self, inputs: Any, training: bool | None, kwargs: dict) -> Any:
        if isinstance(inputs, (list, tuple, dict)):
            self._require_several(inputs)
        if not isinstance(inputs, Tensor) and is_symbolic(inputs):
            return self._draw(inputs, kwargs if training is None else {**kwargs, "training": training})
        inputs = map_structure(self._convert, inputs)
        if not self.built:
            self._build(map_structure(lambda t: (None, *t.shape[1:]), inputs))
            inputs = map_structure(self._convert, inputs)  # there are weights now, perhaps on another device
        before = calls.state.training
        calls.state.training = before if training is None else bool(training)
        try:
            return self._run(inputs, kwargs)
        finally:
            calls.state.training = before

    @contextmanager
    def _built_wholly(self) -> Iterator[None]:
        """On an error inside the `with`, the layers that were not built before are not built again."""
        fresh = [(layer, len(layer._weights)) for layer in self._with_inner() if not layer.built]
        try:
            yield
        except BaseException:
            for layer, count in fresh:
                layer.built = False
                del layer._weights[count:]
            raise

    trial = staticmethod(calls.trial)
    penalties = staticmethod(calls.penalties)

    @property
    def on_trial(self) -> bool:
        """Whether this call is only a look at shapes and errors."""
        return calls.state.trial

    def _run(self, inputs: Any, kwargs: dict) -> Any:
        takes = calls.takes(type(self).call)
        if "training" in takes:
            kwargs["training"] = calls.state.training
        mask = kwargs.get("mask")
        if mask is None:
            mask = map_structure(lambda t: t.mask, inputs)
            if isinstance(mask, list) and all(m is None for m in mask):
                mask = None
        else:
            mask = map_structure(lambda m: as_tensor(m, device=leaves(inputs)[0].device), mask)
        if "mask" in takes:
            kwargs["mask"] = mask
        else:
            kwargs.pop("mask", None)
        before = calls.state.compute_dtype, calls.state.casts
        calls.state.compute_dtype, calls.state.casts = self.compute_dtype, {} if before[1] is None else before[1]
        try:
            outputs = self.call(inputs, **kwargs)
        finally:
            calls.state.compute_dtype, calls.state.casts = before
        if self.activity_regularizer is not None and calls.state.penalties is not None and not calls.state.trial:
            wide = [astype(o, at_least_float32(o.dtype)) for o in leaves(outputs)]
            calls.state.penalties += [self.activity_regularizer(o) / len(o) for o in wide]
        if mask is not None or self.supports_masking:  # Embedding and Masking make one
            self._hand_on(outputs, self.compute_mask(inputs, mask))
        return outputs

    def _hand_on(self, outputs: Any, mask: Any) -> None:
        if mask is None:
            return
        masks = mask if isinstance(mask, (list, tuple)) else [mask]
        for output, m in zip(outputs if isinstance(outputs, (list, tuple)) else [outputs], masks):
            if isinstance(output, Tensor):
                output.mask = m

    def _convert(self, value: Any) -> Tensor:
        # a device is named for lists, which otherwise become float32 before they become the layer's dtype
        tensor = value if isinstance(value, Tensor) else Tensor(value, device=self.device)
        mask = tensor.mask
        if self._weights and type(tensor.array) is not type(self._weights[0].array):
            tensor = tensor.to(self._weights[0].device)
            mask = mask if mask is None else mask.to(tensor.device)
        if self.autocast and tensor.dtype != self.compute_dtype:
            tensor = astype(tensor, self.compute_dtype)
        tensor.mask = mask
        return tensor

    def _require_several(self, inputs: Any) -> None:
        if calls.takes_one(type(self).call):
            given = f"a dictionary with {', '.join(map(repr, inputs))}" if isinstance(inputs, dict) else "a list"
            self.fail(f"expected one array as inputs, got {given}")

    def _build(self, input_shape: Any) -> None:
        if isinstance(input_shape, (list, dict)):
            self._require_several(input_shape)
        self.build(input_shape)
        self.built = True

    def _draw(self, inputs: Any, kwargs: dict) -> Any:
        shape = map_structure(lambda s: s.shape, inputs)
        if not self.built:
            self._build(shape)
        call = Call(self, inputs, kwargs)
        return map_shapes(lambda s: call.output(s, self.compute_dtype.name), self.compute_output_shape(shape))

    # -- description

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments and the name, as JSON values."""
        described = {"name": self.name, "trainable": self.trainable, "dtype": self.dtype_policy.name}
        return {**super().get_config(), **described}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Layer":
        """A new layer from `get_config()`; what of name, trainable and dtype the constructor does not take is set
        afterwards."""
        takes = inspect.signature(cls.__init__).parameters
        open_ended = any(p.kind is p.VAR_KEYWORD for p in takes.values())
        later = [key for key in ("name", "trainable", "dtype") if key in config and key not in takes and not open_ended]
        layer = super().from_config({key: value for key, value in config.items() if key not in later})
        for key in later:
            if key == "dtype":
                layer.dtype_policy = DTypePolicy.get(config[key])
            else:
                setattr(layer, key, config[key])
        return layer

    def require_positive_integers(self, **arguments: Any) -> None:
        """Fail, with the argument's name, where one is something else."""
        for name, value in arguments.items():
            if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
                self.fail(f"{name} must be a positive integer, got {value!r}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}{'' if self.built else ', not built'}>"


class SameShape:
    """What layers share whose outputs have the shape of their inputs: the mask goes on unchanged."""

    supports_masking = True

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """The inputs' own."""
        return input_shape
