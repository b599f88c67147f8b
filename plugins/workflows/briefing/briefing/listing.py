"""The files of a repository as git lists them, and how to read one without being led out of it or waiting for it."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .git import git

_LINK: Final = b"120000"
_SUBMODULE: Final = b"160000"


class UnreadableError(Exception):
    """The file cannot be read, or is none: a link, a pipe, a folder."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    files: tuple[bytes, ...]
    """Tracked files, then new ones that are not ignored; relative to the root, without links and submodules."""
    links: int
    submodules: int
    cut: bool
    """Whether git listed more than we take."""


def list_files(root: Path) -> Listing:
    tracked = git(root, "ls-files", "-z", "--cached", "--stage", "--full-name")
    new = git(root, "ls-files", "-z", "--others", "--exclude-standard", "--exclude=/.rawr/", "--full-name")
    modes: dict[bytes, bytes] = {}
    for entry in _entries(tracked.data, cut=tracked.cut):
        facts, _, path = entry.partition(b"\t")
        modes[path] = facts.split(b" ", 1)[0]  # a file in conflict is listed up to three times
    files = [path for path, mode in modes.items() if mode not in (_LINK, _SUBMODULE)]
    # A repository inside this one that is no submodule is listed as a folder.
    files += [path for path in _entries(new.data, cut=new.cut) if not path.endswith(b"/")]
    return Listing(
        files=tuple(files),
        links=sum(mode == _LINK for mode in modes.values()),
        submodules=sum(mode == _SUBMODULE for mode in modes.values()),
        cut=tracked.cut or new.cut,
    )


class Reader:
    """Reads files of one repository. A path that a link leads out of it is refused."""

    def __init__(self, root: Path) -> None:
        self._root = os.fsencode(os.path.realpath(root))
        self._folders: dict[bytes, bool] = {}

    def size(self, path: bytes) -> int:
        """Raises UnreadableError."""
        self._check_folder(path)
        try:
            status = os.lstat(os.path.join(self._root, path))
        except (OSError, ValueError) as error:
            raise UnreadableError(str(error)) from error
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableError("no regular file")
        return status.st_size

    def read(self, path: bytes, *, most_bytes: int) -> bytes:
        """The first `most_bytes` of a regular file. Raises UnreadableError."""
        self._check_folder(path)
        try:
            # A file may have become a link or a pipe since it was listed; neither is followed or waited for.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with open(os.open(os.path.join(self._root, path), flags), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise UnreadableError("no regular file")
                return file.read(most_bytes)
        except (OSError, ValueError) as error:
            raise UnreadableError(str(error)) from error

    def _check_folder(self, path: bytes) -> None:
        folder = os.path.dirname(path)
        if folder not in self._folders:
            real = os.path.realpath(os.path.join(self._root, folder))
            self._folders[folder] = real == self._root or real.startswith(self._root.rstrip(b"/") + b"/")
        if not self._folders[folder]:
            raise UnreadableError("a link leads out of the repository")


def _entries(listed: bytes, *, cut: bool) -> list[bytes]:
    """What is between the NULs; of a listing that was cut, without the torn last one."""
    entries = listed.split(b"\0")
    return [entry for entry in (entries[:-1] if cut else entries) if entry]
