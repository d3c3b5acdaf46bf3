"""dlgpu: deep learning on NumPy and CuPy. Keras's way of building and training, plain arrays underneath."""

__version__ = "0.1.0"

from dlgpu import (
    activations,
    callbacks,
    datasets,
    initializers,
    layers,
    losses,
    metrics,
    mixed_precision,
    models,
    ops,
    optimizers,
    regularizers,
    schedules,
    testing,
)
from dlgpu.autograd import no_grad
from dlgpu.backend.cuda.user import cuda_kernel
from dlgpu.backend.devices import current_device, device, set_device
from dlgpu.backend.precision import allow_tf32
from dlgpu.errors import DeviceError, OutOfMemoryError
from dlgpu.layers.checkpointed import checkpointed
from dlgpu.models import Input, Model, Sequential
from dlgpu.ops.differentiation import custom_vjp, grad, value_and_grad
from dlgpu.ops.random import set_random_seed
from dlgpu.parameters import Parameter
from dlgpu.tensor import Tensor
