"""The normalization loops of the CPU column against their references."""

from tests.backend.rows.normalization import *
