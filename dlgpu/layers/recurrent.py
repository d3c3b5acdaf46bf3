"""Recurrent layers: SimpleRNN, LSTM and GRU."""

from typing import Any

import numpy as np

from dlgpu import activations
from dlgpu.backend.dispatch import array_namespace
from dlgpu.initializers import Initializer
from dlgpu.layers.dropout import Noise
from dlgpu.ops.elementwise import where
from dlgpu.ops.operands import astype
from dlgpu.ops.random import dropout
from dlgpu.ops.recurrent import gru, lstm, simple_rnn
from dlgpu.ops.reduction import cumsum
from dlgpu.ops.shape import flip
from dlgpu.tensor import Tensor, wrap


class Recurrent(Noise, abstract=True):
    """What SimpleRNN, LSTM and GRU share.

    Shapes: (batch, time, features) -> (batch, units), or (batch, time, units) with return_sequences. With return_state
    a tuple of that and the final states, (batch, units) each.

    Where the inputs come with a mask, (batch, time) booleans, a step whose mask is False is not looked at: the states
    stay, and the output of the step before is repeated (zeros, if there was none).

    `call` takes `initial_state`: a list of the states before the first step, (batch, units) each.

    Args:
        units: the number of outputs.
        activation: a name or a function of a Tensor.
        use_bias: whether there is a bias.
        kernel_initializer, recurrent_initializer, bias_initializer: names or Initializers.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: names or Regularizers.
        dropout: the share of the inputs' features to drop while training, for a whole sequence at once.
        recurrent_dropout: the share of the state to drop on its way to each gate, likewise. It is slow: the steps are
            then a loop of elementary operations, as they are for other activations than the default ones.
        return_sequences: return the outputs of all steps, not only of the last.
        return_state: return the final states too.
        go_backwards: go through the steps from the last to the first; the outputs come in that order, and their mask.
        stateful: begin each batch with the final states of the one before, sample by sample, until `reset_state()`.
        unroll: without effect; for Keras's sake.
        zero_output_for_mask: output zeros where the mask is False.
        seed: an integer, for a sequence of dropout masks of its own.
    """

    parts = 1  # of the kernel
    state_count = 1

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(seed, **kwargs)
        self.require_positive_integers(units=units)
        self.units = units
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.initializers = kernel_initializer, recurrent_initializer, bias_initializer
        self.regularizers = kernel_regularizer, recurrent_regularizer, bias_regularizer
        self.dropout = self.require("dropout", dropout)
        self.recurrent_dropout = self.require("recurrent_dropout", recurrent_dropout)
        self.return_sequences, self.return_state = return_sequences, return_state
        self.go_backwards, self.stateful = go_backwards, stateful
        self.zero_output_for_mask = zero_output_for_mask
        self.states: list[Tensor] = []
        self._begun = False  # whether the states come from a batch

    def build(self, input_shape: tuple) -> None:
        if len(input_shape) != 3 or input_shape[-1] is None:
            self.fail(f"expected inputs of shape (batch, time, features), got {input_shape}")
        width = self.parts * self.units
        kernel, recurrent, bias = self.regularizers
        self.kernel = self.add_weight((input_shape[-1], width), self.initializers[0], "kernel", regularizer=kernel)
        self.recurrent_kernel = self.add_weight(
            (self.units, width), self.initializers[1], "recurrent_kernel", regularizer=recurrent
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(self.bias_shape(width), self.initial_bias, "bias", regularizer=bias)

    def bias_shape(self, width: int) -> tuple:
        """The shape of the bias beside a kernel of so many columns."""
        return (width,)

    def initial_bias(self, shape: tuple, dtype: Any) -> np.ndarray:
        """What the bias begins with."""
        return Initializer.get(self.initializers[2])(shape, dtype)

    def sequence(self, x: Tensor, states: list, mask: Tensor | None, factors: Tensor | None) -> tuple:
        """The outputs of all steps, and the final states; see `dlgpu.ops.recurrent`."""
        raise NotImplementedError

    def call(
        self, inputs: Tensor, initial_state: Any = None, mask: Tensor | None = None, training: bool = False
    ) -> Any:
        if inputs.ndim != 3 or inputs.shape[-1] != self.kernel.shape[0] or inputs.shape[1] == 0:
            self.fail(f"expected inputs of shape (batch, time, {self.kernel.shape[0]}), got {inputs.shape}")
        if mask is not None and mask.shape != inputs.shape[:2]:
            self.fail(f"expected a mask of shape {inputs.shape[:2]}, got {mask.shape}")
        states = self._before(inputs, initial_state)
        if self.go_backwards:
            inputs, mask = flip(inputs, 1), None if mask is None else flip(mask, 1)
        factors = None
        if training:
            inputs = dropout(inputs, self.dropout, self.generator, (None, 1, None))
            if self.recurrent_dropout:
                shape = (self.parts, len(inputs), self.units)
                ones = wrap(array_namespace(inputs.array).ones(shape, inputs.dtype))
                factors = dropout(ones, self.recurrent_dropout, self.generator)
        outputs, *after = self.sequence(inputs, states, mask, factors)
        if self.stateful and not self.on_trial:
            self._carry(after)
        output = outputs if self.return_sequences else after[0]
        if mask is not None and (self.zero_output_for_mask or states[0] is not None):
            filled = mask if self.zero_output_for_mask else cumsum(astype(mask, np.int32), 1) > 0
            output = where((filled if self.return_sequences else filled[:, -1])[..., None], output, 0)
        return (output, *after) if self.return_state else output

    def _before(self, inputs: Tensor, given: Any) -> list:
        """The states before the first step; None for zeros."""
        shape = (len(inputs), self.units)
        if given is not None:
            given = [self._convert(s) for s in (given if isinstance(given, (list, tuple)) else [given])]
            if [s.shape for s in given] != [shape] * self.state_count:
                shapes = ", ".join(str(s.shape) for s in given)
                self.fail(f"expected {self.state_count} initial states of shape {shape}, got {shapes}")
            return given
        if not self.stateful or not self._begun or self.on_trial:
            return [None] * self.state_count
        if self.states[0].shape != shape:
            self.fail(
                f"is stateful and has the states of a batch of {len(self.states[0])}; got a batch of {len(inputs)}. "
                "Call reset_state() before a batch of another size"
            )
        return [
            self._convert(wrap(s.array.copy())) for s in self.states
        ]  # the tape may need them after they have been overwritten

    def _carry(self, states: list) -> None:
        if [(s.shape, s.device) for s in self.states] != [(s.shape, s.device) for s in states]:
            self.states = [wrap(array_namespace(s.array).empty_like(s.array, order="C")) for s in states]
        for own, state in zip(self.states, states):
            own.array[...] = state.array
        self._begun = True

    def reset_state(self) -> None:
        """Let the next batch begin with zeros, if the layer is stateful; it may be of another size."""
        for state in self.states:
            state.array[...] = 0
        self._begun = False

    def compute_output_shape(self, input_shape: tuple) -> Any:
        batch, time, _ = input_shape
        output = (batch, time, self.units) if self.return_sequences else (batch, self.units)
        return [output, *[(batch, self.units)] * self.state_count] if self.return_state else output

    def compute_mask(self, inputs: Tensor, mask: Tensor | None) -> Any:
        if not self.return_sequences:
            mask = None
        elif mask is not None and self.go_backwards:
            mask = flip(mask, 1)
        return [mask, *[None] * self.state_count] if self.return_state else mask


class SimpleRNN(Recurrent):
    """h[t] = activation(inputs[t] @ kernel + h[t-1] @ recurrent_kernel + bias); the output is h

    Shapes: kernel (features, units), recurrent_kernel (units, units), bias (units,); see Recurrent for the rest and for
    the arguments.
    """

    def sequence(self, x: Tensor, states: list, mask: Tensor | None, factors: Tensor | None) -> tuple:
        (hidden,) = states
        return simple_rnn(x, self.kernel, self.recurrent_kernel, self.bias, hidden, mask, self.activation, factors)


class LSTM(Recurrent):
    """Long short-term memory: of inputs[t] @ kernel + h[t-1] @ recurrent_kernel + bias, in four parts i, f, g, o

    c[t] = sigmoid(f) * c[t-1] + sigmoid(i) * tanh(g)
    h[t] = sigmoid(o) * tanh(c[t])

    The output is h, the states are h and c.

    Shapes: kernel (features, 4 units), recurrent_kernel (units, 4 units), bias (4 units,); see Recurrent for the rest.
    Paper: Hochreiter and Schmidhuber 1997, doi.org/10.1162/neco.1997.9.8.1735.

    Args:
        units: the number of outputs.
        activation, recurrent_activation: what stands for tanh and for sigmoid; names or functions of a Tensor.
        use_bias: whether there is a bias.
        unit_forget_bias: begin with a bias of 1 in the part f, so that the cell remembers.
        kwargs: Recurrent's other arguments.
    """

    parts = 4
    state_count = 2

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        *,
        unit_forget_bias: bool = True,
        **kwargs: Any,
    ):
        super().__init__(units, activation, use_bias, **kwargs)
        self.recurrent_activation = activations.get(recurrent_activation)
        self.unit_forget_bias = unit_forget_bias

    def initial_bias(self, shape: tuple, dtype: Any) -> np.ndarray:
        draw = super().initial_bias
        if not self.unit_forget_bias:
            return draw(shape, dtype)
        return np.concatenate([draw((self.units,), dtype), np.ones(self.units, dtype), draw((2 * self.units,), dtype)])

    def sequence(self, x: Tensor, states: list, mask: Tensor | None, factors: Tensor | None) -> tuple:
        hidden, cell = states
        functions = self.activation, self.recurrent_activation
        return lstm(x, self.kernel, self.recurrent_kernel, self.bias, hidden, cell, mask, *functions, factors)


class GRU(Recurrent):
    """Gated recurrent units: of inputs[t] @ kernel + h[t-1] @ recurrent_kernel + bias, in three parts z, r, g

    h[t] = sigmoid(z) * h[t-1] + (1 - sigmoid(z)) * tanh(g)

    where sigmoid(r) multiplies the state's contribution to g. The output is h.

    Shapes: kernel (features, 3 units), recurrent_kernel (units, 3 units), bias (2, 3 units) with reset_after, one
    beside the inputs and one beside the state, else (3 units,); see Recurrent for the rest.
    Paper: Cho et al. 2014, arxiv.org/abs/1406.1078.

    Args:
        units: the number of outputs.
        activation, recurrent_activation: what stands for tanh and for sigmoid; names or functions of a Tensor.
        use_bias: whether there is a bias.
        reset_after: multiply by sigmoid(r) after the product with recurrent_kernel, as cuDNN does, or before it.
        kwargs: Recurrent's other arguments.
    """

    parts = 3

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        *,
        reset_after: bool = True,
        **kwargs: Any,
    ):
        super().__init__(units, activation, use_bias, **kwargs)
        self.recurrent_activation = activations.get(recurrent_activation)
        self.reset_after = reset_after

    def bias_shape(self, width: int) -> tuple:
        return (2, width) if self.reset_after else (width,)

    def sequence(self, x: Tensor, states: list, mask: Tensor | None, factors: Tensor | None) -> tuple:
        (hidden,) = states
        kernels, functions = (self.kernel, self.recurrent_kernel), (self.activation, self.recurrent_activation)
        return gru(x, *kernels, self.bias, hidden, mask, *functions, self.reset_after, factors)
