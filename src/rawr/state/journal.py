"""The journal of the repo state: every revision, with the whole file that it left. Knows its own file only.

One line of JSON per commit, written before the state file is replaced. So the newest line may be an intention that
was never carried out; it was, exactly if the state file has the line's hash (`standing_of` decides). Lines that
cannot be read (a torn one after a power cut) are passed over; nothing but compaction ever removes a line that
was carried out. A line survives the death of its writer; `flush` makes it survive a power cut.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from rawr.state.changes import Change, QueuePosition
from rawr.storage.atomic import write_durable
from rawr.storage.faults import storage_fault

SIZE_MAX: Final = 1 << 20
"""Compaction keeps the newest half of this, and at least `KEPT_MIN` revisions."""
KEPT_MIN: Final = 8
_CHUNK: Final = 1 << 13


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    rev: int
    at: str
    pid: int
    ops: tuple[Change, ...]
    prev: str | None
    """The hash of the file that this one replaced; None when there was none."""
    sha: str
    text: str
    """The whole file."""
    upto: QueuePosition | None = None


def sha_of(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


class Journal:
    """Writing is for who holds the state's lock; reading is for everybody, at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._path = str(path)
        self._tail: tuple[int, int, Entry] | None = None
        """What we wrote last, with inode and size of the file after it: while both are so, it is the last line."""

    def append(self, entries: Sequence[Entry]) -> int:
        """Append `entries`, of which there is one at least. Gives the size before, for `take_back`.

        Raises:
            StorageError: nothing was appended.
        """
        data = b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries)
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                before = os.fstat(descriptor)
                ends_well = self._tail is not None and self._tail[:2] == (before.st_ino, before.st_size)
                size = _append(descriptor, before.st_size, data, ends_well=ends_well)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise storage_fault(self.path, "write", error) from error
        self._tail = (before.st_ino, size, entries[-1])
        return before.st_size

    def flush(self) -> None:
        """Force what was appended to disk."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise storage_fault(self.path, "flush", error) from error

    def take_back(self, size: int) -> None:
        """Cut the journal back to `size` bytes: what was appended since is not going to happen."""
        self._tail = None
        try:
            os.truncate(self.path, size)
        except OSError as error:
            raise storage_fault(self.path, "cut", error) from error

    def entries(self) -> Iterator[Entry]:
        """Newest first, one per revision. A line that a later one superseded or that cannot be read is left out."""
        above: int | None = None
        if (last := self._last()) is not None:
            above = last.rev
            yield last
        with _opened(self.path) as descriptor:
            for line in () if descriptor is None else _lines_of(descriptor):
                entry = _read(line)
                if entry is not None and (above is None or entry.rev < above):
                    above = entry.rev
                    yield entry

    def damaged_lines(self) -> int:
        with _opened(self.path) as descriptor:
            lines = () if descriptor is None else _lines_of(descriptor)
            return sum(1 for line in lines if line.strip() and _read(line) is None)

    def misplaced_lines(self) -> int:
        """Lines with a greater revision than a later line has: no writer leaves such. Equal ones are repeated tries."""
        lowest, count = math.inf, 0
        with _opened(self.path) as descriptor:
            for line in () if descriptor is None else _lines_of(descriptor):
                entry = _read(line)
                if entry is not None:
                    count += entry.rev > lowest
                    lowest = min(lowest, entry.rev)
        return count

    def rewrite(self) -> None:
        """Leave only what `entries` gives. For who holds the state's lock.

        Raises:
            StorageError
        """
        lines = [msgspec.json.encode(entry) + b"\n" for entry in self.entries()]
        write_durable(self.path, b"".join(reversed(lines)))
        self._tail = None

    def size(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def compact(self) -> bool:
        """Forget the oldest revisions when the journal has grown past `SIZE_MAX`; whether it had."""
        if (self._tail[1] if self._tail is not None else self.size()) <= SIZE_MAX:
            return False
        kept: list[bytes] = []
        size = 0
        for entry in self.entries():
            line = msgspec.json.encode(entry) + b"\n"
            size += len(line)
            if size > SIZE_MAX // 2 and len(kept) >= KEPT_MIN:
                break
            kept.append(line)
        write_durable(self.path, b"".join(reversed(kept)))
        self._tail = None
        return True

    def _last(self) -> Entry | None:
        """The last line, if it is known without reading it."""
        if self._tail is None:
            return None
        inode, size, entry = self._tail
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return entry if (status.st_ino, status.st_size) == (inode, size) else None


def _append(descriptor: int, size: int, data: bytes, *, ends_well: bool) -> int:
    """Write `data` behind the `size` bytes that are there; the size after it."""
    if size and not ends_well and os.pread(descriptor, 1, size - 1) != b"\n":
        data = b"\n" + data  # a torn line stays a line of its own
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError:
        with contextlib.suppress(OSError):  # the first failure is the one to tell; a torn line does no harm
            os.ftruncate(descriptor, size)
        raise
    return size + len(data)


def _read(line: bytes) -> Entry | None:
    try:
        entry = msgspec.json.decode(line, type=Entry)
        return entry if sha_of(entry.text.encode()) == entry.sha else None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """The journal for reading; None when there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise storage_fault(path, "read", error) from error
    try:
        yield descriptor
    except OSError as error:
        raise storage_fault(path, "read", error) from error
    finally:
        os.close(descriptor)


def _lines_of(descriptor: int) -> Iterator[bytes]:
    end = os.fstat(descriptor).st_size
    first_parts: list[bytes] = []  # of the line whose beginning is not read yet, last part first
    while end > 0:
        start = max(0, end - _CHUNK)
        head, *lines = os.pread(descriptor, end - start, start).split(b"\n")
        if lines:
            yield lines.pop() + b"".join(reversed(first_parts))
            yield from reversed(lines)
            first_parts = []
        first_parts.append(head)
        end = start
    yield b"".join(reversed(first_parts))
