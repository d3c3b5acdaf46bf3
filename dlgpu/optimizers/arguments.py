"""What is asked of an optimizer's arguments."""

import math
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from dlgpu.tensor import Tensor


class ArgumentChecks:
    """Methods that return an argument as a number, or raise a ValueError that names the class and the argument."""

    def require(
        self, what: str, value: Any, fits: Callable[[float], bool], expected: str, required: bool = False
    ) -> Any:
        """`value` as a float, or None unless it is required; an error that names the argument if it does not fit."""
        if value is None and not required:
            return None
        is_number = isinstance(value, (int, float, np.number, np.ndarray, Tensor)) and not isinstance(value, bool)
        if not is_number or not math.isfinite(float(value)) or not fits(float(value)):
            self.fail(f"{what} must be {expected}, got {value!r}")
        return float(value)

    def _count(self, what: str, value: Any, least: int) -> Any:
        """`value` if it is None or an integer of at least `least`."""
        if value is not None and (type(value) is not int or value < least):
            self.fail(f"{what} must be an integer of at least {least}, got {value!r}")
        return value

    def fraction(self, what: str, value: Any, below_one: bool = False) -> float:
        """`value` as a float in [0, 1], or [0, 1)."""
        fits, expected = (lambda x: 0 <= x < 1, "in [0, 1)") if below_one else (lambda x: 0 <= x <= 1, "in [0, 1]")
        return self.require(what, value, fits, expected, required=True)

    def positive(self, what: str, value: Any) -> float:
        """`value` as a float above 0."""
        return self.require(what, value, lambda x: x > 0, "positive", required=True)

    def fail(self, message: str) -> NoReturn:
        """Raise a ValueError that begins with the class's name."""
        raise ValueError(f"{type(self).__name__}: {message}")
