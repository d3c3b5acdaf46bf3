"""Steps of a host that can be repeated: each is run with arrays that note what is done with them.

What a device needs for that is a Repeater, whose `record` gives a Recorded; those of a GPU are in cuda/graph.py.
"""

import sys
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from dlgpu.backend.held import replaced
from dlgpu.backend.recorder import Memory, Recording
from dlgpu.backend.traced import traced


class Repeater:
    """Makes steps repeatable.

    Attributes:
        most: how many different steps it can keep.
        tells: whether the user should know of steps that cannot be repeated.
        at_once: how many steps it does at once, at most. With more than 1, what `record` gives has `capture_group`,
            `load_first`, `replay_group` and `timed`, too: see Captured in cuda/graph.py.
    """

    most = sys.maxsize
    tells = False
    at_once = 1

    def __init__(self) -> None:
        self.memory = Memory()

    def record(self, run: Callable[[list], None], batch: Any, send: Callable[[Any], list], held: list) -> "Recorded":
        """Do a step so that it can be repeated with other batches, if that is possible.

        Args:
            run: the step, from the arrays of the batch on the device.
            batch: of the step.
            send: brings a batch's arrays to the device.
            held: the (holder, name) of each other array that it reads or changes.
        """
        inputs = [np.array(a) for a in send(batch)]
        recording = self.noted(run, inputs, held)
        if recording.replayable:
            recording.finish()
        return Recorded(self, recording, inputs)

    def noted(self, run: Callable[[list], None], arrays: list, held: list) -> Recording:
        """Run a step as it is written, and note what it does."""
        recording = Recording(self.memory)
        with replaced(held, traced), recording.active():
            run([traced(a) for a in arrays])
        return recording

    def holdings(self) -> dict[str, int]:
        """Bytes by what they are for: on a host nothing counts them."""
        return {}


class Recorded:
    """A step that can be repeated.

    Attributes:
        problem: why it cannot; None if it can.
        sources: of the random numbers that it draws.
    """

    def __init__(self, repeater: Repeater, recording: Recording, inputs: list):
        self.repeater = repeater
        self.recording = recording
        self.inputs = inputs
        self.sources = recording.sources
        self.problem = None if recording.replayable else "it reads values, or makes arrays whose shape goes by values"
        # Inputs that have had no other values yet, and their digest: what the recording missed of them does not show.
        self.constant = {place: digest(array) for place, array in enumerate(inputs)}

    def load(self, batch: Any, send: Callable[[Any], list]) -> bool:
        """Take the arrays of another batch; whether there is now more to be seen of what the step does with them."""
        batch.copy_to(self.inputs)
        changed = [place for place, was in self.constant.items() if digest(self.inputs[place]) != was]
        for place in changed:
            del self.constant[place]
        return bool(changed)

    def replay(self) -> None:
        """Do the step with the batch that was loaded."""
        self.recording.replay()

    def again(self, run: Callable[[list], None], arrays: list, held: list) -> bool:
        """Do the step as it is written; whether it can still be repeated."""
        return self.repeater.noted(run, arrays, held).replayable  # it needs no further memory


def digest(array: np.ndarray) -> int:
    """What tells an array's bits from others."""
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data)
