"""JSON files: only a missing one is absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from rawr.errors import CorruptFileError
from rawr.storage.faults import StorageIsDirectoryError
from rawr.storage.jsonfile import read_json, remove_json, write_json


def test_a_missing_file_is_none(tmp_path: Path) -> None:
    assert read_json(tmp_path / "none.json") is None


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"a": [1, "\u0000é"], "b": None}, mode=0o600)
    assert read_json(path) == {"a": [1, "\u0000é"], "b": None}
    assert path.read_bytes().startswith(b'{\n  "a": [')
    assert path.read_bytes().endswith(b"}\n")
    assert path.stat().st_mode & 0o777 == 0o600
    remove_json(path)
    remove_json(path)
    assert read_json(path) is None


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "file.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(tmp_path / "file.json") == [1]


@pytest.mark.parametrize("raw", [b"", b"{", b"\x00" * 64, b"\xff\xfe", b"NaN", b"null", b"[" * 100_000, b"{} x"])
def test_a_corrupt_file_is_an_error_that_names_path_and_size_and_stays(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(raw)
    with pytest.raises(CorruptFileError, match=rf"file\.json \({len(raw)} bytes\)"):
        read_json(path)
    assert path.read_bytes() == raw


def test_a_directory_in_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageIsDirectoryError, match="is a directory"):
        read_json(tmp_path)
