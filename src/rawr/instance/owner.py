"""The global owner: the one HQ of a user that a file below the home folder names, for callers who ask for it.

It is a name to ask for, never a default. Nothing here looks up the home folder, keeps what it read, or writes
the file.
"""

from __future__ import annotations

import errno
import os
import stat
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from rawr.errors import RawrError
from rawr.workspace.root import MARKER, is_instance

OWNER_FILE: Final = Path(".rawr", "global-rawr-owner-path")
OWNER_FILE_BYTES_MAX: Final = 16 << 10
"""Longer than any path that a system takes."""


class OwnerState(StrEnum):
    """What the owner file gives. Only `INSTANCE` is an answer."""

    MISSING = "file-missing"
    UNREADABLE = "file-unreadable"
    EMPTY = "file-empty"
    TARGET_GONE = "target-gone"
    TARGET_NOT_INSTANCE = "target-not-instance"
    INSTANCE = "instance"


class Seam(StrEnum):
    """How the owner file stands to the instance that a command is about."""

    FILE_MISSING = "owner-file-missing"
    FILE_UNREADABLE = "owner-file-unreadable"
    FILE_EMPTY = "owner-file-empty"
    CURRENT_INSTANCE = "owner-current-instance"
    OTHER_INSTANCE = "owner-other-instance"
    """It names another place, whether that still holds an instance or not."""


class GlobalOwnerError(RawrError):
    """The global owner was asked for by name, and the owner file does not lead to an instance."""

    code = "GLOBAL_OWNER_UNUSABLE"


class GlobalOwner(msgspec.Struct, frozen=True, kw_only=True):
    file: Path
    state: OwnerState
    given: str | None = None
    """What is written in the file; None when nothing is."""
    root: Path | None = None
    """The real path of `given`, also when it holds no instance."""
    mode: int | None = None
    """Permission bits of the file."""
    problem: str | None = None
    """Why it gives no instance; None only when it does."""

    def seam(self, current: Path) -> Seam:
        """`current` is a real path, so that an alias of the current instance is the current instance."""
        match self.state:
            case OwnerState.MISSING:
                return Seam.FILE_MISSING
            case OwnerState.UNREADABLE:
                return Seam.FILE_UNREADABLE
            case OwnerState.EMPTY:
                return Seam.FILE_EMPTY
            case OwnerState.TARGET_GONE | OwnerState.TARGET_NOT_INSTANCE | OwnerState.INSTANCE:
                return Seam.CURRENT_INSTANCE if self.root == current else Seam.OTHER_INSTANCE


def read_global_owner(home: Path) -> GlobalOwner:
    """What the owner file below `home` says now. Whatever is wrong with it is a state, never an exception."""
    file = home / OWNER_FILE
    if not home.is_absolute():  # it would mean another file in every folder
        return _nothing(file, OwnerState.UNREADABLE, f"the home folder, {home}, is no absolute path")
    try:
        raw, mode = _read(file)
    except FileNotFoundError:
        return _nothing(file, OwnerState.MISSING, f"there is no {file}")
    except OSError as error:
        return _nothing(file, OwnerState.UNREADABLE, f"{file} cannot be read: {error.strerror}")
    given = os.fsdecode(raw).strip()
    if not given:
        return _nothing(file, OwnerState.EMPTY, f"{file} is empty", mode=mode)
    root = Path(os.path.realpath(given)) if os.path.isabs(given) else None
    state, problem = _target(file, given, root)
    return GlobalOwner(file=file, state=state, given=given, root=root, mode=mode, problem=problem)


def global_owner_root(home: Path) -> Path:
    """The real path of the instance that owns. For callers who were told to use it.

    Raises:
        GlobalOwnerError: there is none. It never falls through to another instance.
    """
    owner = read_global_owner(home)
    if owner.state is not OwnerState.INSTANCE or owner.root is None:
        raise GlobalOwnerError(
            f"the global owner was asked for, and {owner.problem}",
            details={"path": str(owner.file), "state": owner.state.value, "target": owner.given},
            fix=f"write the path of an HQ into {owner.file}, or name an HQ with --instance DIR",
        )
    return owner.root


def _nothing(file: Path, state: OwnerState, problem: str, *, mode: int | None = None) -> GlobalOwner:
    return GlobalOwner(file=file, state=state, mode=mode, problem=problem)


def _read(file: Path) -> tuple[bytes, int]:
    """`(content, permission bits)`. Raises OSError, also for what is no file or no path."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would wait for a writer
    with open(descriptor, "rb") as opened:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no file")
        raw = opened.read(OWNER_FILE_BYTES_MAX + 1)
    if len(raw) > OWNER_FILE_BYTES_MAX or b"\0" in raw:
        raise OSError(errno.EINVAL, "what it holds is no path")
    return raw, stat.S_IMODE(status.st_mode)


def _target(file: Path, given: str, root: Path | None) -> tuple[OwnerState, str | None]:
    if root is None:
        return OwnerState.TARGET_NOT_INSTANCE, f"{file} names {given}, which is no absolute path"
    if is_instance(root):
        return OwnerState.INSTANCE, None
    if os.path.isdir(root):
        return OwnerState.TARGET_NOT_INSTANCE, f"{file} names {given}, which is no instance: it has no {MARKER}"
    if os.path.exists(root):
        return OwnerState.TARGET_NOT_INSTANCE, f"{file} names {given}, which is no folder"
    return OwnerState.TARGET_GONE, f"{file} names {given}, which is gone"
