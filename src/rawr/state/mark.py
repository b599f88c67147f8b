"""The mark of the last durable commit: a revision, in the file of the kernel lock.

Processes that wait look at it to see whether their requests have been carried out. It is written after a commit is
on disk and is not itself forced there, so it may be older than the truth and never newer.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Final

from rawr.storage.faults import storage_fault

_MARK: Final = struct.Struct(">QQ")  # revision, checksum


def write_mark(descriptor: int, revision: int, path: Path) -> None:
    """For who holds the kernel lock at `path`, by its descriptor.

    Raises:
        StorageError
    """
    try:
        os.pwrite(descriptor, _MARK.pack(revision, zlib.crc32(revision.to_bytes(8, "big"))), 0)
    except OSError as error:
        raise storage_fault(path, "write", error) from error


def read_mark(path: Path) -> int | None:
    """The revision that the mark names; None when there is no mark, or a torn one.

    Raises:
        StorageError
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_fault(path, "read", error) from error
    try:
        return mark_in(descriptor, path)
    finally:
        os.close(descriptor)


def mark_in(descriptor: int, path: Path) -> int | None:
    """The same, for who has the file at `path` open."""
    try:
        raw = os.pread(descriptor, _MARK.size, 0)
    except OSError as error:
        raise storage_fault(path, "read", error) from error
    if len(raw) != _MARK.size:
        return None
    revision, check = _MARK.unpack(raw)
    return int(revision) if zlib.crc32(raw[:8]) == check else None
