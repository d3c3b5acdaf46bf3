"""Exceptions of dlgpu's own, and the words that all error messages share."""

import difflib
from collections.abc import Iterable


class DeviceError(RuntimeError):
    """A device that is unknown, not there, or that cannot do what was asked."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> str:
    """The message for a name that nothing is registered under, with the nearest known name."""
    known = sorted(known)
    near = difflib.get_close_matches(str(name).lower(), [k.lower() for k in known], n=1, cutoff=0.5)
    nearest = next((k for k in known if near and k.lower() == near[0]), None)
    hint = f" Did you mean {nearest!r}?" if nearest else ""
    return f"Unknown {kind} {name!r}.{hint} Known: {', '.join(known)}."
