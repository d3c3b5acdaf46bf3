"""Models: layers put together, trained, saved and loaded."""

from dlgpu.models.functional import Functional, Input
from dlgpu.models.model import Model
from dlgpu.models.sequential import Sequential

__all__ = ["Functional", "Input", "Model", "Sequential"]
