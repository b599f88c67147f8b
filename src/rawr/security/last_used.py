"""When each key and each session was last used: noted in memory, written down now and then.

A call must not cost a write, so a server that is killed loses the last minute. The file is for people; nobody is let
in or kept out by it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from rawr.clock import Clock
from rawr.errors import CorruptFileError
from rawr.security.credentials import LOCK_TIMEOUT_S, SecretCorruptError, read_private
from rawr.storage.atomic import make_private_dir
from rawr.storage.jsonfile import read_json, write_json
from rawr.storage.lock import FileLock
from rawr.wire import Wire

FLUSH_S: Final = 60.0
"""How often a server writes it down."""
KEPT_MAX: Final = 1000
"""Of keys that are gone nobody asks, and the oldest go first."""


class _LastUsedFile(Wire, frozen=True, kw_only=True):
    version: int
    used_at_ms: dict[str, int]


class LastUsed:
    """The ids that were used, with the time. Noting is quick and touches no disk; the rest is blocking."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._noted: dict[str, int] = {}
        self._unwritten: set[str] = set()

    def note(self, key_id: str) -> None:
        """It is used now. Exact to the second, for those that are used a thousand times in one."""
        now_ms = self._clock.now_ms()
        noted_ms = self._noted.get(key_id)
        if noted_ms is None or noted_ms // 1000 != now_ms // 1000:
            with self._lock:
                self._noted[key_id] = now_ms
                self._unwritten.add(key_id)

    def noted_ms(self, key_id: str) -> int | None:
        """When this process last noted it."""
        return self._noted.get(key_id)

    def flush(self) -> None:
        """Write down what was noted since the last time; nothing when nothing was.

        Raises:
            LockTimeoutError, StorageError, SecretExposedError, SecretCorruptError: it is kept for the next time.
        """
        with self._lock:
            fresh = {key_id: self._noted[key_id] for key_id in self._unwritten}
        if not fresh:
            return
        make_private_dir(self._path.parent)
        with FileLock(self._path.with_suffix(".lock")).acquire(LOCK_TIMEOUT_S):
            merged = dict(self.stored())
            for key_id, at_ms in fresh.items():
                merged[key_id] = max(at_ms, merged.get(key_id, 0))
            newest = sorted(merged.items(), key=lambda item: item[1])[-KEPT_MAX:]
            write_json(self._path, _LastUsedFile(version=1, used_at_ms=dict(newest)), mode=0o600)
        self._written(fresh)

    def stored(self) -> Mapping[str, int]:
        """What is written down, of every server. Raises SecretExposedError, SecretCorruptError, StorageError."""
        if read_private(self._path) is None:
            return {}
        try:
            return msgspec.convert(read_json(self._path), _LastUsedFile).used_at_ms
        except (CorruptFileError, msgspec.ValidationError) as error:
            raise SecretCorruptError(
                f"{self._path} is damaged: {error}",
                details={"path": str(self._path)},
                fix=f"remove {self._path}: it holds nothing but when keys were last used",
            ) from error

    def _written(self, fresh: Mapping[str, int]) -> None:
        with self._lock:
            self._unwritten -= {key_id for key_id, at_ms in fresh.items() if self._noted[key_id] == at_ms}
