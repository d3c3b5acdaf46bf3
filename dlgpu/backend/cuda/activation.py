"""Activations on CUDA: one thread an element, one pass over memory each way."""

from dlgpu.backend.cuda import cublaslt
from dlgpu.backend.cuda.geometry import BLOCK, blocks_for, contiguous, empty_like
from dlgpu.backend.cuda.linear import column_sums, product, product_and_sums
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
    source("activation.cu").launch(
        "activation_backward",
        grid=blocks_for(grad.size),
        block=BLOCK,
        args=(contiguous(grad), contiguous(saved), grad_z, grad.size),
        dtype=grad.dtype,
        defines=(f"ACTIVATION={name}",),
    )
    return grad_z


@reference.dense.on("cuda")
def dense(x, kernel, bias, name):
    if cublaslt.serves(x) and not cublaslt.fuses(x, kernel.shape[-1], name):
        return bias_activation(product(x, kernel, bias)[0], None, name, overwrite=True)
    return product(x, kernel, bias, name)


@reference.dense_backward.on("cuda")
def dense_backward(grad, x, kernel, saved, name, needed):
    grad_z = activation_backward(grad, saved, name)
    by_x = product(grad_z, kernel.T)[0] if needed[0] else None
    if needed[1] and needed[2]:
        return by_x, *product_and_sums(x.T, grad_z)
    by_kernel = product(x.T, grad_z)[0] if needed[1] else None
    return by_x, by_kernel, column_sums(grad_z) if needed[2] else None
