"""Files: written whole or not at all, and read without running anything that is in them."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

import numpy as np

REPAIR = "save it again, or fetch it again"


@contextmanager
def atomic_write(path: Any) -> Iterator[BinaryIO]:
    """A new binary file that takes the place of `path` at the end of the `with`, in one step.

    On any failure, a lost machine included, `path` is what it was before, and no other file is left.

    Raises:
        OSError: the folder is missing, full, or not writable.
    """
    target = os.path.realpath(path)  # a link keeps pointing to the file
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name[:200]}.{os.urandom(4).hex()}")
    file = open(temporary, "xb")  # noqa: SIM115, closed before it is renamed
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.remove(temporary)
        raise


def to_safetensors(arrays: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None) -> bytes:
    """Arrays by name in the safetensors format; bfloat16, which NumPy does not know, as float32."""
    from safetensors.numpy import save  # only here: `import dlgpu` does not wait for it

    def plain(array: np.ndarray) -> np.ndarray:
        array = array.astype(np.float32) if array.dtype.name == "bfloat16" else array
        return np.ascontiguousarray(array).reshape(array.shape)

    return save({name: plain(array) for name, array in arrays.items()}, metadata)


def from_safetensors(data: bytes, origin: Any) -> dict[str, np.ndarray]:
    """The arrays that `to_safetensors` wrote.

    Raises:
        ValueError: `data` is truncated or something else; the message names `origin`.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ValueError(f"{origin} is truncated or no safetensors file ({error}): {REPAIR}") from None


def write_safetensors(path: Any, arrays: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
    """Write arrays by name to a .safetensors file, atomically."""
    data = to_safetensors(arrays, metadata)
    with atomic_write(path) as file:
        file.write(data)


def read_safetensors(path: Any) -> dict[str, np.ndarray]:
    """The arrays in a .safetensors file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is truncated or something else.
    """
    with open(path, "rb") as file:
        return from_safetensors(file.read(), path)


def write_archive(path: Any, members: Mapping[str, bytes]) -> None:
    """Write a zip of uncompressed members, atomically; equal members give an equal file."""
    import zipfile  # with all that it brings, only where there is a file

    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)


def read_archive(path: Any) -> dict[str, bytes]:
    """The members of a zip.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is truncated, damaged (each member has a checksum) or something else. Compressed members are
            refused, so that a small file cannot fill the memory.
    """
    import zipfile

    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                stored = all(m.compress_type == zipfile.ZIP_STORED for m in members)
                if not stored or sum(m.file_size for m in members) > os.path.getsize(path):
                    raise ValueError("its members are compressed or overlap")
                return {member.filename: archive.read(member) for member in members}
        except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, OSError, ValueError) as error:
            raise ValueError(f"{path} is truncated or no .dlgpu file ({error}): {REPAIR}") from None
