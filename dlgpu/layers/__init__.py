"""Layers: what a network is made of, with Keras's names, arguments and defaults."""

from dlgpu.layers.activation import ELU, Activation, LeakyReLU, PReLU, ReLU, Softmax
from dlgpu.layers.base import Layer
from dlgpu.layers.dense import Dense
from dlgpu.layers.dropout import Dropout, GaussianDropout, GaussianNoise, SpatialDropout1D, SpatialDropout2D
from dlgpu.layers.embedding import Embedding
from dlgpu.layers.normalization import BatchNormalization, LayerNormalization
