"""The compiled sums of an epoch against their references."""

from tests.backend.rows.counting import *
