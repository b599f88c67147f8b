"""What a plugin is made of, as one hash: it changes when its code or manifest does, and at nothing else. Reads only.

Caches, environments, hidden files and the documents that people read do not count, and neither do permissions, times,
or whether a file is a link. What is left counts whatever it is: a template that a desk reads is code as the desk is.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rawr.errors import RawrError

FILES_MAX: Final = 10_000
SIZE_MAX_BYTES: Final = 256 * 1024 * 1024
_CHUNK_BYTES: Final = 1 << 20
_NOT_CODE: Final = ("readme", "changelog", "license", "licence", "notice", "authors")
_CACHES: Final = frozenset({"__pycache__", "node_modules"})
_ENVIRONMENT_MARK: Final = "pyvenv.cfg"
_COMPILED: Final = (".pyc", ".pyo")


class PluginContentError(RawrError):
    """The files of the plugin cannot all be read, or are too many to be a plugin."""

    code = "PLUGIN_CONTENT_UNREADABLE"


def content_hash(folder: Path) -> str:
    """The hash of the plugin in this folder, in hex.

    Raises:
        PluginContentError: a file cannot be read, or there is too much of it.
    """
    digest = hashlib.sha256()
    budget = _Budget(folder)
    for name, path in sorted(_files(folder, "", frozenset(), budget)):
        digest.update(hashlib.sha256(os.fsencode(name)).digest())
        digest.update(_hash_of(path, budget))
    return digest.hexdigest()


def is_code(name: str) -> bool:
    """Whether a file or folder of this name counts."""
    if name.startswith(".") or name in _CACHES or name.endswith(_COMPILED):
        return False
    return name.partition(".")[0].lower() not in _NOT_CODE


class _Budget:
    """How much may still be read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = FILES_MAX
        self._bytes = SIZE_MAX_BYTES

    def spend(self, *, files: int = 0, size_bytes: int = 0) -> None:
        self._files -= files
        self._bytes -= size_bytes
        if self._files < 0 or self._bytes < 0:
            raise PluginContentError(
                f"{self._folder} has more than {FILES_MAX} files or {SIZE_MAX_BYTES >> 20} MiB",
                fix="keep data and environments outside of the plugin's folder, or in a hidden folder of it",
            )


def _files(folder: Path, below: str, within: frozenset[str], budget: _Budget) -> Iterator[tuple[str, Path]]:
    """`(name below the plugin, path)` of every file that counts. A link to a folder we are in leads nowhere new."""
    real = os.path.realpath(folder)
    if real in within:
        return
    entries = _entries(folder)
    if below and any(entry.name == _ENVIRONMENT_MARK for entry in entries):
        return  # what is installed there belongs to whoever made it
    for entry in entries:
        if not is_code(entry.name):
            continue
        name = f"{below}{entry.name}"
        if os.path.isdir(entry.path):
            yield from _files(Path(entry.path), f"{name}/", within | {real}, budget)
        elif os.path.isfile(entry.path):  # a pipe or a socket is no code, and reading it would wait for somebody
            budget.spend(files=1)
            yield name, Path(entry.path)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise PluginContentError(f"{folder} cannot be read: {error.strerror}") from error


def _hash_of(path: Path, budget: _Budget) -> bytes:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                budget.spend(size_bytes=len(chunk))
                digest.update(chunk)
    except OSError as error:
        raise PluginContentError(f"{path} cannot be read: {error.strerror}") from error
    return digest.digest()
