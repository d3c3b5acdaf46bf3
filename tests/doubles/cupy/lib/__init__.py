"""Stand-in for `cupy.lib`."""

from cupy.lib import stride_tricks
