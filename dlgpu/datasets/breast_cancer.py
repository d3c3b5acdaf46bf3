"""Breast cancer Wisconsin (diagnostic): 569 tumours, 30 features of their cell nuclei, 2 classes (UCI, 1993)."""

import numpy as np

from dlgpu.datasets._stored import Arrays, read, split_by_class

CLASS_NAMES = ("malignant", "benign")

_MEASURES = (
    "radius",
    "texture",
    "perimeter",
    "area",
    "smoothness",
    "compactness",
    "concavity",
    "concave points",
    "symmetry",
    "fractal dimension",
)
FEATURE_NAMES = tuple(
    [f"mean {measure}" for measure in _MEASURES]
    + [f"{measure} error" for measure in _MEASURES]
    + [f"worst {measure}" for measure in _MEASURES]
)


def load_data(standardize: bool = True) -> tuple[Arrays, Arrays]:
    """The features and the diagnoses, split into train and test.

    Every fifth row of each class is a test row. Raw features range from thousandths (errors of smoothness) to
    thousands (areas), so they are standardized unless told otherwise:

        x = (raw - mean) / std, with mean and std of each feature over the training rows only

    so that nothing of the test rows reaches the training.

    Args:
        standardize: False returns the raw features, in the source's units (see README.md).
    Returns:
        (x_train, y_train), (x_test, y_test):
            x: (456, 30) and (113, 30) float32, in the order of FEATURE_NAMES.
            y: (456,) and (113,) int64, 0 is malignant, 1 is benign, as in CLASS_NAMES.
    """
    stored = read("breast_cancer")
    (x_train, y_train), (x_test, y_test) = split_by_class(stored["features"], stored["labels"].astype(np.int64))
    if standardize:
        mean, std = x_train.mean(axis=0), x_train.std(axis=0)
        x_train, x_test = (x_train - mean) / std, (x_test - mean) / std
    return (x_train.astype(np.float32), y_train), (x_test.astype(np.float32), y_test)
