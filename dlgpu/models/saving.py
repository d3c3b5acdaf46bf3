"""Saving and loading: a whole model in a .dlgpu file, its weights in a .safetensors file. No pickle anywhere.

A .dlgpu file is a zip of

    model.json              format, version of dlgpu, architecture, compile arguments
    weights.safetensors     every weight, by its path in the model
    optimizer.safetensors   iterations and slots, if the model is compiled
"""

import json
import warnings
from collections.abc import Mapping
from inspect import isroutine
from itertools import chain
from os import PathLike
from typing import Any

import numpy as np

from dlgpu import __version__, losses
from dlgpu.data.structure import map_structure
from dlgpu.layers.base import Layer
from dlgpu.models.keras_weights import read_keras_weights
from dlgpu.parameters import Parameter
from dlgpu.saving.configurable import deserialize, known_objects, one_description, serialize, snake_case
from dlgpu.saving.files import (
    from_safetensors,
    read_archive,
    read_safetensors,
    to_safetensors,
    write_archive,
    write_safetensors,
)

FORMAT = 1


def save_model(model: Any, path: str | PathLike) -> None:
    """Write architecture, weights, compile arguments and optimizer state to a .dlgpu file, atomically.

    Args:
        model: a Model.
        path: must end in .dlgpu.
    Raises:
        ValueError: another extension.
        TypeError: a layer holds something that JSON cannot describe, such as a lambda; or two classes of one name,
            which could not be told apart when they are loaded.
    """
    _require_extension(path, ".dlgpu", "a model", "save_weights writes .safetensors")
    write_archive(path, to_members(model)[0])


def to_members(model: Any) -> tuple[dict[str, bytes], list]:
    """What a .dlgpu file holds, and the user's own classes and functions, without which it means nothing.

    Raises:
        TypeError: as by `save_model`.
    """
    with one_description() as definitions:
        arguments, problem = _compile_arguments(model)
        try:
            described = serialize(model)
        except RecursionError:
            why = "cannot be described: a layer in it got the model, or what holds it, as an argument; set it as an "
            model.fail(f"{why}attribute once the layer is made", TypeError)
        description = {
            "format": FORMAT,
            "dlgpu": __version__,
            "model": described,
            "built": model.built,
            "input_shape": model.built_for,
            "compile": arguments,
            "compile_problem": problem,
        }
    members = {
        "model.json": json.dumps(description, indent=1).encode(),
        "weights.safetensors": to_safetensors(_arrays(model) if model.built else {}),
    }
    if description["compile"]:
        members["optimizer.safetensors"] = to_safetensors(_optimizer_state(model))
    return members, [item for item in definitions.values() if not str(item.__module__).startswith("dlgpu.")]


def load_model(path: str | PathLike, custom_objects: Mapping[str, Any] | None = None, compile: bool = True) -> Any:
    """The model that `model.save(path)` wrote, on the current device; training goes on where it stopped.

    Args:
        path: a .dlgpu file.
        custom_objects: name -> class or function of your own. Classes that are defined or imported before are found
            without it; functions are not.
        compile: whether to compile it as it was compiled.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is truncated, of another kind, or of a newer version of dlgpu; or a class or a function in it is
            not known.
    """
    members = read_archive(path)
    if not {"model.json", "weights.safetensors"} <= members.keys():
        raise ValueError(f"{path} is no .dlgpu file: it holds {', '.join(members) or 'nothing'}")
    return from_members(members, custom_objects, path, compile)


def from_members(members: dict[str, bytes], custom_objects: Any, path: Any = "the pickle", compile: bool = True) -> Any:
    """The model that `to_members` described."""
    with known_objects(custom_objects), one_description():
        try:
            return _rebuilt(members, path, compile)
        except Exception as error:  # of any kind: what is in the file decides what is called
            what = error if isinstance(error, ValueError) else f"{type(error).__name__}: {error}."
            raise ValueError(
                f"{path}: {what} A class of your own must be defined before, a function be given in custom_objects."
            ) from error


def _rebuilt(members: dict[str, bytes], path: Any, compile: bool) -> Any:
    description = json.loads(members["model.json"])
    if description["format"] > FORMAT:
        raise ValueError(f"was written by dlgpu {description['dlgpu']}; this is {__version__}: upgrade it.")
    model = deserialize(description["model"])
    arguments = deserialize(description["compile"]) if compile else None
    if description["built"]:
        if not model.built:
            with Layer.trial():
                model(_zeros(description["input_shape"]), training=False)
        _assign(model, from_safetensors(members["weights.safetensors"], path), path)
    if compile and description.get("compile_problem"):
        warnings.warn(f"{path} was {description['compile_problem']}; call compile before training", stacklevel=4)
    if arguments:
        state = from_safetensors(members["optimizer.safetensors"], path)
        model.compile(**arguments)
        if any("/" in key for key in state):
            model._step.begin_training()
        if model._step.flats or state["iterations"]:
            model.optimizer.set_state(state)
        elif "learning_rate" in state:  # it had no slots yet
            model.optimizer.learning_rate = float(state["learning_rate"])
    return model


def save_weights(model: Any, path: str | PathLike) -> None:
    """Write all weights to a .safetensors file, atomically.

    Raises:
        ValueError: another extension, or the model is not built.
    """
    _require_extension(path, ".safetensors", "weights", "save writes a whole model to .dlgpu")
    write_safetensors(path, _arrays(model), {"dlgpu": __version__})


def load_weights(model: Any, path: str | PathLike) -> None:
    """Read all weights from a .safetensors or .dlgpu file, or a .weights.h5 file of Keras 3.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: a .weights.h5 file, and h5py is not installed.
        ValueError: it does not fit, or is truncated; the model is unchanged then.
    """
    if str(path).endswith(".dlgpu"):
        members = read_archive(path)
        arrays = from_safetensors(members.get("weights.safetensors", b""), path)
    elif str(path).endswith(".weights.h5"):
        found = read_keras_weights(model, path)
        arrays = {name: found[id(weight)] for name, weight in weights_by_path(model).items() if id(weight) in found}
    else:
        _require_extension(path, ".safetensors", "weights", "a .dlgpu file will do, too")
        arrays = read_safetensors(path)
    _assign(model, arrays, path)


def weights_by_path(layer: Layer) -> dict[str, Parameter]:
    """The weights by path, such as "dense_1/kernel" or "bidirectional/lstm/kernel", in the order of `layer.weights`.

    A path is made of classes, counted within their owner. So it does not depend on what else the process has made, and
    layers without weights may come and go. A shared weight has the path at which it is met first.
    """
    found: dict[int, tuple[str, Parameter]] = {}
    _walk(layer, "", found, set())
    return dict(found.values())


def _walk(layer: Layer, prefix: str, found: dict, walked: set) -> None:
    if id(layer) in walked:
        return
    walked.add(id(layer))
    taken: dict[str, int] = {}
    own = sorted(layer._weights, key=lambda w: not w.trainable)
    inner = [x.unwrapped for x in layer.sublayers()]
    named = chain(((w, w.name) for w in own), ((x, snake_case(type(x).__name__)) for x in inner))
    seen: set[int] = set()
    for item, name in named:
        if id(item) in seen:
            continue
        seen.add(id(item))
        taken[name] = taken.get(name, -1) + 1
        path = f"{prefix}{name}_{taken[name]}" if taken[name] else prefix + name
        if isinstance(item, Layer):
            _walk(item, path + "/", found, walked)
        else:
            found.setdefault(id(item), (path, item))


def _arrays(model: Any) -> dict[str, np.ndarray]:
    model._require_built()
    return {path: weight.numpy() for path, weight in weights_by_path(model).items()}


def _assign(model: Any, arrays: Mapping[str, np.ndarray], origin: Any) -> None:
    model._require_built()
    weights = weights_by_path(model)
    unknown = [f"{path} {array.shape}" for path, array in arrays.items() if path not in weights]
    for path, weight in weights.items():
        if path not in arrays or arrays[path].shape != weight.shape:
            found = f"{path} {arrays[path].shape}" if path in arrays else ", ".join(unknown[:1]) or "no such weight"
            model.fail(f"{origin} does not fit: the model has {path} {weight.shape}, the file has {found}")
    if unknown:
        model.fail(f"{origin} does not fit: the file has {unknown[0]}, the model has no such weight")
    for path, weight in weights.items():
        weight.assign(arrays[path])


def _compile_arguments(model: Any) -> tuple[dict[str, Any] | None, str | None]:
    """What `compile` was given, described; or, with a warning, None and why that cannot be done."""
    if model._compiled is None:
        return None, None
    loss = map_structure(lambda item: losses.get(item) if isroutine(item) else item, model._compiled["loss"])
    try:
        return {name: serialize(value) for name, value in {**model._compiled, "loss": loss}.items()}, None
    except TypeError as error:
        problem = f"saved without optimizer, loss and metrics: {error}"
        warnings.warn(problem, stacklevel=5)
        return None, problem


def _optimizer_state(model: Any) -> dict[str, np.ndarray]:
    """Iterations and learning rate, and the slots ("0/momentum") of the weights that are trainable now."""
    trainable = model.trainable_weights
    if trainable and model._step.flats:
        model._step.begin_training()
    return {key: value for key, value in model.optimizer.get_state().items() if trainable or "/" not in key}


def _zeros(shape: Any) -> Any:
    """A batch of two zero samples of this shape, or of these shapes."""
    if isinstance(shape, dict):
        return {key: _zeros(s) for key, s in shape.items()}
    if shape and isinstance(shape[0], (list, tuple, dict)):
        return [_zeros(s) for s in shape]
    return np.zeros([n or 2 for n in shape], np.float32)


def _require_extension(path: Any, extension: str, what: str, other: str) -> None:
    if not str(path).endswith(extension):
        raise ValueError(f"expected a file name that ends in {extension} for {what}, got {str(path)!r} ({other})")
