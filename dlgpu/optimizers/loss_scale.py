"""LossScaleOptimizer: float16 training without gradients that vanish."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from dlgpu.backend.devices import device_of, to_host
from dlgpu.backend.reference import loss_scale as kernels
from dlgpu.optimizers.base import Optimizer
from dlgpu.optimizers.kept import Kept
from dlgpu.parameters import FlatParameters
from dlgpu.tensor import Tensor, wrap


class LossScaleOptimizer(Optimizer):
    """Another optimizer, with the loss multiplied by a scale so that small gradients do not become 0 in float16.

    Gradients are divided by the scale again. A step in which one of them is not finite is skipped: weights, slots and
    `iterations` stay as they were, and the scale is halved. After `dynamic_growth_steps` steps without that it is
    doubled. The scale and the decision live on the device; nothing waits for them.

    A Schedule counts skipped steps too. With gradient accumulation or a running mean in the inner optimizer, each step
    waits for the device, as what it does goes by the number of steps that were not skipped.

    Args:
        inner_optimizer: an Optimizer or its name; clipping, weight decay and the like are its own business.
        initial_scale: what the scale begins with.
        dynamic_growth_steps: after how many finite steps it is doubled.
        name: the class's by default.
    """

    def __init__(
        self,
        inner_optimizer: Any,
        initial_scale: float = 2.0**15,
        dynamic_growth_steps: int = 2000,
        name: str | None = None,
    ):
        self.name = name or "loss_scale_optimizer"
        self.inner_optimizer: Any = Optimizer.get(inner_optimizer)
        if self.inner_optimizer is None or isinstance(self.inner_optimizer, LossScaleOptimizer):
            self.fail(f"inner_optimizer must be another optimizer, got {inner_optimizer!r}")
        self.inner_optimizer.loss_scale_factor = None  # as in Keras: one scale is enough
        self.initial_scale = self.positive("initial_scale", initial_scale)
        self.dynamic_growth_steps = self._count("dynamic_growth_steps", dynamic_growth_steps, 1)
        self._own: list[FlatParameters] = []
        self.state: Any = np.array([self.initial_scale, 0, 0, 0], np.float32)  # see the kernels; moves with the weights
        self._copies: list[list] = []
        self._copied: Any = None  # the inner optimizer's `kept` for which there are copies

    # -- the scale

    @property
    def dynamic_scale(self) -> float:
        """The scale of the coming step; waits for the device."""
        return float(to_host(self.state)[kernels.SCALE])

    @property
    def skipped(self) -> int:
        """How many steps were skipped; waits for the device."""
        return int(to_host(self.state)[kernels.SKIPPED])

    def scale_loss(self, loss: Tensor) -> Tensor:
        """The loss times the scale."""
        if type(self.state) is not type(loss.array):
            self._move(loss.array)
        return loss * wrap(self.state[kernels.SCALE : kernels.SCALE + 1].reshape(()))

    def _move(self, like: Any) -> None:
        if device_of(self.state) != device_of(like):
            self.state = device_of(like).asarray(self.state)

    # -- the step

    # the inner optimizer's
    _flats: Any = property(lambda self: self.inner_optimizer._flats)
    kept: Any = property(lambda self: self.inner_optimizer.kept)

    @property
    def iterations(self) -> int:
        """How many times the values were changed; waits for the device."""
        self._settle()
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self) -> float:
        """The inner optimizer's."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, rate: Any) -> None:
        self.inner_optimizer.learning_rate = rate

    def build(self, flats: Iterable[FlatParameters]) -> None:
        """As for every optimizer; and make room to keep what a skipped step would change."""
        flats = list(flats)
        if flats != self._flats:
            self._settle()
        self.inner_optimizer.build(flats)
        self._move(flats[0].values)
        if self._copied is not self.kept:
            self._copied = self.kept
            self._copies = [[array.copy() for array in _changed(kept)] for kept in self.kept]

    def prepare(self, flats: list[FlatParameters], count: int = 1) -> list[float]:
        """See Optimizer."""
        if self._copied is None or flats != self._flats:
            self.build(flats)
        rates = self.inner_optimizer.prepare(flats, count)
        self.phase()
        return rates

    def count(self, steps: int) -> None:
        """See Optimizer."""
        self.inner_optimizer.count(steps)

    def phase(self, ahead: int = 0) -> tuple[bool, bool, bool]:
        """See Optimizer."""
        if self._goes_by_skips():
            self._settle()
        return self.inner_optimizer.phase(ahead)

    def cycle(self) -> tuple[int, int, int] | None:
        """See Optimizer."""
        return None if self._goes_by_skips() else self.inner_optimizer.cycle()

    def _goes_by_skips(self) -> bool:
        """Whether what a step does goes by how many were skipped, which the device counts."""
        return bool(self.inner_optimizer.gradient_accumulation_steps or self.inner_optimizer.use_ema)

    def _settle(self) -> None:
        self.inner_optimizer._skipped = self.skipped

    def change(self) -> None:
        """See Optimizer. What is to be skipped is done, and undone; the copies are made in such a step only."""
        with self.overflowing():
            for flat in self._flats:
                kernels.unscale(flat.gradients, self.state)
            pairs = [pair for kept, copies in zip(self.kept, self._copies) for pair in zip(_changed(kept), copies)]
            for array, copy in pairs:
                kernels.copy_if_skipped(copy, array, self.state)
            self.inner_optimizer.change()
            for array, copy in pairs:
                kernels.copy_if_skipped(array, copy, self.state)
            kernels.adjust_scale(self.state, self.dynamic_growth_steps)

    def finalize(self) -> None:
        """See Optimizer."""
        self.inner_optimizer.finalize()

    def parts(self) -> list[Optimizer]:
        """This optimizer and the inner one."""
        return [self, *self.inner_optimizer.parts()]

    def holders(self) -> Iterator[tuple[Any, str]]:
        """The (object, attribute) of each array that `change` changes."""
        yield self, "state"
        yield from self.inner_optimizer.holders()

    def overflowing(self) -> AbstractContextManager:
        """NumPy's warnings are off: the scale goes by what overflows."""
        return np.errstate(over="ignore", invalid="ignore")

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        """See Optimizer."""
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)

    # -- state and description

    def get_state(self) -> dict[str, np.ndarray]:
        """The inner optimizer's, and in "loss_scale" the scale, the finite steps since it changed, and the skipped."""
        self._settle()
        return {**self.inner_optimizer.get_state(), "loss_scale": np.array(to_host(self.state)[: kernels.FOUND])}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Go on from what `get_state` returned, or from the state of the inner optimizer alone."""
        inner = {key: value for key, value in state.items() if key != "loss_scale"}
        start = np.array([self.initial_scale, 0, 0, 0], np.float32)
        if "loss_scale" in state:
            if np.shape(state["loss_scale"]) != (kernels.FOUND,):
                self.fail(f"expected 3 numbers in the state's 'loss_scale', got {state['loss_scale']!r}")
            start[: kernels.FOUND] = state["loss_scale"]
        before, self.inner_optimizer._skipped = self.inner_optimizer._skipped, 0
        try:
            self.inner_optimizer.set_state(inner)
        except BaseException:
            self.inner_optimizer._skipped = before
            raise
        self.state[...] = device_of(self.state).asarray(start)
        skipped = int(start[kernels.SKIPPED])
        self.inner_optimizer._applied += skipped
        self.inner_optimizer._skipped = skipped

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as JSON values."""
        return super(Optimizer, self).get_config()


def _changed(kept: Kept) -> list:
    """The arrays that a step changes."""
    return [kept.flat.values, *kept.slots.values(), kept.scalars]
