"""Files are written whole or not at all, and what is not a whole file of ours is refused by name."""

import os
import pickle
import zipfile

import numpy as np
import pytest

from dlgpu.saving.files import atomic_write, read_archive, read_safetensors, write_archive, write_safetensors

ARRAYS = {
    "a/kernel": np.arange(12, dtype=np.float32).reshape(3, 4),
    "transposed": np.arange(6.0).reshape(2, 3).T,
    "every second": np.arange(10, dtype=np.int64)[::2],
    "number": np.array(7, np.int64),
    "empty": np.zeros((0, 5), np.float32),
}


def test_arrays_come_back_as_they_went(tmp_path):
    path = tmp_path / "x.safetensors"
    write_safetensors(path, ARRAYS)
    found = read_safetensors(path)
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def write_and_fail(path, error):
    with atomic_write(path) as file:
        file.write(b"half of the new")
        raise error


def test_a_failure_keeps_the_old_file_and_leaves_no_other(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    for error in (OSError, KeyboardInterrupt):
        with pytest.raises(error):
            write_and_fail(path, error)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_a_failed_rename_leaves_no_temporary_file(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError), atomic_write(tmp_path / "folder") as file:
        file.write(b"new")
    assert os.listdir(tmp_path) == ["folder"]


def test_a_link_keeps_pointing_to_the_file(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with atomic_write(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"), atomic_write(tmp_path / "nowhere" / "x"):
        pass


@pytest.mark.parametrize("kept", [0, 4, 20, -1])
def test_a_truncated_file_is_refused(tmp_path, kept):
    for path, write, read in (
        (tmp_path / "x.safetensors", lambda p: write_safetensors(p, ARRAYS), read_safetensors),
        (tmp_path / "x.dlgpu", lambda p: write_archive(p, {"m": b"12345" * 9}), read_archive),
    ):
        write(path)
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(ValueError, match=rf"{path.name} is truncated .*save it again"):
            read(path)


def test_a_foreign_file_is_refused(tmp_path):
    path = tmp_path / "x.bin"
    for content in (pickle.dumps([1]), b"a,b\n1,2\n" * 9):
        path.write_bytes(content)
        for read in (read_safetensors, read_archive):
            with pytest.raises(ValueError, match=r"x\.bin"):
                read(path)


def test_an_archive_notices_a_flipped_bit(tmp_path):
    path = tmp_path / "x.dlgpu"
    write_archive(path, {"weights": b"12345" * 99})
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="CRC"):
        read_archive(path)


def test_equal_archives_are_equal_files(tmp_path):
    for name in "ab":
        write_archive(tmp_path / name, {"m": b"1", "w": b"2"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_archive(tmp_path / "a") == {"m": b"1", "w": b"2"}


def test_an_archive_that_would_unpack_to_more_than_it_is_is_refused(tmp_path):
    path = tmp_path / "x.dlgpu"
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("weights", bytes(10**6))
        with pytest.raises(ValueError, match="compressed"):
            read_archive(path)


def test_an_archive_with_a_damaged_directory_is_refused(tmp_path):
    path = tmp_path / "x.dlgpu"
    write_archive(path, {"model": b"12345" * 9, "weights": b"12345" * 9})
    whole, refused = path.read_bytes(), 0
    for place in range(len(whole) - 130, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            read_archive(path)
        except ValueError:
            refused += 1
    assert refused > 20
