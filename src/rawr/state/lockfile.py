"""The lock file of the TypeScript rawr, held in its way, so that both exclude each other on one workspace.

Everybody here holds the kernel lock first; the lock file is only for those who do not know that one. They judge a
lock stale, remove it and create their own in three steps, so a second one of them may remove the fresh lock of
the first, or ours. Hence: we take a stale lock over by renaming ours onto it (there is never a gap), whoever saw a
lock that they may remove waits for `SETTLE_S` before entering, and `is_ours` is asked again just before the state is
replaced.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from rawr import wire
from rawr.clock import Clock
from rawr.state.files import StateFiles
from rawr.state.stale import OWNER, Holder, LockNote, Seen, holder_seen, note_in, others_may_take_it, staleness
from rawr.storage.faults import storage_fault
from rawr.storage.lock import pids_holding
from rawr.storage.processes import Process, boot_ms, process

SETTLE_S: Final = 0.05
"""Much longer than the moment between judging a lock stale and removing it."""
_NOTE_SIZE_MAX: Final = 4096


class LockFile:
    """One attempt after the other to hold the lock file. For who holds the kernel lock; not for two threads."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        stale_lock_ms: int,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.path = path
        self._path = str(path)
        self._clock = clock
        self._stale_lock_ms = stale_lock_ms
        self._pause = pause
        self._descriptor: int | None = None  # kept open, so that nobody else can get our inode number
        self._status: os.stat_result
        self._pid = os.getpid()
        self._host = socket.gethostname()
        self._must_settle = False

    def try_hold(self) -> bool:
        """Whether the lock file is ours now.

        Raises:
            StorageError: it cannot be written.
        """
        try:
            self._create_or_take_over()
        except OSError as error:
            self.release()
            raise storage_fault(self.path, "write the lock", error) from error
        if self._descriptor is not None and self._must_settle:
            self._pause(SETTLE_S)
            if not self.is_ours():
                self._forget()
        return self._descriptor is not None

    @property
    def was_taken(self) -> bool:
        """Whether we have taken it and not let it go. Somebody may have removed it since; `is_ours` tells."""
        return self._descriptor is not None

    def is_ours(self) -> bool:
        if self._descriptor is None or self._pid != os.getpid():
            return False  # a forked child has nothing
        try:
            there = os.lstat(self._path)
        except OSError:
            return False
        return os.path.samestat(there, self._status)

    def release(self) -> None:
        """Remove the lock file if it is ours."""
        if self.is_ours():
            with contextlib.suppress(OSError):  # gone, or it stays and is known as ours when it is next seen
                os.unlink(self._path)
        self._forget()

    def _forget(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _create_or_take_over(self) -> None:
        try:
            self._hold(self._path)
        except FileExistsError:
            seen = look_at(self.path, self._clock)
            if seen is None or staleness(seen[0], stale_lock_ms=self._stale_lock_ms) is None:
                return
            self._must_settle = self._must_settle or others_may_take_it(seen[0])
            self._take_over(seen[1])

    def _take_over(self, stale: os.stat_result) -> None:
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.{time.monotonic_ns()}.tmp")
        self._hold(str(temporary))
        try:
            if os.path.samestat(os.stat(self.path, follow_symlinks=False), stale):
                temporary.replace(self.path)
                return
        except FileNotFoundError:
            pass  # somebody was faster
        temporary.unlink()
        self._forget()

    def _hold(self, path: str) -> None:
        """Create the lock file at `path`, where nothing may be."""
        note = LockNote(pid=self._pid, acquired_at=wire.iso_from_ms(self._clock.now_ms()), owner=OWNER, host=self._host)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            os.write(descriptor, msgspec.json.encode(note) + b"\n")
            self._status = os.fstat(descriptor)
        except OSError:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise
        self._descriptor = descriptor


def look_at(path: Path, clock: Clock) -> tuple[Seen, os.stat_result, Process | None] | None:
    """The lock file as it is now, with its inode and its process; None when there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_fault(path, "read the lock", error) from error
    try:
        raw, status = os.read(descriptor, _NOTE_SIZE_MAX), os.fstat(descriptor)
    except OSError as error:
        raise storage_fault(path, "read the lock", error) from error
    finally:
        os.close(descriptor)
    note = note_in(raw)
    found = None if note is None else process(note.pid)
    seen = Seen(
        note=note,
        changed_ms=status.st_mtime_ns // 1_000_000,
        now_ms=clock.now_ms(),
        is_alive=found is not None,
        started_ms=None if found is None else found.started_ms,
        boot_ms=boot_ms(),
    )
    return seen, status, found


def present_holder(files: StateFiles, clock: Clock) -> Holder | None:
    """Who keeps others from changing the state: the holder of the lock file, else of the kernel lock, else nobody."""
    looked = look_at(files.lock_file, clock)
    if looked is not None:
        seen, _, found = looked
        return holder_seen(seen, "" if found is None else found.command)
    pids = pids_holding(files.kernel_lock)
    if not pids:
        return None
    found = process(min(pids))
    return Holder(pid=min(pids), is_alive=found is not None, command="" if found is None else found.command)
