"""The tape: nodes that remember how to pull a gradient back, and the walk over them. It knows no array library."""

import heapq
import itertools
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

clock = itertools.count()


class Node:
    """One recorded operation. A node whose `vjp` is None is a leaf.

    Attributes:
        edges: for each input, the (node, output index) that made it, or None for a constant.
        vjp: one function from the outputs' gradients to a tuple of the inputs' gradients, or a tuple of functions,
            one for each input, of which only the needed ones are called.
        order: increases with time, so that a node is always later than its inputs.
    """

    __slots__ = ("__weakref__", "edges", "order", "outputs", "vjp")

    def __init__(self, edges: tuple, vjp: Any, outputs: int = 1):
        self.edges = edges
        self.vjp = vjp
        self.outputs = outputs
        self.order = next(clock)

    def pull(self, gradients: list) -> Sequence:
        """Gradients of the inputs from those of the outputs (None for an output that nothing used)."""
        if type(self.vjp) is tuple:
            return [vjp(*gradients) if edge else None for vjp, edge in zip(self.vjp, self.edges)]
        return self.vjp(*gradients)

    def let_go(self) -> None:
        """Keep nothing any more of what the gradients need."""
        self.vjp = _gone


class Deferred:
    """A gradient that is computed when it is read, or where the walk ends: what it is made of may change later."""

    __slots__ = ()

    @abstractmethod
    def compute(self) -> None:
        """Compute it now."""


def _gone(*gradients: Any) -> NoReturn:
    raise RuntimeError("a gradient is asked for again of a tape that was let go as it was walked")


class _State(threading.local):
    recording = True


_state = _State()


def recording() -> bool:
    """Whether operations are being recorded in this thread."""
    return _state.recording


@contextmanager
def set_recording(value: bool) -> Iterator[None]:
    """Record operations, or do not, inside the `with`."""
    before, _state.recording = _state.recording, value
    try:
        yield
    finally:
        _state.recording = before


def no_grad() -> Any:
    """A context in which nothing is recorded: cheaper, and the results are constants. Also a decorator."""
    return set_recording(False)


def gradients(
    roots: Sequence[tuple],
    seeds: Sequence[Any],
    wanted: Callable[[Node], bool],
    create_graph: bool,
    once: bool = False,
) -> dict:
    """Walk the tape from `roots` and collect the gradients that arrive at wanted nodes.

    Args:
        roots: (node, output index) of each output to start from.
        seeds: the gradient at each root; whatever supports `+` among its kind.
        wanted: says at which nodes the walk ends and the gradient is kept.
        create_graph: record the walk itself, so that the gradients can be differentiated again.
        once: let the tape go on the way, whose memory then serves the gradients.
    Returns:
        node -> list with a gradient, or None, for each of its outputs.
    """
    pending: dict[Node, list] = {}
    later: list[tuple[int, Node]] = []
    kept: dict[Node, list] = {}

    def arrive(edge: tuple, gradient: Any) -> None:
        node, index = edge
        slots = pending.get(node)
        if slots is None:
            slots = pending[node] = [None] * node.outputs
            heapq.heappush(later, (-node.order, node))
        slots[index] = gradient if slots[index] is None else slots[index] + gradient

    with set_recording(create_graph):
        for root, seed in zip(roots, seeds):
            arrive(root, seed)
        while later:
            node = heapq.heappop(later)[1]
            arrived = pending.pop(node)
            if wanted(node):
                for gradient in arrived:
                    if isinstance(gradient, Deferred):
                        gradient.compute()
                kept[node] = arrived  # and go no further: what lies below is not asked for
            elif node.vjp is not None:
                for edge, gradient in zip(node.edges, node.pull(arrived)):
                    if edge is not None and gradient is not None:
                        arrive(edge, gradient)
                if once:
                    node.let_go()
    return kept
