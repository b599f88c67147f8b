"""What the disk can refuse, as errors that name the path and the cause. No I/O here."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rawr.errors import StorageError


class StorageFullError(StorageError):
    """No space, no quota or a file size limit. Nothing was changed; the next write may work."""

    code = "STORAGE_FULL"


class StorageReadOnlyError(StorageError):
    """The file system is read-only or the permissions refuse the write."""

    code = "STORAGE_READ_ONLY"


class StorageIsDirectoryError(StorageError):
    """A directory stands where a file belongs."""

    code = "STORAGE_IS_DIRECTORY"


class StorageNotDirectoryError(StorageError):
    """A file stands where a directory belongs."""

    code = "STORAGE_NOT_DIRECTORY"


class AlreadyExistsError(StorageError):
    """An exclusive creation found something in its place, and left it as it was."""

    code = "STORAGE_EXISTS"


class DurabilityUnknownError(StorageError):
    """The new content is visible, but its directory entry could not be forced to disk: a power cut may undo it."""

    code = "STORAGE_DURABILITY_UNKNOWN"


class StorageBusyError(StorageError):
    """Another process kept the file locked for longer than we wait. Nothing was changed."""

    code = "STORAGE_BUSY"


class OutcomeUnknownError(StorageError):
    """No answer in time. The write may still be stored: repeat it only if it is idempotent."""

    code = "STORAGE_OUTCOME_UNKNOWN"


_BY_ERRNO: Final[dict[int, tuple[type[StorageError], str, str]]] = {
    errno.ENOSPC: (StorageFullError, "disk full", "free some space on that disk and try again"),
    errno.EDQUOT: (StorageFullError, "disk quota exceeded", "free some of the quota and try again"),
    errno.EFBIG: (StorageFullError, "file size limit reached", "raise the file size limit and try again"),
    errno.EROFS: (StorageReadOnlyError, "read-only file system", "use a writable disk"),
    errno.EACCES: (StorageReadOnlyError, "permission denied", "check the owner and the mode of the path"),
    errno.EPERM: (StorageReadOnlyError, "operation not permitted", "check the owner and the mode of the path"),
    errno.EISDIR: (StorageIsDirectoryError, "is a directory", "move the directory away"),
    errno.ENOTDIR: (StorageNotDirectoryError, "not a directory", "move away the file that stands in its path"),
    errno.EEXIST: (AlreadyExistsError, "exists already", "remove it first if it is not needed"),
}


def storage_fault(path: Path, doing: str, error: OSError) -> StorageError:
    """The typed error for `error`, raised while `doing` (`write`, `create`, ...) something to `path`."""
    kind, cause, fix = _BY_ERRNO.get(error.errno or 0, (StorageError, error.strerror or str(error), None))
    details = {"path": str(path), "cause": cause, "errno": errno.errorcode.get(error.errno or 0, "")}
    return kind(f"cannot {doing} {path}: {cause}", details=details, fix=fix)


@contextlib.contextmanager
def in_preparation() -> Iterator[None]:
    """Around what is written before a change that does not happen without it: that a power cut may undo it is then a
    plain refusal, and not an outcome in doubt.
    """
    try:
        yield
    except DurabilityUnknownError as error:
        raise StorageError(f"nothing was changed: {error.message}", details=error.details) from error
