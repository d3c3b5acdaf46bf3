"""Checks for people who write operations: analytic derivatives against finite differences."""

from collections.abc import Callable
from typing import Any

import numpy as np

from dlgpu import ops
from dlgpu.backend.devices import current_device
from dlgpu.tensor import Tensor


def gradcheck(
    function: Callable, *inputs: Any, second: bool = True, eps: float = 1e-5, tolerance: float = 1e-6
) -> None:
    """Check the first and the second derivative of a function in float64.

    The outputs are weighted by random factors w; each partial derivative of L = sum(w * function(inputs)) is compared
    with (L(x + eps) - L(x - eps)) / 2 eps, and likewise for the derivative of a random combination of them.

    Args:
        function: of Tensors, to a Tensor or a tuple of Tensors. It must be smooth within eps of the inputs.
        inputs: floating arrays and Tensors are converted to float64 and differentiated; all else is passed on.
        second: check the second derivative too.
        eps: the step of the finite difference.
        tolerance: the largest error allowed, relative to the largest derivative (and to 1).
    Raises:
        AssertionError: a derivative is wrong; the message names the input, its element and both values.
        ValueError: there is no floating input.
    """
    bare = [x.numpy() if isinstance(x, Tensor) else x for x in inputs]
    arrays = [np.array(x, np.float64) if _is_floating(x) else x for x in bare]
    if not any(_is_floating(x) for x in arrays):
        raise ValueError("gradcheck needs at least one floating array among the inputs")
    random = np.random.default_rng(0)
    weights: list[np.ndarray] = []

    def combined(*args: Any) -> Tensor:
        outputs = function(*args)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        if not weights:
            weights.extend(random.uniform(0.5, 1.5, o.shape) * random.choice([-1, 1], o.shape) for o in outputs)
        return sum((o * w).sum() for o, w in zip(outputs, weights))

    _compare(combined, arrays, "first", eps, tolerance)
    if second:
        positions = [i for i, x in enumerate(arrays) if _is_floating(x)]
        directions = [random.uniform(0.5, 1.5, arrays[i].shape) for i in positions]

        def slope(*args: Any) -> Tensor:
            # recorded only where slope itself is differentiated: the finite differences are of the plain backward
            grads = ops.grad(combined, positions)(*args)
            return sum((g * d).sum() for g, d in zip(grads, directions))

        _compare(slope, arrays, "second", eps, tolerance)


def _compare(function: Callable, arrays: list, which: str, eps: float, tolerance: float) -> None:
    positions = [i for i, x in enumerate(arrays) if _is_floating(x)]
    grads = ops.grad(function, positions)(*arrays_as_tensors(arrays))
    for position, grad in zip(positions, grads):
        x = arrays[position]
        if grad.shape != x.shape or grad.dtype != x.dtype:
            raise AssertionError(
                f"{which} derivative by input {position}: got {grad.dtype} of shape {grad.shape}, "
                f"expected {x.dtype} of shape {x.shape}"
            )
        numeric = np.empty_like(x)
        for index in np.ndindex(x.shape):
            centre = x[index]
            x[index] = centre + eps
            above = float(function(*arrays_as_tensors(arrays)))
            x[index] = centre - eps
            below = float(function(*arrays_as_tensors(arrays)))
            x[index] = centre
            numeric[index] = (above - below) / (2 * eps)
        error = np.abs(grad.numpy() - numeric)
        allowed = tolerance * max(1.0, np.abs(numeric).max(initial=0.0))
        if x.size and not error.max() <= allowed:  # NaN fails too
            worst = np.unravel_index(np.argmax(np.nan_to_num(error, nan=np.inf)), x.shape)
            raise AssertionError(
                f"{which} derivative by input {position} at {tuple(map(int, worst))}: "
                f"got {grad.numpy()[worst]:.9g}, finite differences give {numeric[worst]:.9g}"
            )


def arrays_as_tensors(arrays: list) -> list:
    """Arrays as constant Tensors of the current device; everything else as it is."""
    device = current_device()
    return [Tensor(x.copy(), device=device) if isinstance(x, np.ndarray) else x for x in arrays]


def _is_floating(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype.kind == "f"
