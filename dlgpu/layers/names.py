"""Names of layers: each is given once in a process."""

_counts: dict[str, int] = {}  # by the base: how many names were tried
_given: set[str] = set()


def unique_name(base: str) -> str:
    """`base` the first time, then base_1, base_2, ...; never a name that a layer was given."""
    count = _counts.get(base, 0)
    while (name := f"{base}_{count}" if count else base) in _given:
        count += 1
    _counts[base] = count + 1
    return name


def give(name: str) -> str:
    """Note that a layer has this name: one that a user chose, or that was loaded, may be like those made here."""
    _given.add(name)
    return name
