"""Reading the weight files that Keras 3 writes (`.weights.h5`), for models of the same layers."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np

from dlgpu.layers.base import Layer
from dlgpu.saving.configurable import snake_case


def read_keras_weights(model: Any, path: Any) -> dict[int, np.ndarray]:
    """The arrays in the file by the id of the weight of the model that each belongs to.

    Raises:
        ImportError: h5py is not installed.
        ValueError: the file is truncated or something else, or holds weights that have no place in the model.
    """
    try:
        h5py = import_module("h5py")
    except ImportError:
        raise ImportError("reading Keras's files needs h5py: pip install 'dlgpu[keras]'") from None
    with open(path, "rb") as file:
        try:
            root = h5py.File(file)
        except OSError as error:
            raise ValueError(f"{path} is truncated or no HDF5 file ({error})") from None
        stored: list[str] = []
        root.visititems(lambda name, item: stored.append(name) if isinstance(item, h5py.Dataset) else None)
        found = {id(weight): (item.name.strip("/"), np.array(item)) for weight, item in _pairs(model, root)}
    taken = {name for name, _ in found.values()}
    for name in stored:
        if name not in taken and not name.startswith("optimizer/") and "seed_generator" not in name:
            model.fail(f"{path} does not fit: the model has no place for its {name}")
    return {weight: array for weight, (_, array) in found.items()}


def _pairs(layer: Layer, group: Any) -> Iterator[tuple[Any, Any]]:
    """The weights of a layer and what is stored for them: its own by number, those of inner layers by attribute."""
    for number, weight in enumerate(sorted(layer._weights, key=lambda w: not w.trainable)):
        for place in (f"vars/{number}", f"cell/vars/{number}"):  # the weights of recurrent layers are their cells'
            if place in group:
                yield weight, group[place]
    for attribute, value in [*vars(layer).items(), ("layers", list(getattr(layer, "layers", ())))]:
        taken: dict[str, int] = {}
        if isinstance(value, Layer) and attribute in group:
            yield from _pairs(value.unwrapped, group[attribute])
        for inner in value if isinstance(value, (list, tuple)) else ():
            if isinstance(inner, Layer) and attribute in group:
                inner = inner.unwrapped
                name = snake_case(type(inner).__name__)
                taken[name] = taken.get(name, -1) + 1
                place = f"{attribute}/{name}_{taken[name]}" if taken[name] else f"{attribute}/{name}"
                if place in group:
                    yield from _pairs(inner, group[place])
