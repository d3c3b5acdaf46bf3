"""Yearly sunspot numbers, 1700 to 2008: a real series with a cycle of about 11 years (NOAA, public domain)."""

from operator import index

import numpy as np

from dlgpu.datasets._stored import Arrays, read

SCALE = 100.0  # load_data() gives sunspot numbers divided by this
FIRST_TEST_YEAR = 1947  # the last 62 of 309 years, 20 %


def load_series() -> Arrays:
    """The whole series as it was measured.

    Returns:
        years (309,) int64, 1700 to 2008 without a gap, and numbers (309,) float32, the yearly mean sunspot numbers.
    """
    stored = read("sunspots")
    numbers = stored["numbers"]
    return stored["first_year"] + np.arange(len(numbers), dtype=np.int64), numbers.astype(np.float32)


def load_data(window: int = 11) -> tuple[Arrays, Arrays]:
    """Each year's number with those of the years before it, split into train and test by time.

        x[i] = numbers[i : i + window] / SCALE        y[i] = numbers[i + window] / SCALE

    A pair belongs to the part of the year in y: train ends in 1946, test is 1947 to 2008 whatever the window is. The
    first test windows look back into training years, as a forecaster would; no test year is in any training pair. Both
    parts are in order of time. SCALE is a constant, so nothing is learnt from the test years: multiply by it for
    sunspot numbers. The forecast to beat, "next year is as this year", is `x_test[:, -1]`.

    Args:
        window: years in x, from 1 to 246. The default is about one solar cycle.
    Returns:
        (x_train, y_train), (x_test, y_test), in hundreds of sunspots, float32:
            x: (247 - window, window, 1) and (62, window, 1): batch, time, features; oldest year first.
            y: (247 - window, 1) and (62, 1), the number of the year after x.
    Raises:
        TypeError: window is not an integer.
        ValueError: window is below 1 or leaves no pair to train on.
    """
    years, numbers = load_series()
    train_years = int(np.searchsorted(years, FIRST_TEST_YEAR))
    if not 1 <= index(window) < train_years:
        raise ValueError(f"sunspots.load_data: expected a window of 1 to {train_years - 1} years, got {window}")
    values = (numbers / np.float32(SCALE))[:, np.newaxis]
    # sliding_window_view puts the time axis last and returns a read-only view of overlapping memory: hence the copies.
    windows = np.lib.stride_tricks.sliding_window_view(values, window, axis=0)[:-1].transpose(0, 2, 1)
    first_test = train_years - window
    x_train, x_test = windows[:first_test].copy(), windows[first_test:].copy()
    y_train, y_test = values[window:train_years].copy(), values[train_years:].copy()
    return (x_train, y_train), (x_test, y_test)
