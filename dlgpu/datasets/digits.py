"""Handwritten digits: 1797 grey images of 8x8 pixels in 10 classes (UCI, E. Alpaydin and C. Kaynak, 1998)."""

import numpy as np

from dlgpu.datasets._stored import Arrays, read, split_by_class

BRIGHTEST = 16  # a stored pixel counts the ink dots in a 4x4 block of the scan


def load_data() -> tuple[Arrays, Arrays]:
    """The images and their digits, split into train and test.

    Every fifth image of each digit is a test image. The 13 writers are in both parts (the source does not say who
    wrote what), so a test score speaks of new images by known hands, not of new writers.

    Returns:
        (x_train, y_train), (x_test, y_test):
            x: (1442, 8, 8, 1) and (355, 8, 8, 1) float32, height, width, channels; 0 is paper, 1 is full ink.
            y: (1442,) and (355,) int64, the digit, 0 to 9.
    """
    stored = read("digits")
    images = stored["images"][..., np.newaxis].astype(np.float32) / np.float32(BRIGHTEST)
    return split_by_class(images, stored["labels"].astype(np.int64))
