"""Whether a file was replaced or changed, for coroutines that ask with every request."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

Looks = tuple[int, int, int, int, int]
"""What changes when a file does: a new one has another inode, and a change of mode or owner shows in the ctime."""


class FileLooks:
    """How one file looks, looked at no more than once in a turn of the event loop. For coroutines of any loop.

    Nobody is served by a look from before he asked: what is read from a socket in one turn is answered in a later one,
    or was read before the look.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)  # a text, for it is looked at very often
        self._seen: Looks | None = None
        self._seen_in: asyncio.AbstractEventLoop | None = None
        """The loop whose present turn it was seen in."""

    def now(self) -> Looks | None:
        """How it looks; None when it cannot be looked at, and reading it says why."""
        loop = asyncio.get_running_loop()
        if self._seen_in is not loop:
            self._seen, self._seen_in = looks_of(self._path), loop
            loop.call_soon(self._end_turn)
        return self._seen

    def _end_turn(self) -> None:
        self._seen_in = None


def looks_of(path: Path | str) -> Looks | None:
    """How the file looks right now. Not for a thread: it is quicker than the way there and back."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns, status.st_mtime_ns
