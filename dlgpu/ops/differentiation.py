"""Derivatives of functions of Tensors, and operations with a derivative of the user's own."""

import functools
import inspect
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np

from dlgpu import autograd
from dlgpu.backend.dispatch import array_namespace
from dlgpu.data.structure import map_structure
from dlgpu.ops.operands import astype
from dlgpu.tensor import Leaf, Tensor, as_tensor, record, wrap

_differentiating: ContextVar[bool] = ContextVar("dlgpu_differentiating", default=False)


def value_and_grad(function: Callable, argnums: int | Sequence[int] = 0, create_graph: bool = False) -> Callable:
    """A function that returns `function`'s value and its gradient with respect to some of its arguments.

    `function` returns one Tensor of one element. Calls nest: inside another `grad` the gradient can itself be
    differentiated, with nothing said. With respect to the weights of a model, which need not be used as arguments:

        loss, gradients = value_and_grad(lambda weights: loss_of(y, model(x)))(model.trainable_weights)

    Args:
        function: a function of Tensors, or of lists of them (arrays and numbers are converted).
        argnums: the position of the argument to differentiate by, or several.
        create_graph: record the gradient's own computation, to differentiate it later with `backward`.
    Returns:
        function(*args, **kwargs) -> (value, gradient), the gradient a Tensor of the argument's shape (a list of them
        for a list), or a tuple for several argnums; zeros where the value does not depend on the argument.
    """
    positions = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    @functools.wraps(function)
    def differentiated(*args: Any, **kwargs: Any) -> Any:
        again = create_graph or _differentiating.get()
        inputs = list(args)
        with autograd.set_recording(True):
            wanted: list[Tensor] = []
            for i in positions:
                several = isinstance(inputs[i], (list, tuple)) and any(hasattr(v, "dtype") for v in inputs[i])
                inputs[i] = [_variable(v, wanted) for v in inputs[i]] if several else _variable(inputs[i], wanted)
            token = _differentiating.set(True)
            try:
                value = function(*inputs, **kwargs)
            finally:
                _differentiating.reset(token)
        if not isinstance(value, Tensor) or value.size != 1:
            got = f"shape {value.shape}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"grad needs a function that returns a Tensor of one element; it returned {got}")
        found = iter(pull_back([value], [None], wanted, again))

        def gradient(variable: Tensor) -> Tensor:
            arrived = next(found)
            return zeros_like(variable) if arrived is None else arrived

        grads = tuple(map_structure(gradient, inputs[i]) for i in positions)
        return (value if again else value.detach()), (grads[0] if isinstance(argnums, int) else grads)

    return differentiated


def grad(function: Callable, argnums: int | Sequence[int] = 0, create_graph: bool = False) -> Callable:
    """The gradient of `function`, which returns one element; see `value_and_grad`. `grad(grad(f))` is f''."""
    pair = value_and_grad(function, argnums, create_graph)

    @functools.wraps(function)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        return pair(*args, **kwargs)[1]

    return gradient


def zeros_like(x: Tensor) -> Tensor:
    """Zeros of the shape, dtype and device of x."""
    return wrap(array_namespace(x.array).zeros_like(x.array))


def _variable(value: Any, taken: list[Tensor]) -> Tensor:
    """What to differentiate by: a weight or another leaf itself, wherever it is used; else an alias of the value."""
    is_leaf = isinstance(value, Tensor) and value.edge is not None and isinstance(value.edge[0], Leaf)
    variable = value if is_leaf and all(value is not t for t in taken) else fresh(value)
    taken.append(variable)
    return variable


def fresh(value: Any) -> Tensor:
    """`value` as a Tensor with a node of its own, which still leads to where it came from."""
    if isinstance(value, Tensor) and value.requires_grad:
        return record(value.array, (value,), lambda grad: (grad,))
    return Tensor(value, requires_grad=True)


def pull_back(
    outputs: Sequence, seeds: Sequence, inputs: Sequence[Tensor], create_graph: bool = False, once: bool = False
) -> list:
    """The gradients of `outputs`, weighted by `seeds` (None: ones), with respect to each of `inputs`.

    The walk ends at the inputs: they are held fixed towards each other. With `once` it lets the tape go behind it.

    Returns:
        a Tensor for each input, or None where no output depends on it.
    """
    pairs = [(o.edge, o._seed(s)) for o, s in zip(outputs, seeds) if o.edge is not None]
    nodes = {t.edge[0] for t in inputs if t.edge is not None}
    kept = autograd.gradients([p[0] for p in pairs], [p[1] for p in pairs], nodes.__contains__, create_graph, once)
    return [kept[t.edge[0]][t.edge[1]] if t.edge is not None and t.edge[0] in kept else None for t in inputs]


def with_composite(vjp: Callable, composite: Callable, inputs: Sequence) -> Callable:
    """A vjp that runs a kernel, and that goes through elementary operations when it is to be differentiated itself.

    Args:
        vjp: from the outputs' gradients to the inputs' gradients, by kernels that record nothing.
        composite: the same operation written with differentiable `dlgpu.ops`; takes `inputs`.
        inputs: the operation's inputs.
    """

    def either(*gradients: Any) -> Sequence:
        if not autograd.recording():
            return vjp(*gradients)
        aliases = [fresh(t) if isinstance(t, Tensor) and t.requires_grad else t for t in inputs]
        outputs = composite(*aliases)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        used = [(o, g) for o, g in zip(outputs, gradients) if g is not None]
        tensors = [t for t in aliases if isinstance(t, Tensor)]
        found = iter(pull_back([o for o, _ in used], [g for _, g in used], tensors, create_graph=True))
        return [next(found) if isinstance(t, Tensor) else None for t in aliases]

    return either


class custom_vjp:
    """An operation of the user's own: a function of plain arrays, and its vector-Jacobian product.

        @dlgpu.custom_vjp
        def cube(x):                        # arrays in, one array out
            return x * x * x

        @cube.defvjp
        def cube_vjp(grad, output, x):      # Tensors in, a gradient for each input out (None: not differentiable)
            return grad * 3 * x * x,

    The vjp may compute on bare arrays (`x.array`) and return arrays; then it cannot be differentiated a second time,
    and says so. Written with `dlgpu.ops` on Tensors, it can.
    """

    __name__: str

    def __init__(self, forward: Callable):
        self.forward = forward
        self._vjp: Callable | None = None
        functools.update_wrapper(self, forward)

    def defvjp(self, vjp: Callable) -> Callable:
        """Set `vjp(grad, output, *inputs)`, which returns one gradient for each input."""
        self._vjp = vjp
        return vjp

    def __call__(self, *args: Any) -> Tensor:
        inputs = [a if isinstance(a, Tensor) or not hasattr(a, "shape") else Tensor(a) for a in args]
        array = self.forward(*[t.array if isinstance(t, Tensor) else t for t in inputs])
        if isinstance(array, Tensor) or not hasattr(array, "dtype"):
            raise TypeError(f"{self.__name__} must return one array, got {type(array).__name__}")
        return record(array, inputs, lambda grad, output: self._pull(grad, output, inputs), with_output=True)

    def _pull(self, gradient: Tensor, output: Tensor, inputs: list) -> list:
        if self._vjp is None:
            raise ValueError(f"{self.__name__} has no derivative: define one with @{self.__name__}.defvjp")
        found = self._vjp(gradient, output, *inputs)
        found = found if isinstance(found, (tuple, list)) else (found,)
        if len(found) != len(inputs):
            raise ValueError(f"the vjp of {self.__name__} returned {len(found)} gradients for {len(inputs)} inputs")
        for position, (g, t) in enumerate(zip(found, inputs)):
            if g is not None and isinstance(t, Tensor) and np.shape(g) != t.shape:
                raise ValueError(
                    f"the vjp of {self.__name__}: expected a gradient of shape {t.shape} for input {position}, "
                    f"got {np.shape(g)}"
                )
        if autograd.recording() and any(g is not None and not isinstance(g, Tensor) for g in found):
            raise ValueError(
                f"the vjp of {self.__name__} returned plain arrays, so it cannot be differentiated again; "
                "write it with dlgpu.ops on Tensors"
            )
        return [
            astype(as_tensor(g), t.dtype) if g is not None and isinstance(t, Tensor) else None
            for g, t in zip(found, inputs)
        ]

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.forward)
