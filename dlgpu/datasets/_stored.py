"""What the data sets share: the file beside the code, and the split of the labelled ones."""

from io import BytesIO

import numpy as np

Arrays = tuple[np.ndarray, np.ndarray]


def read(name: str) -> dict[str, np.ndarray]:
    """The arrays of `name`.npz, read anew from the file at every call.

    Returns:
        dict of array name to array, with the shapes and dtypes that README.md lists.
    """
    from pkgutil import get_data  # only where it is used, as nobody waits for it at the import of dlgpu

    # get_data, because a package inside a zip has no path to give to numpy
    with np.load(BytesIO(get_data(__package__, f"{name}.npz") or b"")) as stored:
        return {key: stored[key] for key in stored.files}


def split_by_class(x: np.ndarray, labels: np.ndarray) -> tuple[Arrays, Arrays]:
    """Train and test rows: every fifth row of each class is a test row, the order is kept.

    A rule instead of a random draw: the same rows under every version of NumPy, and the classes keep their shares.

    Args:
        x: (n, ...), any dtype.
        labels: (n,), integers.
    Returns:
        (x_train, labels_train), (x_test, labels_test), all copies.
    """
    test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        test[rows[4::5]] = True
    return (x[~test], labels[~test]), (x[test], labels[test])
