"""When memory runs out: an error that says what asked for how much and what helps, and a model that can go on."""

import sys
import traceback
from contextlib import suppress
from types import FrameType
from typing import Any

from dlgpu.backend.dispatch import Kernel
from dlgpu.backend.held import read
from dlgpu.backend.memory import figures, give_back, is_shortage
from dlgpu.errors import OutOfMemoryError
from dlgpu.parameters import Parameter
from dlgpu.saving.configurable import Configurable

UNITS = ("bytes", "kB", "MB", "GB", "TB")


class Shortage:
    """A context in which an error for want of memory, of whichever library, becomes an OutOfMemoryError.

    What the failed work held is free then, and so are the recorded steps.
    """

    def __init__(self, step: Any):
        self.step = step
        self._handled: list = []  # errors that callers are handling: they stay as they are

    def __enter__(self) -> None:
        self._handled.append(sys.exc_info()[1])

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        handled = self._handled.pop()
        if error is None or isinstance(error, OutOfMemoryError) or not is_shortage(error):
            return
        message = explanation(self.step, error)
        del trace
        link = error
        while link is not None and link is not handled:
            _empty(link)
            link = link.with_traceback(None).__context__
        self.step.forget()
        give_back(self.step.device)
        raise OutOfMemoryError(message) from error


def _empty(error: BaseException) -> None:
    """Let an error's frames hold nothing: the activations are there."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        with suppress(RuntimeError):  # it is still running
            frame.clear()
            len(frame.f_locals)  # up to Python 3.12 a copy, which this brings up to date


def explanation(step: Any, error: BaseException) -> str:
    """What asked for how much, what is held, and the ways out."""
    device = step.device
    lines = [f"memory of {device} ran out: {asker(error)} asked for more ({str(error).rstrip('.') or 'no details'})."]
    held = holdings(step)
    found = figures(device)
    if found:
        kept = {} if step.replays.repeater is None else step.replays.repeater.holdings()
        others = found["used"] - sum(held.values()) - kept.get("the data set", 0)
        held |= {**kept, "activations and others": max(0, others)}
    lines.append("Held: " + ", ".join(f"{what} {amount(size)}" for what, size in held.items() if size) + ".")
    if found:
        lines[-1] += f" Of the device's {amount(found['all'])}, {amount(found['free'] + found['spare'])} are free."
    lines.append(
        "A smaller batch_size takes less, and so does dlgpu.checkpointed(layer) around layers of many activations, "
        "which are then computed again and not kept. The model is as it was before this step, and can be used."
    )
    return "\n".join(lines)


def holdings(step: Any) -> dict[str, int]:
    """Bytes by what they are for."""
    arrays = {} if step.optimizer is None else {(id(h), name): read(h, name) for h, name in step.optimizer.holders()}
    state = [a for (_, name), a in arrays.items() if name not in ("values", "gradients")]
    return {
        "weights": sum(w.array.nbytes for w in step.model.weights),
        "gradients": sum(flat.gradients.nbytes for flat in step.flats),
        "the optimizer's state": sum(a.nbytes for a in state),
    }


def asker(error: BaseException) -> str:
    """The innermost layer, loss or the like at work, or the layer whose gradient was, and the kernel."""
    who = kernel = function = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        who = _named(frame) or who
        function = f"{frame.f_code.co_name}()"
        if frame.f_code is Kernel.__call__.__code__ and not kernel:
            kernel = frame.f_locals["self"].__name__
    return f"{who} in {kernel}" if who and kernel else who or kernel or function


def _named(frame: FrameType) -> str:
    """Who runs in a frame, if that can be seen: in a backward pass there are only the weights."""
    own = frame.f_locals.get("self")
    if isinstance(own, Configurable):
        name = getattr(own, "name", None)
        return f"{type(own).__name__} {name!r}" if isinstance(name, str) else type(own).__name__
    if frame.f_code.co_name != "vjp":
        return ""
    owners = (v.path.rpartition("/")[0] for v in frame.f_locals.values() if isinstance(v, Parameter))
    return next((f"the gradient of {owner!r}" for owner in owners), "")


def amount(size: float) -> str:
    """Bytes in a unit that suits."""
    unit = 0
    while size >= 1000 and unit < len(UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.3g} {UNITS[unit]}"
