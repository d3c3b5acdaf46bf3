"""Mutants that change no result, and why: (file, the changed line)."""

EQUIVALENT: set[tuple[str, str]] = set()
