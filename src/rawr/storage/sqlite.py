"""SQLite databases of an instance: one writer thread with group commit, snapshots for readers. The one user of apsw.

What returns from `write` is durable (WAL, synchronous=FULL). Several processes may have one file open: a kernel
lock on the side file `<database>.wlock` takes them in turn, which SQLite's own busy handler does not.
The writer thread and SQLite connections do not survive a fork, so a child that inherited a database is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, Self, TypeAlias, TypeVar

import apsw

from rawr.errors import CorruptFileError, RawrError, StorageError
from rawr.storage.faults import (
    StorageBusyError,
    StorageFullError,
    StorageIsDirectoryError,
    StorageReadOnlyError,
    storage_fault,
)
from rawr.storage.groupcommit import Done, Failed, GroupWriter, Outcome, WriterClosedError
from rawr.storage.lock import FileLock, LockTimeoutError
from rawr.storage.migrations import Migration, SchemaChangedError, SchemaNewerError, migrate

__all__ = [
    "Connection",
    "ConstraintError",
    "Database",
    "DatabaseBusyError",
    "DatabaseClosedError",
    "DatabaseCorruptError",
    "DatabaseForkedError",
    "Migration",
    "Params",
    "Row",
    "SchemaChangedError",
    "SchemaNewerError",
    "SqlValue",
    "check_database",
    "one",
    "rows",
    "run",
    "snapshot",
]

SqlValue: TypeAlias = int | float | str | bytes | None
Params: TypeAlias = Sequence[SqlValue] | Mapping[str, SqlValue]
Row: TypeAlias = tuple[Any, ...]
T = TypeVar("T")
Unit: TypeAlias = "Callable[[Connection], Any]"

# Before this version two connections that write and checkpoint at once may lose pages of a WAL database.
SQLITE_VERSION_MIN: Final = (3, 51, 3)
BUSY_TIMEOUT_MS: Final = 10_000
TURN_TIMEOUT_S: Final = 10.0
# The owner of the turn holds it for a few milliseconds; who polls slower would hardly ever see it free.
TURN_BACKOFF_MAX_S: Final = 0.002
READERS_IDLE_MAX: Final = 4
_PRAGMAS: Final = """
PRAGMA synchronous=FULL;
PRAGMA foreign_keys=1;
PRAGMA trusted_schema=0;
PRAGMA mmap_size=0;
"""
_INITIALIZED: Final = b"initialized\n"


class DatabaseCorruptError(CorruptFileError):
    """The file is there and is not a whole SQLite database. It is left as it is."""

    code = "DATABASE_CORRUPT"


class DatabaseBusyError(StorageBusyError):
    code = "DATABASE_BUSY"


class DatabaseForkedError(StorageError):
    """The database was opened before a fork; the child opens its own."""

    code = "DATABASE_FORKED"


DatabaseClosedError = WriterClosedError


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
            raise _fault(self._path, error) from error

    def one(self, sql: str, params: Params = ()) -> Row | None:
        """The first row, or None."""
        rows = self.execute(sql, params)
        return rows[0] if rows else None

    def execute_many(self, sql: str, rows: Iterable[Params]) -> None:
        try:
            for _ in self._raw.executemany(sql, rows):
                pass
        except apsw.Error as error:
            raise _fault(self._path, error) from error

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


class Database:
    """One open database. Construction blocks: it makes the file (mode 0600) and its directory, and migrates.

    `readers` connections for reading are kept open while idle. A group of writes waits at most `turn_timeout_s` for
    other processes.

    Raises:
        DatabaseCorruptError, SchemaNewerError, SchemaChangedError, StorageError: the file is left as it was.
    """

    def __init__(
        self,
        path: Path,
        migrations: Sequence[Migration],
        readers: int = READERS_IDLE_MAX,
        *,
        turn_timeout_s: float = TURN_TIMEOUT_S,
    ) -> None:
        _refuse_old_sqlite()
        self.path = path
        self._pid = os.getpid()
        self._turn = FileLock(path.with_name(path.name + ".wlock"), backoff_max_s=TURN_BACKOFF_MAX_S)
        self._turn_timeout_s = turn_timeout_s
        self._readers = _Readers(path, idle_max=readers)
        self._raw = self._open(migrations)
        self._connection = Connection(self._raw, path)
        self._writer: GroupWriter[Unit] = GroupWriter(f"the writer of {path}", self._commit)

    async def write(self, unit: Callable[[Connection], T]) -> T:
        """Run `unit` in a transaction on the writer thread; durable when this returns.

        `unit` is short and synchronous and may be grouped with others: what it raises reaches this caller and undoes
        this unit alone. It may be run again from its start, after everything was undone, so it changes nothing but
        the database. Cancelling the waiter does not withdraw the unit.

        Raises:
            StorageError: a subclass; nothing of this unit was stored (OutcomeUnknownError: it may be).
        """
        self._refuse_fork()
        result: T = await self._writer.submit(unit)
        return result

    def write_sync(self, unit: Callable[[Connection], T]) -> T:
        """`write` for threads without an event loop. Never from inside a unit."""
        self._refuse_fork()
        result: T = self._writer.submit_sync(unit)
        return result

    def write_soon(self, unit: Callable[[Connection], T]) -> Future[T]:
        """`write` for who has nothing to wait for: what is written after it comes after it.

        The future is done when it is durable, or has failed; its callbacks are called by the writer's thread.
        """
        self._refuse_fork()
        return self._writer.submit_soon(unit)

    async def read(self, unit: Callable[[Connection], T]) -> T:
        """Run `unit` in a worker thread on one snapshot of what is committed. It cannot write."""
        return await asyncio.to_thread(self.read_sync, unit)

    def read_sync(self, unit: Callable[[Connection], T]) -> T:
        self._refuse_fork()
        with self._readers.borrow() as raw:
            connection = Connection(raw, self.path)
            connection.execute("BEGIN")
            try:
                return unit(connection)
            finally:
                if raw.in_transaction:
                    connection.execute("ROLLBACK")

    def data_version(self) -> int:
        """A number that changes when anybody, in any process, has committed. Cheap enough to poll."""
        self._refuse_fork()
        with _translated(self.path):
            return self._readers.data_version()

    def close(self) -> None:
        """Commit what was accepted and close. Safe to call twice; in a forked child it does nothing."""
        if os.getpid() != self._pid:
            return
        self._writer.close()
        self._readers.close()
        self._raw.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _commit(self, units: Sequence[Unit]) -> Sequence[Outcome]:
        try:
            with self._my_turn(), _translated(self.path):
                return self._transaction(units)
        except Exception as error:  # noqa: BLE001 - whatever it was, each of the waiters has to hear of it
            return [Failed(error)] * len(units)

    def _transaction(self, units: Sequence[Unit]) -> Sequence[Outcome]:
        list(self._raw.execute("BEGIN IMMEDIATE"))
        try:
            outcomes = self._run_together(units)
            if any(isinstance(outcome, Done) for outcome in outcomes):
                list(self._raw.execute("COMMIT"))
        finally:
            self._roll_back()  # nothing to commit, a failed COMMIT, or a unit that could not be undone alone
        return outcomes

    def _run_together(self, units: Sequence[Unit]) -> list[Outcome]:
        """Seldom does one fail. Then all are undone, and run again such that each can be undone alone."""
        try:
            return [Done(unit(self._connection)) for unit in units]
        except Exception as error:  # noqa: BLE001 - it is told to who waits
            self._roll_back()
            if len(units) == 1:
                return [Failed(error)]
        list(self._raw.execute("BEGIN IMMEDIATE"))
        return [self._run_guarded(unit) for unit in units]

    def _roll_back(self) -> None:
        if self._raw.in_transaction:
            list(self._raw.execute("ROLLBACK"))

    def _run_guarded(self, unit: Unit) -> Outcome:
        list(self._raw.execute("SAVEPOINT unit"))
        try:
            value = unit(self._connection)
        except Exception as error:
            if not self._raw.in_transaction:  # SQLite has rolled everything back, the other units too
                raise
            list(self._raw.execute("ROLLBACK TO unit; RELEASE unit"))
            return Failed(error)
        list(self._raw.execute("RELEASE unit"))
        return Done(value)

    def _open(self, migrations: Sequence[Migration]) -> apsw.Connection:
        with self._my_turn(), _translated(self.path):
            try:
                _create_or_refuse(self.path, self._turn.path)
            except OSError as error:
                raise storage_fault(self.path, "create", error) from error
            raw = _connect(self.path)
            try:
                self._prepare(raw, migrations)
                self._turn.path.write_bytes(_INITIALIZED)
            except BaseException:
                _close_untouched(raw)
                raise
            return raw

    def _prepare(self, raw: apsw.Connection, migrations: Sequence[Migration]) -> None:
        [(journal_mode,)] = raw.execute("PRAGMA journal_mode=wal")
        if journal_mode != "wal":
            raise StorageError(f"{self.path} cannot use a write-ahead log here", fix="keep it on a local disk")
        list(raw.execute("BEGIN IMMEDIATE"))
        try:
            migrate(Connection(raw, self.path), self.path, migrations)
            list(raw.execute("COMMIT"))
        finally:
            if raw.in_transaction:
                list(raw.execute("ROLLBACK"))

    @contextlib.contextmanager
    def _my_turn(self) -> Iterator[None]:
        try:
            with self._turn.acquire(self._turn_timeout_s):
                yield
        except LockTimeoutError as error:
            raise DatabaseBusyError(
                f"another process has been writing to {self.path} for {self._turn_timeout_s:g} s",
                details=error.details,
                fix=error.fix,
            ) from error

    def _refuse_fork(self) -> None:
        if os.getpid() != self._pid:
            raise DatabaseForkedError(
                f"{self.path} was opened by process {self._pid}, before the fork",
                details={"path": str(self.path), "openedBy": self._pid},
                fix="open the database in the child",
            )


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
    with _translated(path):
        raw = _connect(path)
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
    with _translated(path):
        raw = _connect(path, read_only=True)
        try:
            if log.exists() and log.stat().st_size:
                _leave_log(raw)
            connection = Connection(raw, path)
            connection.execute("BEGIN")
            yield connection
        finally:
            raw.close()


class _Readers:
    """Read-only connections, kept while idle; one more for the data version."""

    def __init__(self, path: Path, *, idle_max: int) -> None:
        self._path = path
        self._idle_max = idle_max
        self._door = threading.Lock()
        self._idle: list[apsw.Connection] = []
        self._poll: apsw.Connection | None = None
        self._closed = False

    @contextlib.contextmanager
    def borrow(self) -> Iterator[apsw.Connection]:
        with self._door:
            self._refuse_closed()
            raw = self._idle.pop() if self._idle else None
        if raw is None:
            with _translated(self._path):
                raw = _connect(self._path, read_only=True)
        try:
            yield raw
        finally:
            with self._door:
                keep = not self._closed and len(self._idle) < self._idle_max
                if keep:
                    self._idle.append(raw)
            if not keep:
                raw.close()

    def data_version(self) -> int:
        with self._door:
            self._refuse_closed()
            if self._poll is None:
                self._poll = _connect(self._path, read_only=True)
            [(version,)] = self._poll.execute("PRAGMA data_version")
        assert isinstance(version, int)
        return version

    def close(self) -> None:
        with self._door:
            self._closed = True
            idle, self._idle = self._idle, []
            poll, self._poll = self._poll, None
        for raw in [*idle, *([poll] if poll else [])]:
            raw.close()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise DatabaseClosedError(f"{self._path} is closed")


def _refuse_old_sqlite() -> None:
    found = apsw.sqlite_lib_version()
    if tuple(map(int, found.split("."))) < SQLITE_VERSION_MIN:
        needed = ".".join(map(str, SQLITE_VERSION_MIN))
        raise StorageError(
            f"SQLite {found} may lose data in WAL mode; {needed} or newer is needed",
            details={"found": found, "needed": needed},
            fix="install a newer apsw",
        )


def _connect(path: Path, *, read_only: bool = False) -> apsw.Connection:
    # Readers of a WAL database write its shared index, so they open the file for writing as well.
    raw = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        raw.set_busy_timeout(BUSY_TIMEOUT_MS)
        list(raw.execute(_PRAGMAS))
        if read_only:
            list(raw.execute("PRAGMA query_only=1"))
    except BaseException:
        _close_untouched(raw)
        raise
    return raw


def _leave_log(raw: apsw.Connection) -> None:
    # Who closes the file last moves the log of a process that died into it, or removes a log that makes no sense beside
    # it. That is not the business of who only looks, and takes from a damaged file what may be the rest of it.
    raw.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)


def _close_untouched(raw: apsw.Connection) -> None:
    _leave_log(raw)
    raw.close()


def _create_or_refuse(path: Path, note: Path) -> None:
    """Make a missing file. Refuse one that has lost its content: SQLite would take it for a new database.

    `note` says whether the file was a database before; it is the side file, and the caller holds the turn.
    """
    try:
        size_bytes = path.stat().st_size
    except FileNotFoundError:
        note.write_bytes(b"")
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        return
    if size_bytes == 0 and note.read_bytes() == _INITIALIZED:
        raise _corrupt(path, "it was a database and is empty now")


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except apsw.Error as error:
        raise _fault(path, error) from error


def _fault(path: Path, error: apsw.Error) -> Exception:
    """Ours for a fault of the world; a wrong statement is a fault of ours and stays what it is."""
    details = {"path": str(path), "cause": str(error)}
    match error:
        case apsw.CorruptError() | apsw.NotADBError():
            return _corrupt(path, str(error))
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


def _corrupt(path: Path, cause: str) -> DatabaseCorruptError:
    return DatabaseCorruptError(
        f"{path} cannot be understood: {cause}",
        details={"path": str(path), "cause": cause},
        fix=f"move {path.name}, {path.name}-wal and {path.name}-shm away together, or put a backup in their place",
    )
