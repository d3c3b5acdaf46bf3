"""Exceptions of dlgpu's own, and the words that all error messages share."""

from collections.abc import Iterable


class DeviceError(RuntimeError):
    """A device that is unknown, not there, or that cannot do what was asked."""


class OutOfMemoryError(MemoryError):
    """Training, evaluating or predicting needed more memory than there is; the model is as it was before."""


def unknown_name(kind: str, name: object, known: Iterable[str], spellings: Iterable[str] = ()) -> str:
    """The message for a name that nothing is registered under, with the nearest known name.

    Args:
        kind: what the name should be of.
        name: what came.
        known: the names to list.
        spellings: all names that would have been understood, if there are more.
    """
    from difflib import get_close_matches  # only where something went wrong

    known = sorted(known)
    lower = {spelling.lower(): spelling for spelling in (*known, *spellings)}
    near = get_close_matches(str(name).lower(), lower, n=1, cutoff=0.5)
    hint = f" Did you mean {lower[near[0]]!r}?" if near else ""
    return f"Unknown {kind} {name!r}.{hint} Known: {', '.join(known)}."
