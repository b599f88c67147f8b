"""Where the server of an instance is, and whether it lives. Light, so that every command can ask.

The kernel lock on `run/server.lock` says that a server lives; `run/server.json` says where. The file appears
only once calls are answered, and goes when the server stops by itself; after a crash it is stale, and whoever
reads it asks the lock.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from rawr.errors import CorruptFileError, RawrError
from rawr.ids import InstanceId
from rawr.storage.jsonfile import read_json, remove_json, write_json
from rawr.storage.lock import FileLock, LockTimeoutError
from rawr.wire import Wire

PROBE_PATIENCE_S: Final = 0.5
"""Who asks whether a server lives takes the lock for a moment; a starting server must not mistake that for one."""


class ServerAlreadyRunningError(RawrError):
    """Another process serves this instance."""

    code = "SERVER_ALREADY_RUNNING"


class ServerRecord(Wire, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """`run/server.json`: where the server of an instance is. Only worth something while the lock is held.

    The server may be of a later rawr than who reads it, and say more.
    """

    pid: int
    url: str
    instance_id: InstanceId
    started_at: str
    certificate: str | None = None
    """The file that holds what the server shows, when it speaks TLS. Who calls it trusts this one and no other."""
    ends_within_s: float | None = None
    """How long it may take to end once it is told to, everything included."""


class RunFolder:
    """`<instance>/.rawr/run`: the lock and the record of the server. Blocking."""

    def __init__(self, folder: Path) -> None:
        self.record_path = folder / "server.json"
        self._lock = FileLock(folder / "server.lock")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Be the server of the instance for the `with` block.

        Raises:
            ServerAlreadyRunningError: another process is.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._lock.acquire(PROBE_PATIENCE_S))
            except LockTimeoutError as error:
                raise self._already_running() from error
            self.withdraw()  # a record that is there now was left by a server that died
            yield

    def running(self) -> ServerRecord | None:
        """The record of a server that lives right now; None when none does, or when it is not serving yet."""
        return self._record() if self._lock.is_held() else None

    def announce(self, record: ServerRecord) -> None:
        write_json(self.record_path, record)

    def withdraw(self) -> None:
        remove_json(self.record_path)

    def _record(self) -> ServerRecord | None:
        try:
            value = read_json(self.record_path)
            return None if value is None else msgspec.convert(value, ServerRecord)
        except (CorruptFileError, msgspec.ValidationError):
            return None  # it cannot say where; the lock alone decides whether a server lives

    def _already_running(self) -> ServerAlreadyRunningError:
        record = self._record()
        where = "" if record is None else f" at {record.url} (pid {record.pid})"
        details = None if record is None else {"url": record.url, "pid": record.pid}
        return ServerAlreadyRunningError(
            f"a server of this instance is already running{where}", details=details, fix="rawr status"
        )
