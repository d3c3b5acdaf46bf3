"""What the stand-in for CuPy takes from the real one: its names and their arguments, in signatures.txt.

python tests/doubles/signatures.py             prints the file anew, from the CuPy that is installed, for its names
python tests/doubles/signatures.py --write     writes it
"""

import inspect
import re
import sys
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("signatures.txt")


def recorded() -> dict[str, str]:
    """Name -> "(arguments)", or "ufunc" and its loops, such as "ff->f"."""
    lines = FILE.read_text().splitlines()
    parts = (line.partition(" ") for line in lines if line and not line.startswith("#"))
    return {name: arguments for name, _, arguments in parts}


def described(thing: Any) -> str:
    """The same, of a function, class or ufunc of the real CuPy; compiled ones say it in their docstring."""
    if type(thing).__name__ == "ufunc":
        return "ufunc " + " ".join(thing.types)
    stated = re.match(r"[\w.]+\((.*)\)", (thing.__doc__ or "").split("\n")[0])
    if stated:
        arguments = re.sub(
            r"\b(?:size_t|Py_ssize_t|int|bool|str|tuple|intptr_t|ptrdiff_t|BaseMemory) (?=\w)", "", stated[1]
        )
        return f"({re.sub(r'^self(, )?', '', arguments)})".replace("\\*", "*")
    parameters = [p.replace(annotation=p.empty) for p in inspect.signature(thing).parameters.values()]
    return re.sub(r"<class '(\w+)'>", r"\1", str(inspect.Signature(parameters)))


def found(name: str) -> Any:
    """The attribute of cupy of that name, which may have dots."""
    thing = __import__("cupy")
    for part in name.split("."):
        thing = getattr(thing, part)
    return thing


if __name__ == "__main__":
    sys.path = [p for p in sys.path if Path(p).resolve() != FILE.parent]  # where the stand-in is
    lines = [FILE.read_text().split("\n\n")[0], ""]
    lines += [f"{known} {described(found(known))}" for known in sorted(recorded())]
    if "--write" in sys.argv:
        FILE.write_text("\n".join(lines) + "\n")
    else:
        print("\n".join(lines))
