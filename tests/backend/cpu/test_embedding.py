"""Compiled gather and scatter-add against their references."""

from tests.backend.rows.embedding import *
