"""Looking at a SQLite file, and giving its free pages back, without opening it as a database of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from rawr.errors import RawrError
from rawr.storage.connection import Connection, Row, connect, leave_log, rows, translated


def check_database(path: Path) -> str | None:
    """Why the SQLite file at `path` is not sound; None when it is. Reads all of it and changes nothing."""
    try:
        with snapshot(path) as connection:
            [(verdict,), *_] = connection.execute("PRAGMA integrity_check(1)")
    except RawrError as error:
        return error.message
    return None if verdict == "ok" else f"{path} is damaged: {verdict}"


def look_into(path: Path, sql: str) -> list[Row]:
    """The rows of one question to the SQLite file at `path`, which may be in use. Makes, migrates and changes nothing.

    Raises:
        RawrError: the file is no such database, or cannot be read.
    """
    with snapshot(path) as connection:
        return rows(connection, sql)


def compact(path: Path) -> None:
    """Give the free pages of the file back to the system. For who has it alone; takes as long as copying it.

    Raises:
        DatabaseBusyError, DatabaseCorruptError, StorageError: the file is as it was.
    """
    with translated(path):
        raw = connect(path)
        try:
            list(raw.execute("VACUUM"))
            list(raw.execute("PRAGMA wal_checkpoint(TRUNCATE)"))
        finally:
            raw.close()


@contextlib.contextmanager
def snapshot(path: Path) -> Iterator[Connection]:
    """What is committed in the SQLite file at `path` now, which may be in use. Makes, migrates and changes nothing.

    Raises:
        RawrError: the file is no such database, or cannot be read.
    """
    log = path.with_name(path.name + "-wal")
    with translated(path):
        raw = connect(path, read_only=True)
        try:
            if log.exists() and log.stat().st_size:
                leave_log(raw)
            connection = Connection(raw, path)
            connection.execute("BEGIN")
            yield connection
        finally:
            raw.close()
