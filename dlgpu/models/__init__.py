"""Models: layers put together, trained, saved and loaded."""

from dlgpu.layers.input import Input
from dlgpu.models.functional import Functional
from dlgpu.models.model import Model
from dlgpu.models.saving import load_model, save_model
from dlgpu.models.sequential import Sequential

__all__ = ["Functional", "Input", "Model", "Sequential", "load_model", "save_model"]
