"""The compiled pooling loops against their reference."""

from tests.backend.rows.pooling import *
