"""Layers whose activations are computed again in the backward pass instead of being kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dlgpu import autograd
from dlgpu.backend import recorder
from dlgpu.backend.held import replaced
from dlgpu.data.structure import leaves, map_structure
from dlgpu.layers import calls
from dlgpu.layers.base import Layer
from dlgpu.ops.differentiation import fresh
from dlgpu.tensor import Tensor, record


class Checkpointed(Layer):
    """A layer of which only the inputs are kept: the backward pass runs it again, with the same random numbers.

    n layers in sqrt(n) blocks, each a checkpointed Sequential, keep activations for 2 sqrt(n) of them, and run forward
    twice. Gradients have the same bits, save for those of a value that is used inside and outside of the block: their
    parts are added in another order.

    What the layer computes may depend on its inputs, its weights and dlgpu's random numbers only.

    Paper: Chen et al. 2016, arxiv.org/abs/1604.06174.

    Args:
        layer: any layer or model without `stateful` layers. Its name, and the names of its weights, stay.
    """

    autocast = False  # the layer converts for itself
    supports_masking = True

    def __init__(self, layer: Layer, **kwargs: Any):
        if not isinstance(layer, Layer):
            raise TypeError(f"checkpointed: expected a layer, got {layer!r}")
        super().__init__(**{"name": layer.name, "dtype": layer.dtype_policy, "trainable": layer.trainable, **kwargs})
        self.layer = layer
        self._called = False  # until then the layers inside may have no weights yet
        if self.input_shape is None:
            self.input_shape = layer.input_shape
        if not self.trainable:
            self.trainable = False  # of the layer too
        if any(getattr(inner, "stateful", False) for inner in layer._with_inner()):
            self.fail("a stateful layer cannot run twice on a batch")

    @property
    def unwrapped(self) -> Layer:
        """The layer that is computed again."""
        return self.layer.unwrapped

    def build(self, input_shape: Any) -> None:
        if not self.layer.built:
            self.layer._build(input_shape)

    def call(self, inputs: Any, mask: Any = None, **arguments: Any) -> Any:
        if not isinstance(mask, dict):  # those of a dictionary are on the inputs
            arguments["mask"] = mask
        if not (self.on_trial or self._called):
            with self.trial(), autograd.no_grad():
                self.layer(inputs, training=False, **arguments)  # draws nothing
        self._called = True
        if self.on_trial or not autograd.recording():
            return self.layer(inputs, **arguments)
        return _Run(self, {"inputs": inputs, **arguments}).outputs()

    def compute_mask(self, inputs: Any, mask: Any) -> None:
        """None: the layer has put it on the outputs."""

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.layer.compute_output_shape(input_shape)


def checkpointed(layer: Layer, **kwargs: Any) -> Checkpointed:
    """The layer, computed again in the backward pass instead of kept; see `Checkpointed`."""
    return Checkpointed(layer, **kwargs)


class _Run:
    """One call of a checkpointed layer, and what is needed to do it again."""

    def __init__(self, owner: Checkpointed, given: dict):
        self.owner, self.layer, self.given = owner, owner.layer, given
        self.tensors = [t for t in leaves(given) if isinstance(t, Tensor)]
        self.training, self.penalties = calls.state.training, calls.state.penalties
        self.states = [w for w in self.layer.weights if not w.trainable]  # such as moving means
        self.saved = [w.array.copy() for w in self.states]
        self.draws = _Draws()

    def outputs(self) -> Any:
        """The first run's outputs, whose derivative is the second run's. The first run's tape is gone.

        Both runs are recorded, as operations may have a faster form without, whose results differ in the last place.
        """
        with self.draws.noted():
            outputs, penalties = self._call(self.given)
        found = [*leaves(outputs), *penalties]
        self.weights = [w for w in self.layer.weights if w.requires_grad]
        made = record(tuple(t.array for t in found), [*self.tensors, *self.weights], self.pull)
        made = [m if t.requires_grad else t for m, t in zip(made, found)]
        for new, old in zip(made, found):
            new.mask = old.mask
        if self.penalties is not None:
            self.penalties += made[len(made) - len(penalties) :]
        rest = iter(made)
        return map_structure(lambda _: next(rest), outputs)

    def pull(self, *gradients: Any) -> list:
        """The gradients of the inputs and weights. Where they are differentiated again, so is the second run."""
        start, again = next(autograd.clock), autograd.recording()
        saved = iter(self.saved)
        with autograd.set_recording(True):
            aliases = [fresh(t) if t.requires_grad else t.detach() for t in self.tensors]
            for alias, t in zip(aliases, self.tensors):
                alias.mask = t.mask
            # the first run has moved them on, which the second one must neither see nor do
            with replaced([(w, "array") for w in self.states], lambda _: next(saved).copy()), self.draws.repeated():
                outputs, penalties = self._call(_with(iter(aliases), self.given))
        inputs = [t.edge and t.edge[0] for t in (*aliases, *self.weights)]
        known = set(inputs)

        def wanted(node: autograd.Node) -> bool:
            if node not in known and node.order < start:
                self.owner.fail(
                    "what it computes depends on a tensor that requires gradients and is neither an input nor a weight "
                    "of the layer: make it one of them"
                )
            return node in known

        pairs = [(o.edge, g) for o, g in zip([*leaves(outputs), *penalties], gradients) if o.edge and g is not None]
        del outputs, penalties  # which the walk back need not hold
        kept = autograd.gradients([edge for edge, _ in pairs], [g for _, g in pairs], wanted, again, once=not again)
        return [kept[node][0] if node in kept else None for node in inputs]

    def _call(self, given: dict) -> tuple[Any, list]:
        given = dict(given)
        with calls.penalties() as penalties:
            outputs = self.layer(given.pop("inputs"), training=self.training, **given)
        return outputs, [] if self.penalties is None else penalties


def _with(tensors: Iterator[Tensor], given: dict) -> dict:
    """The arguments with other Tensors in their places."""
    replaced = {
        key: map_structure(lambda v: next(tensors) if isinstance(v, Tensor) else v, value)
        for key, value in given.items()
        if any(isinstance(v, Tensor) for v in leaves(value))
    }
    return {**given, **replaced}


class _Draws:
    """The places from which random numbers were drawn, to draw the same again."""

    def __init__(self) -> None:
        self.found: list[tuple] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note them."""
        self.outer = recorder.drawing()
        with recorder.drawn_by(self):
            yield

    def draw(self, generator: Any, words: int) -> tuple:
        place = generator.advance(words) if self.outer is None else self.outer.draw(generator, words)
        self.found.append((generator, words, place))
        return place

    @contextmanager
    def repeated(self) -> Iterator[None]:
        """Draw from them."""
        with recorder.drawn_by(_Repeated(self.found)):
            yield


class _Repeated:
    def __init__(self, found: list[tuple]):
        self.left = iter(found)

    def draw(self, generator: Any, words: int) -> tuple:
        known, count, place = next(self.left, (None, 0, ()))
        if known is not generator or count != words:
            raise RuntimeError("a checkpointed layer draws other random numbers when it runs again on the same inputs")
        return place
