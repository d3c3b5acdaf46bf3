"""Embedding: a trained vector for each integer."""

from typing import Any

import numpy as np

from dlgpu import ops
from dlgpu.layers.base import Layer
from dlgpu.tensor import Tensor


class Embedding(Layer):
    """outputs = embeddings[inputs]

    Shapes: (batch, ...) integers in [0, input_dim) -> (batch, ..., output_dim); embeddings (input_dim, output_dim).
    Whole numbers in floating inputs are converted to integers.

    Args:
        input_dim: how many integers there are: the largest one plus 1.
        output_dim: the length of each vector.
        embeddings_initializer: a name or an Initializer.
        embeddings_regularizer: a name or a Regularizer.
        mask_zero: whether 0 stands for "nothing here": later layers that know masks then skip it.
    """

    autocast = False

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: Any = "uniform",
        embeddings_regularizer: Any = None,
        mask_zero: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.require_positive_integers(input_dim=input_dim, output_dim=output_dim)
        self.input_dim, self.output_dim = input_dim, output_dim
        self.embeddings_initializer = embeddings_initializer
        self.embeddings_regularizer = embeddings_regularizer
        self.mask_zero = self.supports_masking = mask_zero

    def build(self, input_shape: tuple) -> None:
        self.embeddings = self.add_weight(
            (self.input_dim, self.output_dim),
            self.embeddings_initializer,
            "embeddings",
            regularizer=self.embeddings_regularizer,
            autocast=False,  # only the rows that are taken are cast
        )

    def call(self, inputs: Tensor) -> Tensor:
        try:
            return ops.astype(ops.gather(self.embeddings, _integers(inputs)), self.compute_dtype)
        except ValueError as error:
            floating = " (-1 stands for what is not a whole number)" if inputs.dtype.kind == "f" else ""
            return self.fail(f"{error}{floating}")

    def compute_mask(self, inputs: Tensor, mask: Tensor | None) -> Tensor | None:
        return ops.not_equal(inputs, 0) if self.mask_zero else None

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (*input_shape, self.output_dim)


def _integers(inputs: Tensor) -> Tensor:
    if inputs.dtype.kind in "iu":
        return inputs
    whole = ops.astype(inputs, np.int32)
    return ops.where(ops.equal(whole, inputs), whole, np.int32(-1))  # an index that `gather` refuses, on the device
