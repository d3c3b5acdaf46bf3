"""The user's own data, for `dlgpu train --data`: read from a file, checked, and split into train and test."""

import os
import zipfile
from typing import Any

import numpy as np

from dlgpu.cli.programs import PROGRAMS, Arrays, Data
from dlgpu.data.checks import as_array, check_finite, check_lengths
from dlgpu.datasets._stored import split_by_class

MOST_CLASSES = 30  # y of whole numbers with more distinct values is regression
WINDOW = 11  # rows of a series from which the next one is forecast
LEAST_ROWS = 10

HELP = f"""\
your own data: `dlgpu train NAME --data FILE`

  FILE.npz   x and y, or x_train, y_train, x_test and y_test, as numpy.savez writes them.
             fnn wants x of shape (n, features), cnn (n, height, width, channels), rnn and lstm (n, time, features).
  FILE.csv   numbers only, with or without a line of names. For fnn each line is a sample, its last column the target.
             For rnn and lstm the lines are a series: the last column's next value is forecast from {WINDOW} lines.

  y of whole numbers with at most {MOST_CLASSES} distinct values means classes, anything else regression.
  Without x_test, a fifth is kept for the test: every fifth sample of each class; for regression every fifth sample,
  of series the last fifth. Layers that standardize x, and bring outputs to y's units, become part of the model.
"""


def read_data(path: str, name: str) -> Data:
    """The data in a .npz or .csv file, for the program of that name.

    Raises:
        OSError: the file cannot be read.
        ValueError, TypeError: it does not hold what the program wants.
    """
    series = PROGRAMS[name].dimensions == 3
    if path.endswith(".npz"):
        parts = _read_npz(path)
    elif path.endswith(".csv"):
        parts = _parts_of_table(_read_csv(path), path, name)
    else:
        raise ValueError(f"expected a file name that ends in .npz or .csv, got {path!r}")
    for x, y in parts:
        _check(x, y, path, name)
    if path.endswith(".csv") and series:
        return _series(parts[0], path)
    if _are_classes(parts[0][1]):
        return _classes(parts, path)
    return _regression(parts, path, series)


def _read_npz(path: str) -> list[Arrays]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (zipfile.BadZipFile, EOFError, AttributeError) as error:
        raise ValueError(f"{path} is truncated or no .npz file ({error})") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}; expected arrays of numbers, as numpy.savez writes them") from None
    for names in (("x_train", "y_train", "x_test", "y_test"), ("x", "y")):
        if set(names) <= arrays.keys():
            found = [as_array(arrays[n], f"{path}: {n}") for n in names]
            return list(zip(found[::2], found[1::2]))
    raise ValueError(
        f"{path}: expected arrays x and y, or x_train, y_train, x_test and y_test; got {', '.join(arrays) or 'none'}"
    )


def _read_csv(path: str) -> np.ndarray:
    """The numbers of a table, (rows, columns)."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = file.read().splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file") from None
    first = next((line for line in lines if line.strip()), "")
    delimiter = next((d for d in ",;\t" if d in first), ",")
    header = 0 if all(map(_is_number, first.split(delimiter))) or not first else lines.index(first) + 1
    if not any(line.strip() for line in lines[header:]):
        raise ValueError(f"{path} holds no lines of numbers")
    try:
        return np.loadtxt(lines, delimiter=delimiter, skiprows=header, ndmin=2, quotechar='"', comments=None)
    except ValueError as error:
        where = _first_fault(lines, header, delimiter) or str(error).rstrip(".")
        raise ValueError(f"{path}: expected numbers only ({where})") from None


def _first_fault(lines: list[str], header: int, delimiter: str) -> str | None:
    """Where a table does not hold numbers, or as many as before; lines and columns count from 1, as in an editor."""
    width = None
    for number, line in enumerate(lines[header:], header + 1):
        cells = line.split(delimiter) if line.strip() else []
        for column, cell in enumerate(cells, 1):
            if not _is_number(cell):
                return f"line {number}, column {column} holds {cell!r}"
        if cells and width not in (None, len(cells)):
            return f"line {number} has {len(cells)} columns, those before have {width}"
        width = len(cells) or width
    return None


def _is_number(text: str) -> bool:
    try:
        float(text.strip().strip('"'))
    except ValueError:
        return False
    return True


def _parts_of_table(table: np.ndarray, path: str, name: str) -> list[Arrays]:
    wants, rows, columns = PROGRAMS[name].wants, *table.shape
    if PROGRAMS[name].dimensions == 4:
        raise ValueError(f"{path}: {name} wants {wants}, which a table cannot hold; use a .npz file")
    if PROGRAMS[name].dimensions == 2:
        if columns < 2:
            raise ValueError(f"{path}: expected columns of features and a last one of targets, got one column")
        return [(table[:, :-1], table[:, -1])]
    if rows < WINDOW + LEAST_ROWS:
        raise ValueError(f"{path}: expected a series of at least {WINDOW + LEAST_ROWS} lines, got {rows}")
    windows = np.lib.stride_tricks.sliding_window_view(table, WINDOW, axis=0)[:-1]
    return [(windows.transpose(0, 2, 1), table[WINDOW:, -1])]


def _check(x: np.ndarray, y: np.ndarray, path: str, name: str) -> None:
    program = PROGRAMS[name]
    if x.ndim != program.dimensions:
        hint = "; x[..., None] gives grey images their channel" if (program.dimensions, x.ndim) == (4, 3) else ""
        raise ValueError(f"{path}: {name} wants {program.wants}, got x of shape {x.shape}{hint}")
    if y.ndim > 2:
        raise ValueError(f"{path}: expected y of shape (n,) or (n, outputs), got {y.shape}")
    for what, array in (("x", x), ("y", y)):
        check_finite(array, f"{path}: {what}", np.float32)
    check_lengths(x=x, y=y)


def _are_classes(y: np.ndarray) -> bool:
    return _is_one_hot(y) or (y.size == len(y) and bool((y == np.round(y)).all()) and len(np.unique(y)) <= MOST_CLASSES)


def _is_one_hot(y: np.ndarray) -> bool:
    return y.ndim == 2 and y.shape[1] > 1 and bool(np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all())


def _classes(parts: list[Arrays], path: str) -> Data:
    parts = [(_floats(x), y.argmax(axis=1) if _is_one_hot(y) else y.reshape(-1)) for x, y in parts]
    labels = np.unique(parts[0][1])
    if len(labels) < 2:
        raise ValueError(f"{path}: expected y of several values, got only {labels[0]}")
    unknown = np.setdiff1d(parts[-1][1], labels)
    if len(unknown):
        raise ValueError(f"{path}: y_test holds class {unknown[0]}, which y_train does not")
    numbered = [(x, np.searchsorted(labels, y)) for x, y in parts]
    train, test = numbered if len(numbered) == 2 else split_by_class(*numbered[0])
    if len(test[1]) == 0:
        raise ValueError(f"{path}: expected at least 5 samples of some class, to keep one for the test")
    return Data(os.path.basename(path), train, test, classes=len(labels), labels=tuple(labels.tolist()), raw=True)


def _regression(parts: list[Arrays], path: str, series: bool) -> Data:
    parts = [(_floats(x), _floats(y.reshape(len(y), -1))) for x, y in parts]
    train, test = parts if len(parts) == 2 else _split(parts[0], path, at_the_end=series)
    mean = np.broadcast_to(train[1].mean(axis=0), test[1].shape)
    return Data(os.path.basename(path), train, test, baseline=mean, baseline_name="the mean", raw=True)


def _series(part: Arrays, path: str) -> Data:
    train, test = _split((_floats(part[0]), _floats(part[1][:, None])), path, at_the_end=True)
    return Data(
        os.path.basename(path), train, test, baseline=test[0][:, -1, -1:], baseline_name="persistence", raw=True
    )


def _split(part: Arrays, path: str, at_the_end: bool) -> tuple[Arrays, Arrays]:
    """Four fifths and one fifth."""
    x, y = part
    if len(y) < LEAST_ROWS:
        raise ValueError(f"{path}: expected at least {LEAST_ROWS} samples, got {len(y)}")
    number = np.arange(len(y))
    test = number >= len(y) - len(y) // 5 if at_the_end else number % 5 == 4
    return (x[~test], y[~test]), (x[test], y[test])


def _floats(array: Any) -> np.ndarray:
    return np.ascontiguousarray(array, dtype=np.float32)
