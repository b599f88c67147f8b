"""Lines on their way to a file, written by a thread of their own so that no request waits for a disk or a pipe.

There is room for a bounded number of lines. What finds none is dropped and counted, and the next line that is written
says how many. A process that is killed loses what it has not written yet, up to a twentieth of a second of lines.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from rawr.clock import Clock
from rawr.host.access import Times
from rawr.wire import encode, iso_from_ms

LINES_MAX: Final = 10_000
BATCH_S: Final = 0.05
FLUSH_S: Final = 5.0

FILE_BYTES_MAX: Final = 8 << 20
FILES_KEPT: Final = 4


class Sink(Protocol):
    """Where lines end up. May block; raises OSError."""

    def write(self, lines: bytes) -> None: ...

    def reopen(self) -> None: ...

    def close(self) -> None: ...


class Line(Protocol):
    def rendered(self, times: Times) -> bytes: ...


class LineWriter:
    """From any thread: takes a line, at once, and writes it a little later. To be closed.

    A line has no end of line in it. What is not bytes yet becomes so when it is written.
    """

    def __init__(self, sink: Sink, clock: Clock, *, most: int = LINES_MAX) -> None:
        self._sink = sink
        self._clock = clock
        self._times = Times()
        self._most = most
        self._lines: deque[bytes | Line | threading.Event] = deque()
        self._dropped = 0
        self._dropped_said = 0
        self._wants_reopening = self._is_closing = False
        self._news = threading.Event()
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rawr-log", daemon=True)
        self._thread.start()

    def __call__(self, line: bytes | Line) -> None:
        if len(self._lines) >= self._most:
            self._dropped += 1
            return
        self._lines.append(line)
        if not self._news.is_set():
            self._news.set()

    def reopen(self) -> None:
        """Go on in a new file, because somebody has moved the old one away."""
        self._wants_reopening = True
        self._news.set()

    def flush(self) -> None:
        """Wait until what was given so far is written, within limits."""
        written = threading.Event()
        self._lines.append(written)
        self._hurry.set()
        self._news.set()
        written.wait(FLUSH_S)

    def close(self) -> None:
        """Write what is left, within limits. A sink that hangs is left behind."""
        self._is_closing = True
        self._hurry.set()
        self._news.set()
        self._thread.join(FLUSH_S)

    def _run(self) -> None:
        while not self._is_closing or self._lines:
            self._news.wait()
            self._hurry.wait(BATCH_S)  # so that many lines are one write
            self._news.clear()
            self._hurry.clear()
            self._write_what_there_is()
        with suppress(OSError):  # nothing is left to be written that its failure could concern
            self._sink.close()

    def _write_what_there_is(self) -> None:
        lines: list[bytes] = []
        flushed: list[threading.Event] = []
        while self._lines:
            match self._lines.popleft():
                case threading.Event() as mark:
                    flushed.append(mark)
                case bytes() as line:
                    lines.append(line)
                case unrendered:
                    lines.append(unrendered.rendered(self._times))
        try:
            if self._wants_reopening:
                self._wants_reopening = False
                self._sink.reopen()
            self._write(lines)
        except OSError:
            # Neither log can report this: said with the next line that can be written, as lines that were dropped.
            self._dropped += len(lines)
        for mark in flushed:
            mark.set()

    def _write(self, lines: list[bytes]) -> None:
        dropped = self._dropped
        if dropped > self._dropped_said:
            said = {"ts": iso_from_ms(self._clock.now_ms()), "level": "warning", "logger": "rawr.host.log_writer"}
            count = dropped - self._dropped_said
            lines = [encode({**said, "message": f"{count} lines were dropped", "dropped": count}), *lines]
        if lines:
            self._sink.write(b"\n".join(lines) + b"\n")
        self._dropped_said = dropped


class RotatingFile:
    """A file that is set aside when it is full; of those set aside the oldest goes. Readable by its owner alone."""

    def __init__(self, path: Path, *, most_bytes: int = FILE_BYTES_MAX, kept: int = FILES_KEPT) -> None:
        """Raises OSError."""
        self._path = path
        self._most_bytes = most_bytes
        self._kept = kept
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = self._opened()
        self._size = os.fstat(self._fd).st_size

    def write(self, lines: bytes) -> None:
        if self._size and self._size + len(lines) > self._most_bytes:
            self._set_aside()
        _write_all(self._fd, lines)
        self._size += len(lines)

    def reopen(self) -> None:
        opened = self._opened()
        os.close(self._fd)
        self._fd, self._size = opened, os.fstat(opened).st_size

    def close(self) -> None:
        os.close(self._fd)

    def _set_aside(self) -> None:
        for number in range(self._kept - 1, 0, -1):
            with suppress(FileNotFoundError):
                self._aside(number).replace(self._aside(number + 1))
        with suppress(FileNotFoundError):  # somebody has moved it away
            self._path.replace(self._aside(1))
        self.reopen()

    def _aside(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _opened(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


class Descriptor:
    """An open file of the process, as stderr is. It is neither reopened nor closed."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, lines: bytes) -> None:
        _write_all(self._fd, lines)

    def reopen(self) -> None:
        """Whoever gave us the descriptor keeps the file."""

    def close(self) -> None:
        """It is not ours."""


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
