"""Checks of a whole array of labels, made once before training on the host, so that no step waits for a device."""

from typing import Any

import numpy as np

from dlgpu.backend.devices import native, to_host
from dlgpu.backend.dispatch import is_numeric
from dlgpu.tensor import Tensor


def host_labels(loss: str, y_true: Any) -> np.ndarray:
    """The labels as a NumPy array of numbers.

    Raises:
        ValueError: they are strings or objects.
    """
    labels = y_true.numpy() if isinstance(y_true, Tensor) else np.asarray(to_host(native(y_true)))
    if not is_numeric(labels):
        raise ValueError(f"{loss}: expected labels that are numbers, got dtype {labels.dtype}")
    return labels


def check_shape(loss: str, y_true: Any, y_pred_shape: tuple, hint: str = "") -> np.ndarray:
    """The labels, which must have the outputs' shape; a last axis of length 1 may be missing, or be too many."""
    labels = host_labels(loss, y_true)
    got, expected = labels.shape, tuple(y_pred_shape)
    if len(got) == len(expected) + 1 and got[-1] == 1:
        got = got[:-1]
    elif len(got) + 1 == len(expected) and expected[-1] == 1:
        expected = expected[:-1]
    if len(got) != len(expected) or any(e not in (None, g) for g, e in zip(got[1:], expected[1:])):
        raise ValueError(
            f"{loss}: expected labels of shape {as_text(y_pred_shape)}, like the outputs, got {labels.shape}.{hint}"
        )
    return labels


def check_values(loss: str, labels: np.ndarray, low: float, high: float) -> None:
    """Every label lies in [low, high]; NaN does not."""
    if (low, high) != (-np.inf, np.inf):
        _raise_first(labels, (labels >= low) & (labels <= high), f"{loss}: expected labels from {low:g} to {high:g}")


def check_classes(loss: str, y_true: Any, y_pred_shape: tuple, axis: int, ignored: int | None) -> None:
    """The labels are integers in [0, classes), or the ignored one; of the outputs' shape without the class axis."""
    labels = host_labels(loss, y_true)
    axis, shape = axis % len(y_pred_shape), tuple(y_pred_shape)
    expected, classes = shape[:axis] + shape[axis + 1 :], shape[axis]
    got = labels.shape
    if len(got) == len(shape) and got[axis] == 1:
        got = got[:axis] + got[axis + 1 :]
    if len(got) != len(expected) or any(e not in (None, g) for g, e in zip(got[1:], expected[1:])):
        hint = " For one-hot labels use categorical_crossentropy." if labels.shape[1:] == shape[1:] else ""
        raise ValueError(
            f"{loss}: expected integer labels of shape {as_text(expected)} for outputs of shape {as_text(shape)}, "
            f"got {labels.shape}.{hint}"
        )
    good = (labels >= 0) & (labels < (np.inf if classes is None else classes))
    if labels.dtype.kind == "f":
        good &= labels == np.floor(labels)
    if ignored is not None:
        good |= labels == ignored
    limits = "of at least 0" if classes is None else f"from 0 to {classes - 1}"
    _raise_first(labels, good, f"{loss}: expected integer labels {limits}, as many classes as outputs")


def as_text(shape: tuple) -> str:
    """(None, 10) as "(batch, 10)"."""
    lengths = ["batch" if i == 0 else "any" if n is None else str(n) for i, n in enumerate(shape)]
    return f"({', '.join(lengths)}{',' * (len(lengths) == 1)})"


def _raise_first(labels: np.ndarray, good: np.ndarray, message: str) -> None:
    if not good.all():
        place = tuple(map(int, np.argwhere(~good)[0]))
        raise ValueError(f"{message}; row {place[0]} holds {labels[place]:g}")
