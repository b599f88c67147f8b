"""The repo state on disk: `.rawr/state/state.json`, changed under a kernel lock. It decides nothing; `model` does."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rawr import wire
from rawr.clock import Clock
from rawr.errors import RawrError
from rawr.state import model
from rawr.state.model import Document, RepoState
from rawr.storage.atomic import remove_leftovers, write_durable
from rawr.storage.jsonfile import read_bytes
from rawr.storage.lock import FileLock, LockTimeoutError

LOCK_TIMEOUT_S: Final = 5.0
NEW_FILE_MODE: Final = 0o644


class StateLockTimeoutError(RawrError):
    """Somebody else was changing the state for the whole time. Nothing was changed."""

    code = "STATE_LOCK_TIMEOUT"


class RepoStateStore:
    """The state of one instance. `root` may be an alias: its real path is the authority.

    Readers never lock: a change replaces the whole file. Every method blocks.
    """

    def __init__(self, root: Path, clock: Clock, *, lock_timeout_s: float = LOCK_TIMEOUT_S) -> None:
        self.root = root.resolve()
        self.path = self.root / ".rawr" / "state" / "state.json"
        self.lock_path = self.path.with_name("state.flock")
        self._clock = clock
        self._lock_timeout_s = lock_timeout_s

    def get(self) -> RepoState:
        """The state as it is on disk now; no plugin enabled when there is no file.

        Raises:
            StateCorruptError, StateVersionError, StorageError: the file is there and cannot be used.
        """
        at = self._now()
        return model.state_of(self._read(at), at=at)

    def enable(self, plugin_id: str) -> RepoState:
        """The state after the change, which is durable.

        Raises:
            BadInputError: not a plugin id.
            StateLockTimeoutError: another process is changing it.
            StateCorruptError, StateVersionError, StorageError: the file was left as it was.
        """
        accepted = model.plugin_id_of(plugin_id)
        return self._mutate(lambda document, at: model.enable(document, accepted, at=at))

    def disable(self, plugin_id: str) -> RepoState:
        """As `enable`, the other way."""
        accepted = model.plugin_id_of(plugin_id)
        return self._mutate(lambda document, at: model.disable(document, accepted, at=at))

    def _mutate(self, change: Callable[[Document, str], Document]) -> RepoState:
        try:
            with FileLock(self.lock_path).acquire(self._lock_timeout_s):
                at = self._now()
                document = change(self._read(at), at)
                remove_leftovers(self.path)
                write_durable(self.path, model.encode(document), mode=self._file_mode())
                return model.state_of(document, at=at)
        except LockTimeoutError as error:
            raise StateLockTimeoutError(f"state {error.message}", details=error.details, fix=error.fix) from error

    def _read(self, at: str) -> Document:
        raw = read_bytes(self.path)
        return model.empty(at=at) if raw is None else model.decode(raw, path=str(self.path))

    def _file_mode(self) -> int:
        """The mode that the file has; what its owner has closed stays closed."""
        try:
            return stat.S_IMODE(self.path.stat().st_mode)
        except FileNotFoundError:
            return NEW_FILE_MODE

    def _now(self) -> str:
        return wire.iso_from_ms(self._clock.now_ms())


class AsyncRepoState:
    """The same for coroutines: the one door through which blocking state work leaves the event loop."""

    def __init__(self, store: RepoStateStore) -> None:
        self._store = store

    async def get(self) -> RepoState:
        return await asyncio.to_thread(self._store.get)

    async def enable(self, plugin_id: str) -> RepoState:
        return await asyncio.to_thread(self._store.enable, plugin_id)

    async def disable(self, plugin_id: str) -> RepoState:
        return await asyncio.to_thread(self._store.disable, plugin_id)
