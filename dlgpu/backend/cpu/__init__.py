"""The CPU column: loops compiled by Numba."""
