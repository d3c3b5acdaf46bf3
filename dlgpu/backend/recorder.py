"""What a step does to arrays, recorded once and replayed: a flat list of calls on memory that stays where it is."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np


class _State(threading.local):
    recording: Any = None


_state = _State()


def call(function: Callable, *args: Any) -> None:
    """function(*args), which writes its results into arrays among the args; recorded, if a step is being recorded."""
    if _state.recording is not None:
        _state.recording.add(function, args)
    function(*args)


def empty(shape: Any, dtype: Any) -> np.ndarray:
    """An array of undefined values, on memory that a recorded step keeps."""
    if _state.recording is not None:
        return _state.recording.memory.empty(shape, dtype)
    return np.empty(shape, dtype)
