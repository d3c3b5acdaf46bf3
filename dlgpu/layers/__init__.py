"""Layers: what a network is made of, with Keras's names, arguments and defaults."""

from dlgpu.layers.activation import ELU, Activation, LeakyReLU, PReLU, ReLU, Softmax
from dlgpu.layers.base import Layer
from dlgpu.layers.convolution import (
    Conv1D,
    Conv2D,
    Conv2DTranspose,
    Convolution1D,
    Convolution2D,
    DepthwiseConv2D,
    SeparableConv2D,
)
from dlgpu.layers.dense import Dense
from dlgpu.layers.dropout import Dropout, GaussianDropout, GaussianNoise, SpatialDropout1D, SpatialDropout2D
from dlgpu.layers.embedding import Embedding
from dlgpu.layers.input import Input
from dlgpu.layers.masking import Masking
from dlgpu.layers.merging import Add, Average, Concatenate, Dot, Maximum, Minimum, Multiply, Subtract
from dlgpu.layers.normalization import BatchNormalization, LayerNormalization
from dlgpu.layers.pooling import (
    AveragePooling1D,
    AveragePooling2D,
    AvgPool1D,
    AvgPool2D,
    GlobalAveragePooling1D,
    GlobalAveragePooling2D,
    GlobalAvgPool1D,
    GlobalAvgPool2D,
    GlobalMaxPool1D,
    GlobalMaxPool2D,
    GlobalMaxPooling1D,
    GlobalMaxPooling2D,
    MaxPool1D,
    MaxPool2D,
    MaxPooling1D,
    MaxPooling2D,
)
from dlgpu.layers.recurrent import GRU, LSTM, SimpleRNN
from dlgpu.layers.reshaping import (
    Cropping1D,
    Cropping2D,
    Flatten,
    Permute,
    RepeatVector,
    Reshape,
    UpSampling1D,
    UpSampling2D,
    ZeroPadding1D,
    ZeroPadding2D,
)
from dlgpu.layers.wrappers import Bidirectional, TimeDistributed
