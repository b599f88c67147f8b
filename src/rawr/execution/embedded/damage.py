"""A damaged engine file: how it is told, and how it is put aside. The truth about runs of workflows is not in it."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from rawr.errors import CorruptFileError, RawrError
from rawr.execution.embedded.owners import SLOTS
from rawr.storage.aside import moved_aside
from rawr.storage.lock import is_held, pids_holding
from rawr.storage.snapshots import check_database
from rawr.storage.sqlite import DatabaseCorruptError

# Of https://sqlite.org/fileformat.html, section 1.3: the magic, the size of a page, and the number of pages.
_HEADER: Final = struct.Struct(">16sH10xI")
_MAGIC: Final = b"SQLite format 3\0"
_WAY_OUT: Final = "rawr down, then rawr engine repair"


class EngineFileDamagedError(CorruptFileError):
    """The file cannot be understood, and is left as it is."""

    code = "ENGINE_FILE_DAMAGED"


class EngineInUseError(RawrError):
    """Some process works with the file that is to be put aside."""

    code = "ENGINE_IN_USE"


class Repaired(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    damage: str | None
    """What was wrong; None when nothing was, and nothing was done."""
    put_aside: tuple[str, ...] = ()


@contextlib.contextmanager
def damage_said() -> Iterator[None]:
    """Let damage that shows in this block be told as the engine's, with the way out."""
    try:
        yield
    except DatabaseCorruptError as error:
        raise EngineFileDamagedError(
            f"the engine's file is damaged: {error.message}",
            details=error.details,
            fix=_WAY_OUT,
        ) from error


def refuse_unlike_itself(path: Path) -> None:
    """Refuse a folder, and a file that is shorter than it says, which SQLite notices only where something is missing.

    With a log beside it, it may be: its first page has its new length before the others have followed, when a process
    checkpoints or was killed while it did.

    Raises:
        DatabaseCorruptError
    """
    if path.is_dir():
        raise DatabaseCorruptError(f"{path} is a folder", details={"path": str(path)})
    missing = _lengths(path)
    if missing is None or _has_log(path):
        return
    missing = _lengths(path)  # the log that made up for it may have been used up in between
    if missing is not None:
        size_bytes, wanted = missing
        message = f"{path} cannot be understood: it has {size_bytes} bytes and says that it has {wanted}"
        raise DatabaseCorruptError(message, details={"path": str(path), "sizeBytes": size_bytes})


def _lengths(path: Path) -> tuple[int, int] | None:
    """The length of the file and the one that it says, when it is shorter."""
    try:
        with path.open("rb") as file:
            header, size_bytes = file.read(_HEADER.size), os.fstat(file.fileno()).st_size
    except OSError:
        return None  # none yet; or opening it will say what is wrong
    if len(header) < _HEADER.size:
        return None
    magic, page_size, pages = _HEADER.unpack(header)
    wanted = pages * (65536 if page_size == 1 else page_size)
    return (size_bytes, wanted) if magic == _MAGIC and size_bytes < wanted else None


def _has_log(path: Path) -> bool:
    try:
        return path.with_name(f"{path.name}-wal").stat().st_size > 0
    except OSError:
        return False


def refuse_damaged(database: Path) -> None:
    """Read all of the file, and refuse it unless it is sound or not there.

    Raises:
        EngineFileDamagedError
    """
    if os.path.lexists(database) and (damage := damage_of(database)) is not None:
        raise EngineFileDamagedError(
            f"the engine's file is damaged: {damage}", details={"path": str(database)}, fix=_WAY_OUT
        )


def put_aside(database: Path, run_dir: Path, *, at_ms: int, check_only: bool = False) -> Repaired:
    """Move a damaged file away, with what belongs to it. The next engine begins a new one; a sound file stays.

    Reads all of the file.

    Raises:
        EngineInUseError: an engine works with it.
        StorageError
    """
    if not os.path.lexists(database):
        return Repaired(damage=None)
    damage = damage_of(database)
    if damage is None or check_only:
        return Repaired(damage=damage)
    _refuse_in_use(database, run_dir)
    return Repaired(damage=damage, put_aside=tuple(moved_aside(database, f"{database.name}.damaged-{at_ms}")))


def damage_of(database: Path) -> str | None:
    """What is wrong with the file, which is there; None when nothing is. Reads all of it and changes nothing."""
    if not database.is_file():
        return f"{database} is no file"
    if database.stat().st_size == 0:
        return f"{database} is empty"
    try:
        refuse_unlike_itself(database)
    except DatabaseCorruptError as error:
        return error.message
    return check_database(database)


def _refuse_in_use(database: Path, run_dir: Path) -> None:
    for slot in range(SLOTS):
        lock = run_dir / f"engine-{slot}.lock"
        if lock.exists() and is_held(lock):
            pids = ", ".join(str(pid) for pid in sorted(pids_holding(lock) or ())) or "unknown"
            raise EngineInUseError(
                f"a process works with {database} (pid {pids})", details={"path": str(database)}, fix="rawr down"
            )
