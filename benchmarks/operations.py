"""Single operations, forward and backward, and one update of many parameters; in dlgpu, PyTorch and JAX.

Each function returns another that does the work once, and how many steps it is.
"""

import functools
from collections.abc import Callable

import numpy as np

Work = tuple[Callable[[], object], int]
NAMES = ("layer_normalization", "softmax_cross_entropy", "embedding")


def operands(name: str) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """What is differentiated, what is not, and the gradient that comes in."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape, dtype=np.float32)

    if name == "layer_normalization":
        return [normal(8192, 1024), normal(1024), normal(1024)], [], normal(8192, 1024)
    if name == "softmax_cross_entropy":
        return [normal(512, 32_000)], [random.integers(0, 32_000, 512)], normal(512)
    return [normal(50_000, 256)], [random.integers(0, 50_000, (64, 128))], normal(64, 128, 256)


def dlgpu_operation(name: str, eager: bool = False) -> Work:
    """In dlgpu: replayed as in a training step, or called as a user's own code calls it."""
    import dlgpu
    from dlgpu.backend.recorder import Recording
    from dlgpu.backend.traced import traced
    from dlgpu.ops.differentiation import fresh, pull_back

    dlgpu.device("cpu").load()
    function = {
        "layer_normalization": dlgpu.ops.layer_normalization,
        "softmax_cross_entropy": dlgpu.ops.softmax_cross_entropy,
        "embedding": dlgpu.ops.gather,
    }[name]
    variables, constants, seed = operands(name)

    def work(noted: Callable = lambda array: array) -> object:
        inputs = [fresh(noted(v)) for v in variables]
        return pull_back([function(*inputs, *map(noted, constants))], [noted(seed)], inputs)

    if eager:
        return work, 1
    recording = Recording()
    with recording.active():
        work(traced)
    return recording.replay, 1


def torch_operation(name: str) -> Work:
    """In PyTorch."""
    import torch
    from torch.nn import functional

    function = {
        "layer_normalization": lambda x, scale, offset: functional.layer_norm(x, scale.shape, scale, offset, 1e-3),
        "softmax_cross_entropy": functools.partial(functional.cross_entropy, reduction="none"),
        "embedding": lambda table, rows: functional.embedding(rows, table),
    }[name]
    variables, constants, seed = operands(name)
    inputs = [torch.from_numpy(v).requires_grad_() for v in variables]
    others, seed = [torch.from_numpy(c) for c in constants], torch.from_numpy(seed)
    return lambda: torch.autograd.grad(function(*inputs, *others), inputs, seed), 1


def jax_operation(name: str) -> Work:
    """In JAX, jitted."""
    import jax
    import jax.numpy as jnp

    def layer_normalization(x, scale, offset):
        centred = x - x.mean(axis=1, keepdims=True)
        return centred * jax.lax.rsqrt((centred**2).mean(axis=1, keepdims=True) + 1e-3) * scale + offset

    def softmax_cross_entropy(z, labels):
        return jax.nn.logsumexp(z, axis=1) - jnp.take_along_axis(z, labels[:, None], axis=1)[:, 0]

    variables, constants, seed = operands(name)
    function = {
        "layer_normalization": layer_normalization,
        "softmax_cross_entropy": softmax_cross_entropy,
        "embedding": lambda table, rows: table[rows],
    }[name]

    @jax.jit
    def both(variables, constants, seed):
        out, pull = jax.vjp(lambda *v: function(*v, *constants), *variables)
        return out, pull(seed)

    given = jax.device_put((variables, [c.astype(np.int32) for c in constants], seed))
    return lambda: jax.block_until_ready(both(*given)), 1


# -- one update of 25 million parameters

PARAMETERS = 25_000_000


def _values_and_gradients() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, PARAMETERS), dtype=np.float32)


def dlgpu_adam() -> Work:
    """What a training step of dlgpu does after the gradients are there."""
    import dlgpu
    from dlgpu.parameters import flatten

    dlgpu.device("cpu").load()
    value, gradient = _values_and_gradients()
    flats = flatten([dlgpu.Parameter(value, "kernel")])
    flats[0].gradients[...] = gradient
    optimizer = dlgpu.optimizers.Adam()
    optimizer.build(flats)
    return lambda: optimizer.apply(flats), 1


def torch_adam() -> Work:
    """PyTorch's fused Adam."""
    import torch

    value, gradient = map(torch.from_numpy, _values_and_gradients())
    value.requires_grad_()
    value.grad = gradient
    return torch.optim.Adam([value], fused=True).step, 1


def jax_adam() -> Work:
    """In JAX, jitted, in place."""
    import jax
    import jax.numpy as jnp

    @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
    def update(p, m, v, t, g):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        rate = 1e-3 * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        return p - rate * m / (jnp.sqrt(v) + 1e-7), m, v

    value, gradient = map(jax.device_put, _values_and_gradients())
    state, steps = (value, jnp.zeros_like(value), jnp.zeros_like(value)), 0.0

    def work():
        nonlocal state, steps
        steps += 1
        state = jax.block_until_ready(update(*state, steps, gradient))

    return work, 1


def _operation(name: str) -> dict[str, Callable[[], Work]]:
    works = {peer: functools.partial(dlgpu_operation, name) for peer in ("dlgpu", "dlgpu-numpy")}
    works["dlgpu-eager"] = functools.partial(dlgpu_operation, name, eager=True)
    return {**works, "torch-fused": lambda: torch_operation(name), "jax-scan": lambda: jax_operation(name)}


# by case and peer
CASES: dict[str, dict[str, Callable[[], Work]]] = {
    **{name: _operation(name) for name in NAMES},
    "adam": {"dlgpu": dlgpu_adam, "dlgpu-numpy": dlgpu_adam, "torch-fused": torch_adam, "jax-scan": jax_adam},
}
