"""Mixed precision: layers compute with 16-bit numbers while their weights stay float32.

    dlgpu.mixed_precision.set_global_policy("mixed_bfloat16")

A policy is the pair of the dtypes that a layer computes in and that its weights have. Layers take the global one that
is set when they are made, or their own by `dtype=`: with `Activation("softmax", dtype="float32")` a model ends in
float32.
"""

from typing import Any

import numpy as np

from dlgpu.errors import unknown_name
from dlgpu.optimizers.loss_scale import LossScaleOptimizer
from dlgpu.saving.configurable import Configurable

__all__ = [
    "DTypePolicy",
    "LossScaleOptimizer",
    "Policy",
    "dtype_policy",
    "global_policy",
    "set_dtype_policy",
    "set_global_policy",
]
MIXED = {"mixed_float16": "float16", "mixed_bfloat16": "bfloat16"}
DTYPES = ("float16", "bfloat16", "float32", "float64")


class DTypePolicy(Configurable):
    """The dtypes of a layer.

    Args:
        name: "mixed_float16" or "mixed_bfloat16", or a dtype for both: "float32", "float64", "float16", "bfloat16".
            The global policy's by default.
    Attributes:
        compute_dtype: what inputs are cast to, what the layer computes with and returns.
        variable_dtype: of the weights, which `call` sees in the compute dtype.
    Raises:
        ValueError: an unknown name; the message names the nearest known one.
        ImportError: bfloat16, and ml_dtypes is not installed.
    """

    def __init__(self, name: str | None = None):
        self.name: str = global_policy().name if name is None else name
        if not isinstance(self.name, str):
            raise TypeError(f"expected the name of a policy, such as 'mixed_float16', got {self.name!r}")
        if self.name not in (*MIXED, *DTYPES):
            raise ValueError(unknown_name("policy", self.name, (*MIXED, *DTYPES)))
        self.compute_dtype = _dtype(MIXED.get(self.name, self.name))
        self.variable_dtype = np.dtype(np.float32) if self.name in MIXED else self.compute_dtype

    @classmethod
    def get(cls, identifier: Any) -> "DTypePolicy":
        """The policy that a layer's `dtype` means: a policy, its name or configuration, a dtype; None: global."""
        if identifier is None:
            return global_policy()
        if isinstance(identifier, str):
            return cls(identifier)
        if isinstance(identifier, (cls, dict)):
            return super().get(identifier)
        try:
            return cls(np.dtype(identifier).name)
        except TypeError:
            raise TypeError(f"expected the name of a policy, such as 'mixed_float16', got {identifier!r}") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DTypePolicy) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f'<DTypePolicy "{self.name}">'


def _dtype(name: str) -> np.dtype:
    if name == "bfloat16":
        try:
            import ml_dtypes
        except ImportError:
            raise ImportError("bfloat16 needs ml_dtypes: pip install 'dlgpu[bfloat16]'") from None
        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


_global: list[DTypePolicy] = [DTypePolicy("float32")]


def global_policy() -> DTypePolicy:
    """The policy of layers that are made without a `dtype`: "float32", until another is set."""
    return _global[0]


def set_global_policy(policy: Any) -> None:
    """Let layers that are made from now on have this policy, unless they are given a `dtype`.

    Args:
        policy: a DTypePolicy, or a name; see there.
    """
    _global[0] = DTypePolicy.get("float32" if policy is None else policy)


Policy, dtype_policy, set_dtype_policy = DTypePolicy, global_policy, set_global_policy
