"""Masking: steps that stand for "nothing here"."""

from typing import Any

from dlgpu.layers.base import Layer, SameShape
from dlgpu.ops.elementwise import not_equal, where
from dlgpu.tensor import Tensor


class Masking(SameShape, Layer):
    """Mask the steps of which every value equals `mask_value`; later layers that know masks skip them.

    The values of masked steps become 0.

    Shapes: (batch, time, ..., features) -> the same; the mask is (batch, time, ...).

    Args:
        mask_value: of the steps to skip.
    """

    def __init__(self, mask_value: float = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.mask_value = mask_value

    def call(self, inputs: Tensor) -> Tensor:
        if inputs.ndim < 3:
            self.fail(f"expected inputs of shape (batch, time, features), got {inputs.shape}")
        return where(self.compute_mask(inputs, None)[..., None], inputs, 0)

    def compute_mask(self, inputs: Tensor, mask: Tensor | None) -> Tensor:
        return not_equal(inputs, self.mask_value).any(axis=-1)
