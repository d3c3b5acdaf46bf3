"""Small real data sets that come with the package: no download, no extra library.

    from dlgpu.datasets import digits
    (x_train, y_train), (x_test, y_test) = digits.load_data()

| module          | task                        | x                      | y                    |
|-----------------|-----------------------------|------------------------|----------------------|
| `digits`        | 10 classes of 8x8 images    | (n, 8, 8, 1) float32   | (n,) int64           |
| `breast_cancer` | 2 classes of 30 features    | (n, 30) float32        | (n,) int64           |
| `sunspots`      | the next value of a series  | (n, window, 1) float32 | (n, 1) float32       |

Every split is fixed, about 20 % test. A file is read when `load_data()` is called, and every call returns new
arrays, so changing them changes nothing for the next caller. Sources and licences are in README.md in this folder.
"""

from dlgpu.datasets import breast_cancer, digits, sunspots

__all__ = ["breast_cancer", "digits", "sunspots"]
