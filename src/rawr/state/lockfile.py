"""The lock file of the TypeScript rawr, held in its way, so that both exclude each other on one workspace.

Everybody here holds the kernel lock first; the lock file is only for those who do not know that one. Ours is a second
name of a file that always says who holds the kernel lock, so it is never there without saying whose it is, and one
that a dead process left is recognised by its inode.

The others judge a lock stale, remove it and create their own in three steps, so a second one of them may remove the
fresh lock of the first, or ours. Hence: we take a stale lock over by renaming ours onto it (there is never a gap),
whoever saw a lock that they may remove waits for `SETTLE_S` before entering, and `is_ours` is asked again just before
the state is replaced.
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
        files: StateFiles,
        clock: Clock,
        *,
        stale_lock_ms: int,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._files = files
        self._path, self._note_path = str(files.lock_file), str(files.lock_note)
        self._clock = clock
        self._stale_lock_ms = stale_lock_ms
        self._pause = pause
        self._note: os.stat_result | None = None
        """Of the file that says that we hold it; None when we do not."""
        self._pid = os.getpid()
        self._host = socket.gethostname()
        self._must_settle = False
        self.was_left = False
        """Whether somebody has died while holding the lock, and nobody has held it since."""

    def try_hold(self) -> bool:
        """Whether the lock file is ours now.

        Raises:
            StorageError: it cannot be written.
        """
        try:
            status = self._written_note()
            if self._link(status):
                self._note = status
        except OSError as error:
            raise storage_fault(self._files.lock_file, "write the lock", error) from error
        if self._note is not None and self._must_settle:
            self._pause(SETTLE_S)
            if not self.is_ours():
                self._note = None
        return self._note is not None

    @property
    def was_taken(self) -> bool:
        """Whether we have taken it and not let it go. Somebody may have removed it since; `is_ours` tells."""
        return self._note is not None

    def is_ours(self) -> bool:
        if self._note is None or self._pid != os.getpid():
            return False  # a forked child has nothing
        try:
            return os.path.samestat(os.lstat(self._path), self._note)
        except OSError:
            return False

    def release(self) -> None:
        """Remove the lock file if it is ours."""
        if self.is_ours():
            with contextlib.suppress(OSError):  # gone, or it stays and is known as ours when it is next seen
                os.unlink(self._path)
        self._note = None

    def _written_note(self) -> os.stat_result:
        note = LockNote(pid=self._pid, acquired_at=wire.iso_from_ms(self._clock.now_ms()), owner=OWNER, host=self._host)
        data = msgspec.json.encode(note) + b"\n"
        descriptor = os.open(self._note_path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            left = os.fstat(descriptor)
            os.pwrite(descriptor, data, 0)
            if left.st_size > len(data):
                os.ftruncate(descriptor, len(data))
        finally:
            os.close(descriptor)
        return left

    def _link(self, note: os.stat_result) -> bool:
        """Whether the lock file is a name of the note now, which was last written when its status was `note`."""
        with contextlib.suppress(FileExistsError):
            os.link(self._note_path, self._path)
            return True
        looked = look_at(self._files.lock_file, self._clock)
        if looked is None:
            return False  # somebody has just let it go
        seen, status, _ = looked
        self.was_left = True  # or it is held by somebody else, and then it makes no difference
        if os.path.samestat(status, note):  # left by one of us who died; what it says is what we have just written
            left_ms = note.st_mtime_ns // 1_000_000
            self._must_settle |= others_may_take_it(msgspec.structs.replace(seen, changed_ms=left_ms))
            return True
        if staleness(seen, stale_lock_ms=self._stale_lock_ms) is None:
            return False
        self._must_settle |= others_may_take_it(seen)
        return self._took_over(status)

    def _took_over(self, stale: os.stat_result) -> bool:
        temporary = f"{self._files.folder}/.state.lock.{self._pid}.{time.monotonic_ns()}.tmp"
        os.link(self._note_path, temporary)
        try:
            if os.path.samestat(os.lstat(self._path), stale):
                os.replace(temporary, self._path)
                return True
        except FileNotFoundError:
            pass  # somebody was faster
        os.unlink(temporary)
        return False


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
