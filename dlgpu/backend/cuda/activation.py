"""Activations on CUDA: one thread an element, one pass over memory each way.

Where cuBLASLt multiplies by relu's derivative, a dense layer keeps the mask that it reads, a bit for each value (see
`cublaslt`), in place of its output.
"""

import functools
from importlib import import_module

import numpy as np

from dlgpu.backend.cuda import cublaslt
from dlgpu.backend.cuda.geometry import BLOCK, blocks_for, contiguous, empty, empty_like
from dlgpu.backend.cuda.linear import column_sums, product, product_and_sums, product_with_slope
from dlgpu.backend.cuda.source import source
from dlgpu.backend.reference import activation as reference


@reference.bias_activation.on("cuda")
def bias_activation(x, bias, name, overwrite=False):
    x = contiguous(x)
    output = x if overwrite and name not in reference.FROM_INPUT else empty_like(x)
    needed = name in reference.FROM_INPUT
    z = empty_like(x) if needed and bias is not None else None
    source("activation.cu").launch(
        "bias_activation",
        grid=blocks_for(x.size),
        block=BLOCK,
        args=(x, contiguous(bias), output, z, x.size, max(1, x.shape[-1] if x.ndim else 1)),
        dtype=x.dtype,
        defines=(f"ACTIVATION={name}",),
    )
    return output, ((x if z is None else z) if needed else output)


@reference.activation_backward.on("cuda")
def activation_backward(grad, saved, name):
    if name == "linear":
        return grad
    grad_z = empty_like(grad)
    if saved.dtype == cublaslt.MASK:
        args = contiguous(grad), contiguous(saved), grad_z, grad.size, grad.shape[-1], saved.shape[-1]
        _masks("masked_backward", grad.size, args, grad.dtype)
        return grad_z
    source("activation.cu").launch(
        "activation_backward",
        grid=blocks_for(grad.size),
        block=BLOCK,
        args=(contiguous(grad), contiguous(saved), grad_z, grad.size),
        dtype=grad.dtype,
        defines=(f"ACTIVATION={name}",),
    )
    return grad_z


def relu_and_mask(z):
    """relu(z), written over z, and its mask."""
    mask = empty(z, cublaslt.mask_shape(z.shape), cublaslt.MASK)
    args = z, mask, mask.size * 32, z.shape[-1], mask.shape[-1]
    _masks("relu_and_mask", mask.size * 32, args, z.dtype)
    return z, mask


def _masks(name, size, args, dtype):
    source("activation.cu").launch(name, blocks_for(size), BLOCK, args, dtype=dtype, defines=("ACTIVATION=relu",))


@reference.dense.on("cuda")
def dense(x, kernel, bias, name):
    if not cublaslt.serves(x) or name == "linear":
        return product(x, kernel, bias, name)
    kind = x.device.id, x.dtype.name
    masked = name == "relu" and _multiplies_by_slope(*kind, name)
    if _writes_masks(*kind) if masked else cublaslt.fuses(x, kernel.shape[-1], name):
        return product(x, kernel, bias, name, masked)
    z = product(x, kernel, bias)[0]
    return relu_and_mask(z) if masked else bias_activation(z, None, name, overwrite=True)


@reference.dense_backward.on("cuda")
def dense_backward(grad, x, kernel, saved, name, needed):
    grad_z = activation_backward(grad, saved, name)
    if needed[0] == "factors":
        by_x = grad_z, kernel
    else:
        by_x = product(grad_z, kernel.T)[0] if needed[0] else None
    if needed[1] and needed[2]:
        return by_x, *product_and_sums(x.T, grad_z)
    by_kernel = product(x.T, grad_z)[0] if needed[1] else None
    return by_x, by_kernel, column_sums(grad_z) if needed[2] else None


@reference.dense_activation_backward.on("cuda")
def dense_activation_backward(grad, kernel, saved, name):
    if not cublaslt.serves(grad):
        made, whole = product_with_slope(grad, kernel.T, saved, name)
        return made if whole else activation_backward(made, saved, name)
    if _multiplies_by_slope(grad.device.id, grad.dtype.name, name):
        found = cublaslt.product(grad, kernel.T, through=(saved, name))
        if found is not None:
            return found[0]
    return activation_backward(product(grad, kernel.T)[0], saved, name)


# What cuBLASLt does with NaN and at relu's kink is not documented: it is tried once on a device, which waits for it.

Z = np.tile(np.arange(-20, 20, dtype=np.float32) / 4, (24, 1))
Z[0], Z[1, 3:9], Z[2] = np.nan, [0, -0.0, 1e4, -1e4, 2**-14, -(2**-14)], 0
GRAD, KERNEL = ((np.arange(n * 24).reshape(n, 24) % 7 - 3).astype(np.float32) for n in (24, 40))  # small: exact sums
GRAD[5, 3] = np.nan
ROUNDING = {"float64": 2**-48, "float32": 2**-19, "float16": 2**-8, "bfloat16": 2**-5}  # beside the largest result


@functools.cache
def _multiplies_by_slope(index, dtype, name):
    """Whether cuBLASLt's product with an activation's derivative is what the kernels make, but for rounding.

    Where that is 0 it may well be left out, and NaN with it.
    """
    if name not in cublaslt.GRADIENTS:
        return False
    z, grad, kernel, ones = _on_device(dtype, Z, GRAD, KERNEL, np.ones_like(Z))
    saved = relu_and_mask(z)[1] if name == "relu" else z
    found = cublaslt.product(grad, kernel.T, through=(saved, name))
    if found is None:
        return False
    wanted, slope = (activation_backward(by, saved, name) for by in (product(grad, kernel.T)[0], ones))
    found, wanted, slope = (x.astype(np.float32).get() for x in (found[0], wanted, slope))
    found, wanted = (np.where((slope == 0) & np.isnan(x), 0, x) for x in (found, wanted))
    return bool(np.isclose(found, wanted, 0, ROUNDING[dtype] * np.nanmax(abs(wanted)), equal_nan=True).all())


@functools.cache
def _writes_masks(index, dtype):
    """Whether relu by cuBLASLt hands on NaN, and writes the mask that `relu_and_mask` does."""
    z, identity, ones = _on_device(dtype, Z, np.eye(Z.shape[1], dtype=np.float32), np.ones_like(Z))
    found = cublaslt.product(z, identity, None, "relu", masked=True)
    if found is None:
        return False
    pairs = [(output, activation_backward(ones, mask, "relu")) for output, mask in (found, relu_and_mask(z))]
    pairs = [[x.astype(np.float32).get() for x in pair] for pair in pairs]
    return all(np.array_equal(*both, equal_nan=True) for both in zip(*pairs))


def _on_device(dtype, *arrays):
    return [import_module("cupy").asarray(a).astype(np.dtype(dtype)) for a in arrays]
