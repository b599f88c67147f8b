"""Whole JSON files: absent is None, corrupt is an error and stays as it is, a write is atomic and durable."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from rawr.errors import CorruptFileError
from rawr.storage.atomic import make_dir, remove, write_durable
from rawr.storage.faults import storage_fault
from rawr.wire import JsonValue, MalformedJsonError, decode

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"  # some editors write one


def read_json(path: Path) -> JsonValue | None:
    """The value in `path`, or None when there is no such file. A file that holds `null` is corrupt.

    Raises:
        CorruptFileError: the file is there and holds no JSON. It is left as it is.
        StorageError: the file is there and cannot be read.
    """
    raw = read_bytes(path)
    if raw is None:
        return None
    try:
        value = decode(raw.removeprefix(_BYTE_ORDER_MARK))
    except MalformedJsonError as error:
        raise corrupt_file(path, len(raw), error.message) from error
    if value is None:
        raise corrupt_file(path, len(raw), "it holds null")
    return value


def read_bytes(path: Path) -> bytes | None:
    """The content of `path`, or None when there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_fault(path, "read", error) from error


def write_json(path: Path, value: object, *, mode: int = 0o644) -> None:
    """Write `value` as two-space JSON and a newline; durable on return. A missing folder is made."""
    make_dir(path.parent)
    write_durable(path, msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n", mode=mode)


def corrupt_file(path: Path, size_bytes: int, reason: str) -> CorruptFileError:
    return CorruptFileError(
        f"{path} ({size_bytes} bytes) cannot be understood: {reason}",
        details={"path": str(path), "sizeBytes": size_bytes, "reason": reason},
        fix=f"repair {path}, or move it away to start afresh",
    )


def remove_json(path: Path) -> None:
    """Remove the file; one that is not there is as good as removed."""
    remove(path)
