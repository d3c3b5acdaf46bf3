"""The compiled optimizer steps against their reference."""

from tests.backend.rows.update import *
