"""Connections that read, kept while nobody needs them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rawr.storage.connection import connect, translated
from rawr.storage.groupcommit import WriterClosedError

if TYPE_CHECKING:
    import apsw


class Readers:
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
            with translated(self._path):
                raw = connect(self._path, read_only=True)
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
                self._poll = connect(self._path, read_only=True)
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
            raise WriterClosedError(f"{self._path} is closed")
