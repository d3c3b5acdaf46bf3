"""Calls of layers: what those inside of each other have in common, and the arguments that they take."""

import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dlgpu.autograd import recording
from dlgpu.ops.operands import astype
from dlgpu.parameters import Parameter
from dlgpu.tensor import Tensor


class CallState(threading.local):
    """What all calls in progress in a thread go by.

    Attributes:
        training: whether the model is being fitted.
        trial: whether this is only a look at shapes and errors.
        penalties: the list that activity regularizers fill, if somebody wants it.
        compute_dtype: of the innermost layer that is being called.
        casts: weights in a compute dtype, for the outermost call.
    """

    training = False
    trial = False
    penalties: list[Tensor] | None = None
    compute_dtype: Any = None
    casts: dict[tuple, Tensor] | None = None


state = CallState()


@contextmanager
def trial() -> Iterator[None]:
    """Inside the `with`, layers are called for a look at shapes and errors: they neither use nor keep a state."""
    before, state.trial = state.trial, True
    try:
        yield
    finally:
        state.trial = before


@contextmanager
def penalties() -> Iterator[list[Tensor]]:
    """Inside the `with`, the list is filled by the activity regularizers of the layers that are called."""
    before, state.penalties = state.penalties, []
    try:
        yield state.penalties
    finally:
        state.penalties = before


def in_compute_dtype(weight: Parameter) -> Tensor:
    """A weight in the dtype that the innermost layer computes in; one cast serves a whole call."""
    if weight.dtype == state.compute_dtype:
        return weight
    assert state.casts is not None
    key = id(weight), state.compute_dtype, recording()
    if key not in state.casts:
        state.casts[key] = astype(weight, state.compute_dtype)
    return state.casts[key]


@functools.cache
def takes(call: Callable) -> frozenset[str]:
    """Which of "training" and "mask" are arguments of a layer's `call`."""
    return frozenset(inspect.signature(call).parameters) & {"training", "mask"}


@functools.cache
def takes_one(call: Callable) -> bool:
    """Whether a layer's `call` says that its inputs are one Tensor, and not a list or dictionary of them."""
    return [p.annotation for p in inspect.signature(call).parameters.values()][1:2] == [Tensor]
