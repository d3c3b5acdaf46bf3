"""Parity: the same numbers as PyTorch, and as Keras on PyTorch."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")
