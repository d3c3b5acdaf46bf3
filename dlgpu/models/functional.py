"""Functional models: a graph of layer calls, drawn with symbols."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from dlgpu.data.structure import leaves, map_shapes, map_structure
from dlgpu.layers.base import Layer
from dlgpu.layers.input import Input
from dlgpu.layers.symbol import Call, Symbol
from dlgpu.mixed_precision import DTypePolicy
from dlgpu.models.model import Model
from dlgpu.saving.configurable import deserialize, serialize


class Functional(Model):
    """The model between `inputs` and `outputs`; made by `Model(inputs, outputs)`."""

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None):
        super().__init__(name=name)
        self.inputs, self.outputs = inputs, outputs
        for symbol in leaves([inputs, outputs]):
            if not isinstance(symbol, Symbol):
                self.fail(f"expected symbols made from Input(...), got {symbol!r}", TypeError)
        self._calls, self._layers = self._in_order(*self._reached())
        for number, layer in enumerate(self._layers):
            if any(layer.name == other.name for other in self._layers[:number]):
                self.fail(f"two layers are named {layer.name!r}; names must differ")
        self._followers = self._sole_takers()
        self.built = True
        self.built_for = map_structure(lambda s: s.shape, inputs)
        if isinstance(inputs, Symbol):
            self.input_shape = inputs.shape[1:]

    def _reached(self) -> tuple[list[Call], list[Layer]]:
        """A walk back from the outputs, depth first: the calls, each after those that it needs, and layers as met."""
        seen: set[int] = set()
        found: list[Call] = []
        layers: dict[int, Layer] = {}
        pending = [(call, False) for call in reversed(self._makers(leaves(self.outputs)))]
        while pending:
            call, finished = pending.pop()
            if finished:
                found.append(call)
            elif id(call) not in seen:
                seen.add(id(call))
                layers.setdefault(id(call.layer), call.layer)
                pending += [(call, True), *((maker, False) for maker in reversed(self._makers(call.symbols())))]
        return found, list(layers.values())

    def _makers(self, symbols: list[Symbol]) -> list[Call]:
        """The calls that make these symbols, save for the model's inputs."""
        given = {id(s) for s in leaves(self.inputs)}
        makers: list[Call] = []
        for symbol in symbols:
            if id(symbol) in given:
                continue
            if symbol.call is None:
                self.fail(f"the outputs also depend on {symbol.name!r}, which is not among the inputs")
            else:
                makers.append(symbol.call)
        return makers

    def _in_order(self, calls: list[Call], layers: list[Layer]) -> tuple[list[Call], list[Layer]]:
        """Calls and layers far from the outputs first: Keras's order, in which the weights come."""
        depth: dict[int, int] = {}
        layer_depth: dict[int, int] = {}
        for call in reversed(calls):
            deepest = max(depth.get(id(call), 0), layer_depth.get(id(call.layer), 0))
            depth[id(call)] = layer_depth[id(call.layer)] = deepest
            for maker in self._makers(call.symbols()):
                depth[id(maker)] = max(depth.get(id(maker), 0), deepest + 1)
        return (
            sorted(calls, key=lambda c: -depth[id(c)]),
            sorted(layers, key=lambda layer: -layer_depth[id(layer)]),
        )

    def _sole_takers(self) -> dict[Call, Call]:
        """For calls of which one other call, and nothing else, takes what they make: that one."""
        uses = Counter(id(s) for s in leaves([self.outputs, [call.symbols() for call in self._calls]]))
        takers = {id(c.inputs): c for c in self._calls if isinstance(c.inputs, Symbol) and not c.arguments}
        made = [(id(c.outputs[0]), c) for c in self._calls if len(c.outputs) == 1 and not c.arguments]
        return {c: takers[key] for key, c in made if uses[key] == 1 and key in takers}

    def sublayers(self) -> Any:
        return iter(self._layers)

    @property
    def output_names(self) -> list[str]:
        """Keys of a dictionary of outputs, or the output layers' names, by which losses and metrics may be given."""
        if isinstance(self.outputs, dict):
            return list(self.outputs)
        outputs = leaves(self.outputs)
        if len(outputs) == 1:
            return ["output"]
        return [s.call.layer.name if s.call else s.name for s in outputs]

    def call(self, inputs: Any) -> Any:
        joined = set()

        def apply(call: Call, values: Any, arguments: dict) -> list:
            if call in joined:
                return [values]
            following = self._followers.get(call)
            if following is not None and call.layer.joins(following.layer):
                joined.add(following)
                arguments = {"following": following.layer}
            return leaves(call.layer(values, **arguments))

        return self._walk(inputs, apply)

    def compute_output_shape(self, input_shape: Any) -> Any:
        def shapes(call: Call, taken: Any, arguments: dict) -> list[tuple]:
            found: list[tuple] = []
            map_shapes(found.append, call.layer.compute_output_shape(taken))
            return found

        return self._walk(input_shape, shapes)

    def _walk(self, inputs: Any, apply: Callable) -> Any:
        """Give each symbol a value: the inputs theirs, the others those in the list that `apply` makes of each call."""
        symbols = leaves(self.inputs)
        if isinstance(inputs, dict):
            names = list(self.inputs) if isinstance(self.inputs, dict) else [s.name for s in symbols]
            missing = [name for name in names if name not in inputs]
            if missing:
                self.fail(f"expected inputs {', '.join(names)}; {', '.join(missing)} is missing")
            given = [inputs[name] for name in names]
        else:
            given = list(inputs) if isinstance(inputs, list) else [inputs]
        if len(given) != len(symbols):
            self.fail(f"expected {len(symbols)} inputs, got {len(given)}")
        for symbol, value in zip(symbols, given):
            self._check_shape(symbol, getattr(value, "shape", value))
        values: dict[int, Any] = {id(s): v for s, v in zip(symbols, given)}

        def value_of(item: Any) -> Any:
            return values[id(item)] if isinstance(item, Symbol) else item

        for call in self._calls:
            arguments = {key: map_structure(value_of, a) for key, a in call.arguments.items()}
            made = apply(call, map_structure(value_of, call.inputs), arguments)
            values |= {id(symbol): value for symbol, value in zip(call.outputs, made)}
        return map_structure(value_of, self.outputs)

    def _check_shape(self, symbol: Symbol, shape: tuple) -> None:
        fits = len(shape) == symbol.ndim and all(
            a in (None, b) or b is None for a, b in zip(symbol.shape[1:], shape[1:])
        )
        if not fits:
            expected = ", ".join("any" if n is None else str(n) for n in symbol.shape[1:])
            self.fail(f"expected inputs of shape (batch, {expected}) for {symbol.name!r}, got {tuple(shape)}")

    def get_config(self) -> dict[str, Any]:
        """The graph: layers, and calls whose symbols are named by [call number, output number] or by input."""
        place: dict[int, Any] = {id(s): {"input": i} for i, s in enumerate(leaves(self.inputs))}
        for number, call in enumerate(self._calls):
            for index, symbol in enumerate(call.outputs):
                place[id(symbol)] = {"call": number, "output": index}

        def describe(item: Any) -> Any:
            return place[id(item)] if isinstance(item, Symbol) else serialize(item)

        numbers = {id(layer): i for i, layer in enumerate(self._layers)}
        return {
            "name": self.name,
            "dtype": self.dtype_policy.name,
            "inputs": map_structure(
                lambda s: {"shape": s.shape[1:], "dtype": s.dtype, "name": s.name}, leaves(self.inputs)
            ),
            "input_structure": map_structure(describe, self.inputs),
            "layers": [serialize(layer) for layer in self._layers],
            "calls": [
                {
                    "layer": numbers[id(call.layer)],
                    "inputs": map_structure(describe, call.inputs),
                    "arguments": {k: map_structure(describe, v) for k, v in call.arguments.items()},
                }
                for call in self._calls
            ],
            "outputs": map_structure(describe, self.outputs),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Functional":
        """The same graph of new layers."""
        inputs = [Input(tuple(i["shape"]), i["dtype"], i["name"]) for i in config["inputs"]]
        layers: list[Layer] = [deserialize(item) for item in config["layers"]]
        made: list[list[Symbol]] = []

        def symbol(item: Any) -> Any:
            if isinstance(item, list):
                return [symbol(v) for v in item]
            if not isinstance(item, dict):
                return item
            if item.keys() == {"input"} and isinstance(item["input"], int):
                return inputs[item["input"]]
            if item.keys() == {"call", "output"} and isinstance(item["call"], int):
                return made[item["call"]][item["output"]]
            return {key: symbol(v) for key, v in item.items()}

        for call in config["calls"]:
            outputs = layers[call["layer"]](symbol(call["inputs"]), **symbol(call["arguments"]))
            made.append(leaves(outputs))
        model = cls(symbol(config["input_structure"]), symbol(config["outputs"]), name=config["name"])
        model.dtype_policy = DTypePolicy.get(config.get("dtype"))
        return model
