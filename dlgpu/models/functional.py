"""Functional models: a graph of layer calls, drawn with symbols."""

from collections.abc import Callable
from typing import Any

from dlgpu.data.structure import leaves, map_structure
from dlgpu.layers.base import Layer, unique_name
from dlgpu.layers.symbol import Call, Symbol
from dlgpu.models.model import Model
from dlgpu.saving.configurable import deserialize, serialize


def Input(shape: tuple, dtype: str = "float32", name: str | None = None) -> Symbol:
    """A symbol for the input of a model.

    Args:
        shape: of one sample, without the batch; None where a length is not fixed.
        dtype: "int32" for what an Embedding reads.
        name: by which a dictionary of arrays may give it.
    """
    return Symbol((None, *shape), dtype, name=name or unique_name("input"))


class Functional(Model):
    """The model between `inputs` and `outputs`; made by `Model(inputs, outputs)`."""

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None):
        super().__init__(name=name)
        self.inputs, self.outputs = inputs, outputs
        for symbol in leaves([inputs, outputs]):
            if not isinstance(symbol, Symbol):
                self.fail(f"expected symbols made from Input(...), got {symbol!r}", TypeError)
        self._calls = self._sorted_calls()
        self._layers = list({id(call.layer): call.layer for call in self._calls}.values())
        names = [layer.name for layer in self._layers]
        for layer_name in names:
            if names.count(layer_name) > 1:
                self.fail(f"two layers are named {layer_name!r}; names must differ")
        self.built = True

    def _sorted_calls(self) -> list[Call]:
        """The calls between inputs and outputs, those far from the outputs first: Keras's order."""
        given = {id(s) for s in leaves(self.inputs)}
        depth: dict[int, int] = {}
        calls: dict[int, Call] = {}
        pending = [(s, 0) for s in leaves(self.outputs)]
        while pending:
            symbol, distance = pending.pop()
            if id(symbol) in given:
                continue
            if symbol.call is None:
                self.fail(f"the outputs also depend on {symbol.name!r}, which is not among the inputs")
            call = symbol.call
            if depth.get(id(call), -1) < distance:
                depth[id(call)], calls[id(call)] = distance, call
                pending += [(s, distance + 1) for s in call.symbols()]
        return sorted(calls.values(), key=lambda c: (-depth[id(c)], c.order))

    def sublayers(self) -> Any:
        return iter(self._layers)

    @property
    def output_names(self) -> list[str]:
        """The output layers' names, by which losses and metrics may be given."""
        outputs = leaves(self.outputs)
        if len(outputs) == 1:
            return ["output"]
        if isinstance(self.outputs, dict):
            return list(self.outputs)
        return [s.call.layer.name if s.call else s.name for s in outputs]

    def call(self, inputs: Any) -> Any:
        return self._walk(inputs, lambda call, values, arguments: call.layer(values, **arguments))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self._walk(input_shape, lambda call, shapes, arguments: call.layer.compute_output_shape(shapes))

    def _walk(self, inputs: Any, apply: Callable) -> Any:
        """Give each symbol a value: the inputs theirs, the others what `apply` makes of each call."""
        symbols = leaves(self.inputs)
        if isinstance(inputs, dict):
            missing = [s.name for s in symbols if s.name not in inputs]
            if missing:
                self.fail(f"expected inputs {', '.join(s.name for s in symbols)}; {', '.join(missing)} is missing")
            given = [inputs[s.name] for s in symbols]
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
            for symbol, value in zip(call.outputs, made if len(call.outputs) > 1 else [made]):
                values[id(symbol)] = value
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
            if isinstance(item, dict) and item.keys() == {"input"}:
                return inputs[item["input"]]
            if isinstance(item, dict) and item.keys() == {"call", "output"}:
                return made[item["call"]][item["output"]]
            if isinstance(item, dict):
                return {key: symbol(v) for key, v in item.items()}
            return [symbol(v) for v in item] if isinstance(item, list) else item

        for call in config["calls"]:
            outputs = layers[call["layer"]](symbol(call["inputs"]), **symbol(call["arguments"]))
            made.append(leaves(outputs))
        return cls(symbol(config["input_structure"]), symbol(config["outputs"]), name=config["name"])
