"""A disk that forgets: what may be left of a folder when the power goes at any moment.

`Recorder` notes what a program does to the files below one folder. `states` then gives the folders that a power cut
after each step may leave. What was not forced to disk may be there, be missing, be cut at a sector or be zeroes;
names in a directory that was not forced to disk may be those of any moment since, or only the last change of them.
More than any one file system does, and less than none of them guarantees.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

SECTOR: Final = 512
FORGETTING: Final = frozenset({"file", "directory", "stamp"})
"""What a recorder can overlook: that a file or a directory was forced to disk, or that a file was stamped."""


class Inode:
    """A file: what programs see, and what is surely on disk."""

    def __init__(self) -> None:
        self.content = b""
        self.stamps: dict[str, bytes] = {}
        self.durable: tuple[bytes, dict[str, bytes]] | None = None

    def flushed(self) -> None:
        self.durable = (self.content, dict(self.stamps))

    def ways(self) -> Iterator[tuple[bytes, dict[str, bytes]]]:
        """What may be left of it."""
        yield self.durable or (b"", {})
        if self.durable == (self.content, self.stamps):
            return
        yield self.content, self.stamps
        yield self.content[: len(self.content) // SECTOR * SECTOR], self.stamps
        yield b"\0" * len(self.content), {}


Names = dict[str, "Inode | Folder"]


class Folder:
    """A directory: its names as they are, and every step since it was forced to disk."""

    def __init__(self) -> None:
        self.names: Names = {}
        self.since_flush: list[Names] = [{}]

    def changed(self) -> None:
        self.since_flush.append(dict(self.names))

    def flushed(self) -> None:
        self.since_flush = [dict(self.names)]

    def ways(self) -> Iterator[Names]:
        """Any moment since the flush; or, of all changes since, only the last one."""
        yield from self.since_flush
        if len(self.since_flush) > 2:
            first, before, last = self.since_flush[0], self.since_flush[-2], self.since_flush[-1]
            gone = before.keys() - last.keys()
            come = {name: inode for name, inode in last.items() if before.get(name) is not inode}
            yield {name: inode for name, inode in first.items() if name not in gone} | come


class Acknowledged(msgspec.Struct, frozen=True):
    """What the program had been told when the power went."""

    revision: int
    enabled: tuple[str, ...]


class Left(msgspec.Struct, frozen=True):
    """What a power cut may leave, as files by path below the root, and what was promised by then."""

    files: dict[str, tuple[bytes, dict[str, bytes]]]
    promised: Acknowledged | None
    under_way: tuple[str, ...] | None
    """The ids that were to be there after the change that was being made."""
    where: str


class Recorder:
    """Stands between a program and the disk, for what lies below `root`, and notes what a power cut would leave."""

    def __init__(self, root: Path, *, overlooks: str | None = None) -> None:
        assert overlooks is None or overlooks in FORGETTING
        self.left: list[Left] = []
        self.promised: Acknowledged | None = None
        self.under_way: tuple[str, ...] | None = None
        self._overlooks = overlooks
        self._root = root
        self._disk = Folder()
        self._opened: dict[int, Inode | Folder] = {}

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        """From now on until `patch` is undone."""
        watched = {name.removeprefix("_on_"): getattr(self, name) for name in dir(self) if name.startswith("_on_")}
        for name, note in watched.items():
            patch.setattr(os, name, self._watched(name, getattr(os, name), note))

    def _watched(self, name: str, real: Callable[..., Any], note: Callable[..., bool]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            result = real(*args, **options)
            if note(result, *args):
                self._cut(f"after {len(self.left)}: {name}{args[:2]}")
            return result

        return call

    # What each call does, and whether a power cut could tell.

    def _on_open(self, descriptor: int, path: Any, flags: int = 0, *_: Any) -> bool:
        place = self._place(path)
        if place is None:
            return False
        folder, name = place
        is_new = name != "" and name not in folder.names
        if is_new:
            folder.names[name] = Inode()
            folder.changed()
        self._opened[descriptor] = folder.names[name] if name else folder
        return is_new

    def _on_close(self, _: None, descriptor: int) -> bool:
        self._opened.pop(descriptor, None)
        return False

    def _on_write(self, count: int, descriptor: int, data: Any) -> bool:
        inode = self._opened.get(descriptor)
        if not isinstance(inode, Inode):
            return False
        inode.content += bytes(data)[:count]  # everything is written behind what is there
        return True

    def _on_pwrite(self, count: int, descriptor: int, data: bytes, offset: int) -> bool:
        inode = self._opened.get(descriptor)
        if not isinstance(inode, Inode):
            return False
        inode.content = inode.content[:offset].ljust(offset, b"\0") + data[:count] + inode.content[offset + count :]
        return True

    def _on_ftruncate(self, _: None, descriptor: int, size: int) -> bool:
        inode = self._opened.get(descriptor)
        if not isinstance(inode, Inode):
            return False
        inode.content = inode.content[:size]
        return True

    def _on_truncate(self, _: None, path: Any, size: int) -> bool:
        place = self._place(path)
        if place is None:
            return False
        inode = place[0].names[place[1]]
        assert isinstance(inode, Inode)
        inode.content = inode.content[:size]
        return True

    def _on_setxattr(self, _: None, descriptor: int, name: str, value: bytes) -> bool:
        inode = self._opened.get(descriptor)
        if isinstance(inode, Inode) and self._overlooks != "stamp":
            inode.stamps[name] = value
        return False

    def _on_fsync(self, _: None, descriptor: int) -> bool:
        flushed = self._opened.get(descriptor)
        if flushed is None or self._overlooks == ("file" if isinstance(flushed, Inode) else "directory"):
            return False
        flushed.flushed()
        return True

    def _on_replace(self, _: None, source: Any, target: Any) -> bool:
        return self._moved(source, target, keeps=False)

    def _on_link(self, _: None, source: Any, target: Any) -> bool:
        return self._moved(source, target, keeps=True)

    def _on_unlink(self, _: None, path: Any) -> bool:
        place = self._place(path)
        if place is None:
            return False
        del place[0].names[place[1]]
        place[0].changed()
        return True

    def _on_mkdir(self, _: None, path: Any, *__: Any) -> bool:
        place = self._place(path)
        if place is None:
            return False
        place[0].names[place[1]] = Folder()
        place[0].changed()
        return True

    def _moved(self, source: Any, target: Any, *, keeps: bool) -> bool:
        here, there = self._place(source), self._place(target)
        if here is None or there is None:
            return False
        there[0].names[there[1]] = here[0].names[here[1]]
        if not keeps:
            del here[0].names[here[1]]
        assert here[0] is there[0], "nothing is moved between directories"
        there[0].changed()
        return True

    def _place(self, path: Any) -> tuple[Folder, str] | None:
        """The directory and the name in it, which is empty for the root; None for what lies elsewhere."""
        whole = Path(os.fspath(path))
        if not whole.is_relative_to(self._root):
            return None
        *above, name = whole.relative_to(self._root).parts or ("",)
        folder = self._disk
        for part in above:
            inside = folder.names[part]
            assert isinstance(inside, Folder)
            folder = inside
        is_folder = name != "" and isinstance(folder.names.get(name), Folder)
        inside = folder.names[name] if is_folder else folder
        return (inside, "") if is_folder and isinstance(inside, Folder) else (folder, name)

    def _cut(self, where: str) -> None:
        for files in _ways(self._disk):
            self.left.append(Left(files, self.promised, self.under_way, where))


def _ways(folder: Folder, at: str = "") -> Iterator[dict[str, tuple[bytes, dict[str, bytes]]]]:
    """What may be left of a directory, with all files in the same way: durable, whole, torn or zeroes."""
    for names in folder.ways():
        below = [_ways_of(inside, f"{at}{name}") for name, inside in sorted(names.items())]
        for number in range(max((len(ways) for ways in below), default=1)):
            yield {path: left for ways in below for path, left in ways[min(number, len(ways) - 1)].items()}


def _ways_of(inside: Inode | Folder, path: str) -> list[dict[str, tuple[bytes, dict[str, bytes]]]]:
    if isinstance(inside, Folder):
        return list(_ways(inside, f"{path}/"))
    return [{path: way} for way in inside.ways()]


def materialised(left: Left, root: Path) -> None:
    """Make `root`, which is not there yet, what the power cut left."""
    root.mkdir()
    for path, (content, stamps) in left.files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
        for name, value in stamps.items():
            os.setxattr(root / path, name, value)
        os.utime(root / path, (0, 0))  # from before the machine was started again
