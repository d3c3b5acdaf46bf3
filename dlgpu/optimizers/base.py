"""Optimizer: what turns gradients into new weights."""

import functools
import operator
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from dlgpu.backend.reference import update as kernels
from dlgpu.optimizers.arguments import ArgumentChecks
from dlgpu.optimizers.kept import Kept, read_slots, write_slots
from dlgpu.optimizers.weight_decay import WeightDecay
from dlgpu.parameters import FlatParameters, Parameter, flatten
from dlgpu.saving.configurable import Configurable, serialize
from dlgpu.schedules import Schedule
from dlgpu.tensor import Tensor, as_tensor

AS_USUAL = nullcontext()


class Optimizer(ArgumentChecks, WeightDecay, Configurable):
    """Changes all parameters at once, in place, in flat buffers; clips and decays before.

    A subclass moves the values in `update`. What it keeps from step to step lives on the device: slots (running means
    and the like, of the parameters' size), which it names in `slot_starts`, and a few `scalars`, as the step's number.

        class SignDescent(Optimizer):
            "values -= learning_rate * sign(gradients)"

            def update(self, values, gradients, slots, scalars):
                values -= scalars[0] * np.sign(gradients)

    Args:
        learning_rate: a number, a Schedule, or a function without arguments, which is asked before each step.
        weight_decay: subtract weight_decay * learning_rate * values at each step, apart from the gradients.
        clipnorm: scale down each parameter's gradient whose norm is larger.
        clipvalue: limit each gradient's value to [-clipvalue, clipvalue].
        global_clipnorm: scale down all gradients together when their common norm is larger.
        use_ema: keep a running mean of the values, which takes their place when `fit` ends.
        ema_momentum: how much of that mean is kept at each step, in [0, 1].
        ema_overwrite_frequency: let the mean take their place every so many steps, too.
        loss_scale_factor: multiply the loss before its derivative and divide the gradients after, for float16.
        gradient_accumulation_steps: change the values once in so many steps (2 or more), by their mean gradient.
        name: the class's by default.
    Raises:
        ValueError: a number is out of range, or more than one way of clipping is asked for.
    """

    _varying = ("_applied", "_skipped", "_rate", "_learning_rate", "_loaded", "_own")

    def __init__(
        self,
        learning_rate: float | Schedule | Callable = 0.001,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.name = name or type(self).__name__.lower()
        self.learning_rate = learning_rate
        self.weight_decay = self.require("weight_decay", weight_decay, lambda x: x >= 0, "at least 0")
        self.clipnorm = self.require("clipnorm", clipnorm, lambda x: x > 0, "positive")
        self.clipvalue = self.require("clipvalue", clipvalue, lambda x: x > 0, "positive")
        self.global_clipnorm = self.require("global_clipnorm", global_clipnorm, lambda x: x > 0, "positive")
        if sum(limit is not None for limit in (clipnorm, clipvalue, global_clipnorm)) > 1:
            self.fail(
                "only one of clipnorm, clipvalue and global_clipnorm can be used, "
                f"got {clipnorm=}, {clipvalue=}, {global_clipnorm=}"
            )
        self.use_ema = use_ema
        self.ema_momentum = self.fraction("ema_momentum", ema_momentum)
        self.ema_overwrite_frequency = self._count("ema_overwrite_frequency", ema_overwrite_frequency, 1)
        self.loss_scale_factor = self.require("loss_scale_factor", loss_scale_factor, lambda x: x > 0, "positive")
        self.gradient_accumulation_steps = self._count("gradient_accumulation_steps", gradient_accumulation_steps, 2)
        self._applied, self._skipped = 0, 0
        self._rate: float | None = None  # the learning rate that is on the device
        self._flats: list[FlatParameters] = []
        self.kept: list[Kept] = []
        self._own: list[FlatParameters] = []
        self._loaded: dict[str, np.ndarray] | None = None
        self._undecayed = set(), None

    # -- what a subclass defines

    def slot_starts(self) -> dict[str, float]:
        """The names of the slots and the values that they begin with."""
        return {}

    def scalars(self, step: int) -> tuple[float, ...]:
        """What `update` finds in its `scalars` after the learning rate when so many steps have been made."""
        return ()

    def update(self, values: Any, gradients: Any, slots: dict[str, Any], scalars: Any) -> None:
        """Change `values` and `slots` in place, and move on all scalars but the first, the learning rate.

        It should not read numbers that change from step to step on the host: a replayed CUDA graph would not see them.

        Args:
            values, gradients, slots: (size,) arrays of one dtype.
            scalars: (1 + k,) float64 on the same device; arithmetic in place keeps `values` in their own dtype.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define update()")

    # -- the step

    @property
    def iterations(self) -> int:
        """How many times the values were changed."""
        return (self._applied - self._skipped) // (self.gradient_accumulation_steps or 1)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the coming step. Setting a number, a Schedule or a function replaces what was there."""
        return self._rates(1)[0]

    @learning_rate.setter
    def learning_rate(self, rate: float | Schedule | Callable) -> None:
        if not callable(rate):
            expected = "a number of at least 0, a Schedule or a function"
            rate = self.require("learning_rate", rate, lambda x: x >= 0, expected, required=True)
        self._learning_rate: float | Schedule | Callable = rate

    def _rates(self, count: int) -> list[float]:
        """The learning rates of so many coming steps; a function without arguments knows that of the next one only."""
        rate = self._learning_rate
        if not callable(rate):
            return [rate] * count
        if not isinstance(rate, Schedule):
            return [float(rate())]
        steps = self.gradient_accumulation_steps or 1
        return [float(rate(done // steps)) for done in range(self._applied, self._applied + count)]

    def build(self, flats: Iterable[FlatParameters]) -> None:
        """Make the slots for these buffers. Parameters that were here before keep theirs, and training goes on.

        Raises:
            ValueError: none of the parameters was here before, but others were: this is another model's optimizer; or
                a state that was set before does not fit.
        """
        flats = list(flats)
        if flats == self._flats:
            return
        before = {id(p) for flat in self._flats for p in flat.parameters}
        if before and not any(id(p) in before for flat in flats for p in flat.parameters):
            self.fail(
                f"has trained {self._flats[0].parameters[0].path} and others before: make a new one for new weights"
            )
        starts = dict(self.slot_starts())
        if self.gradient_accumulation_steps:
            starts["accumulated_gradient"] = 0.0
        if self.use_ema:
            starts["average"] = 0.0
        made = [Kept(flat, starts, len(self.scalars(0))) for flat in flats]
        for kept in made:
            if self.use_ema:
                kept.slots["average"][...] = kept.flat.values
            kept.take_over(self.kept)
        if self._loaded is not None:
            write_slots(made, self._loaded, self.fail)
            self._loaded = None
        self._flats, self.kept = flats, made
        self._count_on_device()

    def _count_on_device(self) -> None:
        """Let the device's scalars, where they are, follow `iterations`; the next step brings the learning rate."""
        for kept in self.kept:
            kept.write([np.nan, *self.scalars(self.iterations)])
        self._rate = None

    def apply(self, flats: list[FlatParameters]) -> None:
        """One step: change the values of these buffers by their gradients, which clipping changes in place."""
        self.prepare(flats)
        self.change()

    def prepare(self, flats: list[FlatParameters], count: int = 1) -> list[float]:
        """The host's part of so many steps, before `change`: count them, and tell the device the learning rate of the
        first if it is new.

        Returns:
            the learning rates of all of them, of which the others are to reach the device in time.
        """
        if flats != self._flats:
            self.build(flats)
        rates = self._rates(count)
        if rates[0] != self._rate:
            self._rate = None
            for kept in self.kept:
                kept.scalars[0] = rates[0]
        self._rate = rates[0] if rates.count(rates[0]) == count else None  # the device may get to any of them
        self.count(count)
        return rates

    def count(self, steps: int) -> None:
        """Count steps that are prepared; a negative number takes those back that failed before `change`."""
        self._applied += steps

    def phase(self, ahead: int = 0) -> tuple[bool, bool, bool]:
        """What a step is to do: change the values, begin the running means, overwrite the values by them.

        Args:
            ahead: 0 for the step that is prepared, 1 for the one that comes next.
        """
        steps, every = self.gradient_accumulation_steps or 1, self.ema_overwrite_frequency
        applied = self._applied - self._skipped + ahead
        due = applied % steps == 0
        if not self.use_ema:
            return due, False, False
        before = (applied - 1) // steps
        return due, before == 0, bool(every) and (before + 1) % every == 0

    def cycle(self) -> tuple[int, int, int] | None:
        """After how many steps the gradients' mean is due, after how many all phases have come, and how many of these
        are done; None if the host must be asked before each step."""
        if callable(self._learning_rate) and not isinstance(self._learning_rate, Schedule):
            return None
        steps = self.gradient_accumulation_steps or 1
        length = steps * (self.ema_overwrite_frequency or 1) if self.use_ema else steps
        return steps, length, (self._applied - self._skipped) % length

    def change(self) -> None:
        """The device's part of a step. It reads nothing back and does the same whenever the `phase` is the same: a CUDA
        graph of it can be replayed after each `prepare` that leads to the phase in which it was captured."""
        due, first, overwrite = self.phase()
        if self.loss_scale_factor:
            for flat in self._flats:
                flat.gradients /= self.loss_scale_factor
        if self.gradient_accumulation_steps:
            self._accumulate(due)
        if due:
            self._clip()
            if self.weight_decay and not self.decay:
                self._decay()
            for kept in self.kept:
                self.update(kept.flat.values, kept.flat.gradients, kept.slots, kept.scalars)
        if self.use_ema:
            self._follow(0 if first else self.ema_momentum)
            if overwrite:
                self.finalize()

    def _accumulate(self, due: bool) -> None:
        """Add the gradients to those that wait; when due they become the mean, and none wait."""
        for kept in self.kept:
            waiting = kept.slots["accumulated_gradient"]
            waiting += kept.flat.gradients
            if due:
                kept.flat.gradients[...] = waiting
                kept.flat.gradients /= self.gradient_accumulation_steps
                waiting[...] = 0

    def _follow(self, momentum: float) -> None:
        """average += (1 - momentum) * (values - average)

        It takes no memory, which could be missing now that the values have changed: the gradients have served.
        """
        for kept in self.kept:
            average, step = kept.slots["average"], kept.flat.gradients
            step[...] = kept.flat.values
            step -= average
            step *= 1 - momentum
            average += step

    def finalize(self) -> None:
        """Let the running means take the place of the values, if there are any: the end of training."""
        if self.use_ema:
            for kept in self.kept:
                kept.flat.values[...] = kept.slots["average"]

    def scale_loss(self, loss: Tensor) -> Tensor:
        """The loss whose derivative gives the gradients that `apply` takes."""
        return loss * self.loss_scale_factor if self.loss_scale_factor else loss

    def parts(self) -> "list[Optimizer]":
        """This optimizer, and those that it wraps."""
        return [self]

    def holders(self) -> Iterator[tuple[Any, str]]:
        """The (object, attribute) of each array that `change` changes or reads."""
        for kept in self.kept:
            yield kept, "scalars"
            yield from ((kept.flat, name) for name in ("values", "gradients"))
            yield from ((kept.slots, name) for name in kept.slots)

    def overflowing(self) -> AbstractContextManager:
        """A context for a step, in which an optimizer may expect gradients that are not finite."""
        return AS_USUAL

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Parameter]]) -> None:
        """One step of a hand-written loop. The parameters move to flat buffers, once.

        Args:
            grads_and_vars: (gradient, parameter) pairs; a gradient that is None counts as zero.
        Raises:
            ValueError: there are no gradients, or one is of another shape than its parameter.
        """
        pairs = [(None if g is None else as_tensor(g), p) for g, p in grads_and_vars]
        if all(g is None for g, _ in pairs):
            self.fail("no gradients: the loss does not depend on any of the parameters")
        for gradient, p in pairs:
            if gradient is not None and gradient.shape != p.shape:
                self.fail(f"expected a gradient of shape {p.shape} for {p.path}, got {gradient.shape}")
        gradients = {id(p): g for g, p in pairs}
        if len(gradients) < len(pairs):
            self.fail("a parameter occurs twice: add its gradients first")
        self._own = flatten([p for _, p in pairs], self._own)
        for flat in self._own:
            flat.set_gradients([gradients[id(p)] for p in flat.parameters])
        self.apply(self._own)

    def _clip(self) -> None:
        if self.global_clipnorm:
            total = functools.reduce(operator.add, [kernels.square_norm(flat.gradients) for flat in self._flats])
            for flat in self._flats:
                kernels.clip_norm(flat.gradients, total, self.global_clipnorm)
        elif self.clipnorm:
            for kept in self.kept:
                kernels.clip_norms(kept.flat.gradients, kept.segments, self.clipnorm)
        elif self.clipvalue:
            for flat in self._flats:
                kernels.clip_value(flat.gradients, self.clipvalue)

    # -- state and description

    def get_state(self) -> dict[str, np.ndarray]:
        """Copies of all that training has made: iterations, the learning rate if it is a number, and "0/slot" ... of
        each parameter, in order and of its shape."""
        state = {"iterations": np.array(self._applied - self._skipped, np.int64)}
        if isinstance(self._learning_rate, float):
            state["learning_rate"] = np.array(self._learning_rate)
        return {**state, **read_slots(self.kept), **(self._loaded or {})}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Go on from what `get_state` returned; before `build`, the slots wait for it.

        Raises:
            ValueError: the state does not fit; nothing is changed then.
        """
        if "iterations" not in state:
            self.fail(f"expected a state with 'iterations', got {sorted(state)[:5]}")
        slots = {key: np.asarray(v) for key, v in state.items() if key not in ("iterations", "learning_rate")}
        if self._flats:
            write_slots(self.kept, slots, self.fail)
        else:
            self._loaded = slots
        self._applied = int(state["iterations"])
        self._count_on_device()
        if "learning_rate" in state and isinstance(self._learning_rate, float):
            self.learning_rate = float(state["learning_rate"])

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as JSON values, with the learning rate as it is now."""
        return {**super().get_config(), "learning_rate": serialize(self._learning_rate)}
