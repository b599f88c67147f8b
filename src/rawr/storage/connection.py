"""Connections to SQLite, and what goes wrong with them in our own words. The one user of apsw."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import apsw

from rawr.errors import CorruptFileError, RawrError, StorageError
from rawr.storage.faults import (
    StorageBusyError,
    StorageFullError,
    StorageIsDirectoryError,
    StorageReadOnlyError,
)

SqlValue: TypeAlias = int | float | str | bytes | None
Params: TypeAlias = Sequence[SqlValue] | Mapping[str, SqlValue]
Row: TypeAlias = tuple[Any, ...]

# Before this version two connections that write and checkpoint at once may lose pages of a WAL database.
SQLITE_VERSION_MIN: Final = (3, 51, 3)
BUSY_TIMEOUT_MS: Final = 10_000
_PRAGMAS: Final = """
PRAGMA synchronous=FULL;
PRAGMA foreign_keys=1;
PRAGMA trusted_schema=0;
PRAGMA mmap_size=0;
"""


class DatabaseCorruptError(CorruptFileError):
    """The file is there and is not a whole SQLite database. It is left as it is."""

    code = "DATABASE_CORRUPT"


class DatabaseBusyError(StorageBusyError):
    code = "DATABASE_BUSY"


class ConstraintError(RawrError):
    """A UNIQUE, CHECK, NOT NULL, type or foreign key rule of the schema refused a statement."""

    code = "CONSTRAINT_FAILED"


class Connection:
    """What a unit of work is given. It must not outlive the unit."""

    __slots__ = ("_path", "_raw")

    def __init__(self, raw: apsw.Connection, path: Path) -> None:
        self._raw = raw
        self._path = path

    def execute(self, sql: str, params: Params = ()) -> list[Row]:
        """Run every statement of `sql` to its end and give all rows (also those of RETURNING).

        Raises:
            ConstraintError: the schema refused it; only this statement was undone.
            StorageError, CorruptFileError: the disk or the file.
        """
        try:
            # The list matters: later statements of a text run only when the rows of earlier ones are consumed.
            return list(self._raw.execute(sql, params))
        except apsw.Error as error:
            raise fault(self._path, error) from error

    def one(self, sql: str, params: Params = ()) -> Row | None:
        """The first row, or None."""
        rows = self.execute(sql, params)
        return rows[0] if rows else None

    def execute_many(self, sql: str, rows: Iterable[Params]) -> None:
        try:
            for _ in self._raw.executemany(sql, rows):
                pass
        except apsw.Error as error:
            raise fault(self._path, error) from error

    @property
    def changes(self) -> int:
        """Rows that the last INSERT, UPDATE or DELETE changed. Cheaper than RETURNING when no more is wanted."""
        return self._raw.changes()

    @property
    def last_row_id(self) -> int:
        """The row id of the last row that was inserted."""
        return self._raw.last_insert_rowid()


def run(connection: Connection, sql: str, params: Params = ()) -> None:
    """Run every statement of `sql` to its end."""
    connection.execute(sql, params)


def rows(connection: Connection, sql: str, params: Params = ()) -> list[Row]:
    """All rows, also those of RETURNING."""
    return connection.execute(sql, params)


def one(connection: Connection, sql: str, params: Params = ()) -> Row | None:
    """The first row, or None."""
    return connection.one(sql, params)


def refuse_old_sqlite() -> None:
    found = apsw.sqlite_lib_version()
    if tuple(map(int, found.split("."))) < SQLITE_VERSION_MIN:
        needed = ".".join(map(str, SQLITE_VERSION_MIN))
        raise StorageError(
            f"SQLite {found} may lose data in WAL mode; {needed} or newer is needed",
            details={"found": found, "needed": needed},
            fix="install a newer apsw",
        )


def connect(path: Path, *, read_only: bool = False) -> apsw.Connection:
    # Readers of a WAL database write its shared index, so they open the file for writing as well.
    raw = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        raw.set_busy_timeout(BUSY_TIMEOUT_MS)
        list(raw.execute(_PRAGMAS))
        if read_only:
            list(raw.execute("PRAGMA query_only=1"))
    except BaseException:
        close_untouched(raw)
        raise
    return raw


def leave_log(raw: apsw.Connection) -> None:
    # Who closes the file last moves the log of a process that died into it, or removes a log that makes no sense beside
    # it. That is not the business of who only looks, and takes from a damaged file what may be the rest of it.
    raw.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)


def close_untouched(raw: apsw.Connection) -> None:
    leave_log(raw)
    raw.close()


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    try:
        yield
    except apsw.Error as error:
        raise fault(path, error) from error


def fault(path: Path, error: apsw.Error) -> Exception:
    """Ours for a fault of the world; a wrong statement is a fault of ours and stays what it is."""
    details = {"path": str(path), "cause": str(error)}
    match error:
        case apsw.CorruptError() | apsw.NotADBError():
            return corrupt(path, str(error))
        case apsw.ConstraintError():
            return ConstraintError(str(error), details=details)
        case apsw.BusyError() | apsw.LockedError():
            return DatabaseBusyError(f"{path} is locked by another program", details=details)
        case apsw.FullError():
            return StorageFullError(f"cannot write {path}: disk full", details=details, fix="free some space")
        case apsw.ReadOnlyError() | apsw.PermissionsError() | apsw.AuthError():
            return StorageReadOnlyError(f"cannot write {path}: {error}", details=details)
        case apsw.CantOpenError() if path.is_dir():
            return StorageIsDirectoryError(f"cannot open {path}: is a directory", details=details)
        case apsw.CantOpenError() | apsw.IOError():
            return StorageError(f"cannot use {path}: {error}", details=details, fix="check the disk")
    return error


def corrupt(path: Path, cause: str) -> DatabaseCorruptError:
    return DatabaseCorruptError(
        f"{path} cannot be understood: {cause}",
        details={"path": str(path), "cause": cause},
        fix=f"move {path.name}, {path.name}-wal and {path.name}-shm away together, or put a backup in their place",
    )
