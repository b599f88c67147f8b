"""Whole files replaced atomically and durably, files that are created once, and private directories.

A reader sees the old bytes or the new ones, never a mixture; when a function returns, the new ones survive a
power cut. A failed fsync is never retried on the same descriptor: the kernel may have dropped the pages by then.
It refuses to interpret what it writes.
"""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from rawr.storage.faults import DurabilityUnknownError, StorageIsDirectoryError, storage_fault

NEW_FILE_MODE: Final = 0o644


def write_durable(
    path: Path,
    data: bytes,
    *,
    mode: int | None = NEW_FILE_MODE,
    before_flushing: Callable[[int], None] | None = None,
    before_replacing: Callable[[], None] | None = None,
) -> None:
    """Replace the content of `path` by `data`; durable on return. The file ends with exactly `mode`; None keeps the
    mode that it has, and gives a new one `NEW_FILE_MODE`.

    A symbolic link stays one; the file that it points to is replaced. The parent directory must exist.
    `before_flushing` gets the descriptor of the new file when it holds `data`, and `before_replacing` runs when that
    is on disk, under another name; what they raise stops the replacement.

    Raises:
        StorageError: a subclass that names the cause; nothing was changed and no temporary file is left.
        DurabilityUnknownError: the new content is visible, but a power cut may undo it.
    """
    target, present = _target_of(path)
    if present is not None and stat.S_ISDIR(present):  # said before anything is written
        raise StorageIsDirectoryError(f"cannot write {path}: is a directory", details={"path": str(path)})
    if mode is None:
        mode = NEW_FILE_MODE if present is None else stat.S_IMODE(present)
    try:
        with _temporary(target) as temporary:
            _write_new(temporary, data, mode, before_flushing)
            if before_replacing is not None:
                before_replacing()
            os.replace(temporary, target)
    except OSError as error:
        raise storage_fault(path, "write", error) from error
    sync_entry_of(target)


def create_exclusive(path: Path, data: bytes, *, mode: int = 0o600) -> bool:
    """Create `path` with all of `data`, durably, unless something is there; whether this call created it.

    The file appears complete or not at all (a hard link of a finished temporary file): of any number of processes
    that try, exactly one creates it, and the others read a whole file. What is there is never touched.
    """
    try:
        with _temporary(path) as temporary:
            _write_new(temporary, data, mode)
            os.link(temporary, path, follow_symlinks=False)
            os.unlink(temporary)
    except FileExistsError:
        return False
    except OSError as error:
        raise storage_fault(path, "create", error) from error
    sync_entry_of(path)
    return True


def make_private_dir(path: Path) -> None:
    """Make `path` and its parents; `path` itself is for its owner only (0700), also when it was there before."""
    make_dir(path.parent)
    with _faults_of(path, "create the private directory"):
        is_new = not path.exists()
        path.mkdir(mode=0o700, exist_ok=True)
        if path.stat().st_mode & 0o777 != 0o700:
            path.chmod(0o700)
    if is_new:
        sync_entry_of(path)


def make_dir(path: Path) -> None:
    """Make `path` and its parents with the default mode, unless they are there. What was made is durable on return:
    a file that is flushed later would go with a directory that a power cut takes back.
    """
    with _faults_of(path, "create the directory"):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        sync_entry_of(folder)


def remove(path: Path) -> None:
    """Remove a file; one that is not there is as good as removed. A power cut may bring it back."""
    with _faults_of(path, "remove"):
        path.unlink(missing_ok=True)


def leftovers_of(path: Path) -> list[Path]:
    """What writers of `path` left when they were killed, and what one that lives is at work on."""
    target, _ = _target_of(path)
    with _faults_of(path, "look beside"):
        return list(target.parent.glob(f".{glob.escape(target.name)}.*.tmp"))


def _target_of(path: Path) -> tuple[Path, int | None]:
    """What a link leads to, or the path itself, and its type and mode; None when nothing is there."""
    try:
        present = os.lstat(path).st_mode
        if not stat.S_ISLNK(present):
            return path, present
        target = path.resolve()
        return target, os.lstat(target).st_mode
    except FileNotFoundError:
        return path.resolve() if path.is_symlink() else path, None
    except RuntimeError as error:  # a loop of links, before Python 3.13
        raise storage_fault(path, "write", OSError(str(error))) from error
    except OSError as error:
        raise storage_fault(path, "write", error) from error


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[str]:
    """A fresh name beside `target`, hence on the same file system. After an error nothing is left under it."""
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.{secrets.token_hex(6)}.tmp")
    try:
        yield temporary
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _write_new(path: str, data: bytes, mode: int, before_flushing: Callable[[int], None] | None = None) -> None:
    # Born 0600, so that a secret is never readable by others, and given its mode exactly, whatever the umask.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fchmod(descriptor, mode)
        if before_flushing is not None:
            before_flushing(descriptor)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_entry_of(path: Path) -> None:
    """Force the directory entry of `path` to disk.

    Raises:
        DurabilityUnknownError
    """
    try:
        descriptor = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DurabilityUnknownError(
            f"{path} is written and visible, but its directory could not be flushed: {error.strerror}",
            details={"path": str(path)},
        ) from error


@contextlib.contextmanager
def _faults_of(path: Path, doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise storage_fault(path, doing, error) from error
