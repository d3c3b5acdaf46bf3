"""The CPU column: loops compiled by Numba, matrix products by NumPy's BLAS."""
