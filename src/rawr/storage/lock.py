"""Kernel locks between processes, on files that are never removed. The kernel frees the lock of a dead process.

`flock` belongs to an open file description, so each acquisition opens the file anew: threads of one process
exclude each other too. A lock file that could be unlinked would let two processes hold "the" lock at once.

A fork copies descriptors, and a lock lives as long as one copy of its descriptor. So a forked child closes its
copies at once: otherwise it would go on holding the lock of a parent that was killed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rawr.errors import RawrError, StorageError
from rawr.storage.atomic import make_dir
from rawr.storage.faults import storage_fault

BACKOFF_MIN_S: Final = 0.001
BACKOFF_MAX_S: Final = 0.025


_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})


class LocksUnsupportedError(StorageError):
    """The file system has no locks, so nothing can be changed safely there."""

    code = "STORAGE_NO_LOCKS"


class LockTimeoutError(RawrError):
    """Somebody else held the lock for the whole time."""

    code = "LOCK_TIMEOUT"


class FileLock:
    """An exclusive lock named by a file, which is made when missing, with its directory.

    A waiter tries again after at most `backoff_max_s`: short is fair, long is cheap.
    """

    def __init__(self, path: Path, *, backoff_max_s: float = BACKOFF_MAX_S) -> None:
        self.path = path
        self._backoff_max_s = backoff_max_s

    @contextlib.contextmanager
    def acquire(self, timeout_s: float) -> Iterator[None]:
        """Hold the lock for the `with` block. Blocks the thread while it waits.

        Raises:
            LockTimeoutError: not free within `timeout_s`.
            StorageError: the lock file cannot be opened or locked.
        """
        descriptor = self.open()
        try:
            self._wait(descriptor, timeout_s)
        except BaseException:
            close(descriptor)
            raise
        try:
            yield
        finally:
            free(descriptor)

    def try_hold(self) -> int | None:
        """Take the lock; the descriptor, for `free`, or None when somebody holds it."""
        descriptor = self.open()
        try:
            if self.try_lock(descriptor):
                return descriptor
        except BaseException:
            close(descriptor)
            raise
        close(descriptor)
        return None

    @contextlib.contextmanager
    def try_acquire(self) -> Iterator[bool]:
        """Whether the lock was free; if so it is held for the `with` block."""
        descriptor = self.try_hold()
        try:
            yield descriptor is not None
        finally:
            if descriptor is not None:
                free(descriptor)

    def is_held(self) -> bool:
        """Whether somebody holds the lock right now; the answer may be old at once. Never creates the file."""
        if not os.path.exists(self.path):
            return False
        with self.try_acquire() as free:
            return not free

    def open(self) -> int:
        """A new descriptor for `try_lock`, to be closed by `close` or, once it holds the lock, by `free`."""
        try:
            try:
                return self._opened()
            except FileNotFoundError:
                make_dir(self.path.parent)
                return self._opened()
        except OSError as error:
            raise storage_fault(self.path, "open the lock", error) from error

    def _opened(self) -> int:
        # For writing: network file systems turn flock into a lock that needs it.
        return closed_in_children(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))

    def _wait(self, descriptor: int, timeout_s: float) -> None:
        started_s = time.monotonic()
        backoff_s = BACKOFF_MIN_S
        while not self.try_lock(descriptor):
            left_s = started_s + timeout_s - time.monotonic()
            if left_s <= 0:
                raise self._timeout(time.monotonic() - started_s)
            # Jitter keeps a crowd from trying in step.
            time.sleep(min(left_s, backoff_s * random.uniform(0.5, 1.0)))  # noqa: S311 - not a secret
            backoff_s = min(backoff_s * 2, self._backoff_max_s)

    def try_lock(self, descriptor: int) -> bool:
        """Whether the lock was free, and is held by `descriptor` now."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise self._unsupported(error) from error
            raise storage_fault(self.path, "lock", error) from error
        return True

    def _unsupported(self, error: OSError) -> LocksUnsupportedError:
        return LocksUnsupportedError(
            f"the file system of {self.path} has no locks: {error.strerror}",
            details={"path": str(self.path), "errno": errno.errorcode.get(error.errno or 0, "")},
            fix="use a local disk, or mount the network file system with locks",
        )

    def _timeout(self, waited_s: float) -> LockTimeoutError:
        waited_ms = round(waited_s * 1000)
        return LockTimeoutError(
            f"lock busy for {waited_ms} ms: {self.path}",
            details={"lockPath": str(self.path), "waitedMs": waited_ms},
            fix="try again; the lock is freed when the process that holds it ends",
        )


def is_held(path: Path) -> bool:
    """Whether some process holds the lock named by `path` right now."""
    return FileLock(path).is_held()


def pids_holding(path: Path) -> frozenset[int] | None:
    """The processes that hold a kernel lock on the file; None when the system does not tell."""
    try:
        inode = path.stat().st_ino
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    # `1: FLOCK  ADVISORY  WRITE 4711 00:2e:131 0 EOF`. Some file systems report another device than stat does.
    fields = [line.split() for line in lines]
    return frozenset(
        int(row[4]) for row in fields if len(row) > 5 and row[1] == "FLOCK" and row[5].endswith(f":{inode}")
    )


def free(descriptor: int) -> None:
    """Free the lock that `FileLock.try_hold` took. In a child that was forked meanwhile it does nothing."""
    if descriptor not in _OPEN:
        return
    try:
        # Unlock, not only close: a child may be between fork and exec, with a copy of the descriptor.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        close(descriptor)


def closed_in_children(descriptor: int) -> int:
    """The descriptor, which a forked child will close at once. Close it here by `close` or `free` only."""
    _OPEN.add(descriptor)
    return descriptor


def close(descriptor: int) -> None:
    """Close what `closed_in_children` knows; in a child that was forked meanwhile it is closed already."""
    if descriptor in _OPEN:
        _OPEN.discard(descriptor)
        os.close(descriptor)


# Descriptors belong to the process, and so does the set of them: only a hook of the process can act on a fork.
_OPEN: Final[set[int]] = set()


def _close_copies() -> None:
    for descriptor in _OPEN:
        os.close(descriptor)
    _OPEN.clear()


os.register_at_fork(after_in_child=_close_copies)
