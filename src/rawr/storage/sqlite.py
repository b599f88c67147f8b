"""SQLite databases of an instance: one writer thread with group commit, snapshots for readers.

What returns from `write` is durable (WAL, synchronous=FULL). Several processes may have one file open: a kernel
lock on the side file `<database>.wlock` takes them in turn, which SQLite's own busy handler does not.
The writer thread and SQLite connections do not survive a fork, so a child that inherited a database is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias, TypeVar

from rawr.errors import StorageError
from rawr.storage.connection import (
    Connection,
    ConstraintError,
    DatabaseBusyError,
    DatabaseCorruptError,
    Params,
    Row,
    SqlValue,
    close_untouched,
    connect,
    corrupt,
    one,
    refuse_old_sqlite,
    rows,
    run,
    translated,
)
from rawr.storage.faults import storage_fault
from rawr.storage.groupcommit import Done, Failed, GroupWriter, Outcome, WriterClosedError
from rawr.storage.lock import FileLock, LockTimeoutError
from rawr.storage.migrations import Migration, SchemaChangedError, SchemaNewerError, migrate
from rawr.storage.readers import Readers

if TYPE_CHECKING:
    import apsw

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
    "one",
    "rows",
    "run",
]

T = TypeVar("T")
Unit: TypeAlias = "Callable[[Connection], Any]"

TURN_TIMEOUT_S: Final = 10.0
# The owner of the turn holds it for a few milliseconds; who polls slower would hardly ever see it free.
TURN_BACKOFF_MAX_S: Final = 0.002
READERS_IDLE_MAX: Final = 4
_INITIALIZED: Final = b"initialized\n"


class DatabaseForkedError(StorageError):
    """The database was opened before a fork; the child opens its own."""

    code = "DATABASE_FORKED"


DatabaseClosedError = WriterClosedError


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
        refuse_old_sqlite()
        self.path = path
        self._pid = os.getpid()
        self._turn = FileLock(path.with_name(path.name + ".wlock"), backoff_max_s=TURN_BACKOFF_MAX_S)
        self._turn_timeout_s = turn_timeout_s
        self._readers = Readers(path, idle_max=readers)
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
        with translated(self.path):
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
            with self._my_turn(), translated(self.path):
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
        with self._my_turn(), translated(self.path):
            try:
                _create_or_refuse(self.path, self._turn.path)
            except OSError as error:
                raise storage_fault(self.path, "create", error) from error
            raw = connect(self.path)
            try:
                self._prepare(raw, migrations)
                self._turn.path.write_bytes(_INITIALIZED)
            except BaseException:
                close_untouched(raw)
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
        raise corrupt(path, "it was a database and is empty now")
