"""The table that `model.summary()` prints."""

from typing import Any


def summary_table(model: Any) -> str:
    """The layers of a model, their output shapes and numbers of parameters, and the totals."""
    rows = [("Layer (type)", "Output shape", "Parameters")]
    shape: Any = None if model.input_shape is None else (None, *model.input_shape)
    drawn: dict[int, list] = {}
    for call in getattr(model, "_calls", []):
        drawn.setdefault(id(call.layer), []).extend(call.outputs)
    for layer in model.layers:
        if id(layer) in drawn:
            shape = _one_or_many([s.shape for s in drawn[id(layer)]])
        elif shape is not None and hasattr(model, "add"):
            shape = layer.compute_output_shape(shape)
        else:
            shape = None
        count = f"{layer.count_params():,}" if layer.built else "not built"
        rows.append((f"{layer.name} ({type(layer).__name__})", "?" if shape is None else str(shape), count))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows]
    rule = "-" * len(lines[0])
    trainable, other = (sum(w.size for w in group) for group in (model.trainable_weights, model.non_trainable_weights))
    totals = f"Parameters: {trainable + other:,} ({trainable:,} trainable, {other:,} not trainable)"
    if not all(layer.built for layer in model.layers):
        totals = "Parameters: unknown until the layers have seen the shape of the data"
    return "\n".join([f"Model: {model.name}", rule, lines[0], rule, *lines[1:], rule, totals])


def _one_or_many(shapes: list) -> Any:
    return shapes[0] if len(shapes) == 1 else shapes
