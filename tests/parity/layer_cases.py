"""A small model around every kind of layer: one table for the comparisons with Keras."""

import numpy as np

SAMPLES, TIME, CHANNELS = 4, 6, 4
FLAT, SERIES, IMAGES = (CHANNELS,), (TIME, CHANNELS), (6, 6, CHANNELS)

# class: the shape of one sample, and the constructor's arguments
CASES = {
    "Activation": (FLAT, {"activation": "tanh"}),
    "ELU": (FLAT, {"alpha": 0.7}),
    "LeakyReLU": (FLAT, {}),
    "PReLU": (FLAT, {"alpha_initializer": "glorot_uniform"}),
    "ReLU": (FLAT, {"max_value": 1.0, "negative_slope": 0.1, "threshold": 0.2}),
    "Softmax": (FLAT, {}),
    "Dense": (FLAT, {"units": 3, "activation": "relu"}),
    "Embedding": ((TIME,), {"input_dim": 9, "output_dim": CHANNELS}),
    "Conv1D": (SERIES, {"filters": 3, "kernel_size": 3, "padding": "causal", "dilation_rate": 2, "activation": "relu"}),
    "Conv2D": (IMAGES, {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same", "groups": 2}),
    "Conv2DTranspose": (IMAGES, {"filters": 2, "kernel_size": 3, "strides": 2}),
    "DepthwiseConv2D": (IMAGES, {"kernel_size": (2, 3), "depth_multiplier": 2, "activation": "tanh"}),
    "SeparableConv2D": (IMAGES, {"filters": 3, "kernel_size": 3, "padding": "same"}),
    "MaxPooling1D": (SERIES, {"pool_size": 3, "strides": 2, "padding": "same"}),
    "MaxPooling2D": (IMAGES, {"pool_size": (3, 2)}),
    "AveragePooling1D": (SERIES, {"pool_size": 2, "strides": 1}),
    "AveragePooling2D": (IMAGES, {"pool_size": (3, 2), "padding": "same"}),
    "GlobalMaxPooling1D": (SERIES, {}),
    "GlobalMaxPooling2D": (IMAGES, {}),
    "GlobalAveragePooling1D": (SERIES, {}),
    "GlobalAveragePooling2D": (IMAGES, {"keepdims": True}),
    "BatchNormalization": (IMAGES, {}),
    "LayerNormalization": (SERIES, {}),
    "SimpleRNN": (SERIES, {"units": 3}),
    "GRU": (SERIES, {"units": 3, "return_sequences": True}),
    "LSTM": (SERIES, {"units": 3, "go_backwards": True}),
    "Bidirectional": (SERIES, {"layer": ("LSTM", {"units": 3})}),
    "TimeDistributed": (SERIES, {"layer": ("Dense", {"units": 3})}),
    "Masking": (SERIES, {}),
    "Flatten": (IMAGES, {}),
    "Reshape": (IMAGES, {"target_shape": (9, -1)}),
    "Permute": (IMAGES, {"dims": (3, 1, 2)}),
    "RepeatVector": (FLAT, {"n": 3}),
    "Cropping1D": (SERIES, {"cropping": (1, 2)}),
    "Cropping2D": (IMAGES, {"cropping": ((1, 0), (2, 1))}),
    "UpSampling1D": (SERIES, {"size": 2}),
    "UpSampling2D": (IMAGES, {"size": (1, 2)}),
    "ZeroPadding1D": (SERIES, {"padding": (1, 2)}),
    "ZeroPadding2D": (IMAGES, {"padding": (1, 2)}),
    "Add": (FLAT, {}),
    "Average": (FLAT, {}),
    "Concatenate": (SERIES, {"axis": 1}),
    "Dot": (SERIES, {"axes": (2, 2), "normalize": True}),
    "Maximum": (FLAT, {}),
    "Minimum": (FLAT, {}),
    "Multiply": (FLAT, {}),
    "Subtract": (FLAT, {}),
}
MERGING = {"Add", "Average", "Concatenate", "Dot", "Maximum", "Minimum", "Multiply", "Subtract"}
# noise is drawn otherwise than Keras draws it: here only its absence can be compared, in prediction
NOISE = {
    "Dropout": (FLAT, {"rate": 0.5}),
    "GaussianDropout": (FLAT, {"rate": 0.5}),
    "GaussianNoise": (FLAT, {"stddev": 0.5}),
    "SpatialDropout1D": (SERIES, {"rate": 0.5}),
    "SpatialDropout2D": (IMAGES, {"rate": 0.5}),
}


def build(library, name):
    """Dense, the layer (of two Dense, if it merges), Flatten, Dense: gradients pass through the layer to weights."""
    layers = library.layers
    shape, arguments = (CASES | NOISE)[name]
    if "layer" in arguments:
        inner, inner_arguments = arguments["layer"]
        arguments = arguments | {"layer": getattr(layers, inner)(**inner_arguments)}
    layer = getattr(layers, name)(**arguments)
    inputs = library.Input(shape)
    if name == "Embedding":
        hidden = layer(inputs)
    elif name == "Masking":
        hidden = layers.SimpleRNN(3)(layers.Dense(3, activation="tanh")(layer(inputs)))
    elif name in MERGING:
        hidden = layer([layers.Dense(CHANNELS)(inputs), layers.Dense(CHANNELS)(inputs)])
    else:
        # no bias: before a BatchNormalization its gradient is zero, and differs by rounding alone
        hidden = layer(layers.Dense(CHANNELS, use_bias=False)(inputs))
    return library.models.Model(inputs, layers.Dense(2)(layers.Flatten()(hidden)))


def data(name, rng, samples=SAMPLES):
    """Inputs for that model: indices for an Embedding, steps of zeros for Masking."""
    shape, _ = (CASES | NOISE)[name]
    if name == "Embedding":
        return rng.integers(0, 9, (samples, *shape)).astype(np.float32)
    x = rng.normal(size=(samples, *shape)).astype(np.float32)
    if name == "Masking":
        x[:, 2::3] = 0
    return x
