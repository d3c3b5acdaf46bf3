"""Activations: bias and activation in one pass forward, the whole derivative in one pass backward."""

from dlgpu.backend.dispatch import array_namespace, kernel

# The derivative of these is a function of the output, so that the input need not be kept.
FROM_OUTPUT = ("linear", "relu", "sigmoid", "tanh")
# These need x + bias.
FROM_INPUT = ()
NAMES = FROM_OUTPUT + FROM_INPUT


@kernel
def bias_activation(x, bias, name):
    """activation(x + bias), elementwise; the bias goes along the last axis.

    Args:
        x: (..., units), floating.
        bias: (units,) of the same dtype, or None.
        name: one of NAMES.
    Returns:
        output (..., units), and what the backward needs: the output itself, or x + bias for names in FROM_INPUT.
    """
    xp = array_namespace(x)
    z = x if bias is None else x + bias
    if name == "linear":
        output = z
    elif name == "relu":
        output = xp.maximum(z, 0)
    elif name == "sigmoid":
        output = sigmoid(z)
    elif name == "tanh":
        output = xp.tanh(z)
    else:
        raise ValueError(f"no fused activation {name!r}")
    return output, (z if name in FROM_INPUT else output)


@kernel
def activation_backward(grad, saved, name):
    """grad * activation'(z): the gradient by x + bias.

    Args:
        grad: (..., units), floating.
        saved: (..., units), as returned by `bias_activation`.
        name: one of NAMES.
    Returns:
        (..., units).
    """
    if name == "linear":
        return grad
    if name == "relu":
        return grad * (saved > 0)
    if name == "sigmoid":
        return grad * (saved * (1 - saved))
    if name == "tanh":
        return grad * (1 - saved * saved)
    raise ValueError(f"no fused activation {name!r}")


def sigmoid(z):
    """1 / (1 + exp(-z)), with no overflow for either sign."""
    xp = array_namespace(z)
    small = xp.exp(-abs(z))
    return xp.where(z >= 0, 1, small) / (1 + small)
