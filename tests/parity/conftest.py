"""Parity: the same numbers as PyTorch, and as Keras on PyTorch."""

import os

import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")
import keras

keras.utils.set_random_seed(0)  # for the layers that are made as tests are collected: each draws its seed then


@pytest.fixture(autouse=True)
def same_weights_each_run():
    keras.utils.set_random_seed(0)
