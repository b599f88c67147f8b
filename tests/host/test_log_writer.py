"""Lines are written in order by a thread, bounded in number, and what is lost is said."""

from __future__ import annotations

import json
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rawr.host.log_writer import LineWriter, RotatingFile

if TYPE_CHECKING:
    from rawr.testing.clock import FakeClock


class Stuck:
    """A sink that takes nothing until it is let go, as a full pipe does."""

    def __init__(self) -> None:
        self.taken = b""
        self.free = threading.Event()
        self.begun = threading.Event()

    def write(self, lines: bytes) -> None:
        self.begun.set()
        assert self.free.wait(60)
        self.taken += lines

    def reopen(self) -> None:
        raise AssertionError("nobody asked")

    def close(self) -> None:
        pass


class Failing(Stuck):
    """A sink that fails until it is let go, as a full disk does."""

    def write(self, lines: bytes) -> None:
        self.begun.set()
        if not self.free.is_set():
            raise OSError(28, "No space left on device")
        self.taken += lines


def test_lines_are_in_the_file_in_their_order_once_flushed(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "logs" / "access.jsonl"
    writer = LineWriter(RotatingFile(path), clock)
    for number in range(1000):
        writer(b"%d" % number)
    writer.flush()
    assert path.read_text().split() == [str(number) for number in range(1000)]
    writer(b"last")
    writer.close()
    assert path.read_text().endswith("\nlast\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nobody_waits_for_a_sink_that_is_stuck_and_what_was_dropped_is_said(clock: FakeClock) -> None:
    sink = Stuck()
    writer = LineWriter(sink, clock, most=10)
    writer(b"first")
    assert sink.begun.wait(60)
    started = time.monotonic()
    for number in range(100):
        writer(b"%d" % number)
    assert time.monotonic() - started < 30
    sink.free.set()
    writer.close()
    lines = sink.taken.decode().splitlines()
    said = json.loads(lines[1])
    assert (said["dropped"], said["message"]) == (90, "90 lines were dropped")
    assert [lines[0], *lines[2:]] == ["first", *map(str, range(10))]


def test_lines_that_could_not_be_written_are_counted_as_dropped(clock: FakeClock) -> None:
    sink = Failing()
    writer = LineWriter(sink, clock)
    writer(b"lost")
    writer.flush()
    sink.free.set()
    writer(b"kept")
    writer.close()
    said, kept = sink.taken.decode().splitlines()
    assert (json.loads(said)["dropped"], kept) == (1, "kept")


def test_a_full_file_is_set_aside_and_the_oldest_goes(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "access.jsonl"
    writer = LineWriter(RotatingFile(path, most_bytes=100, kept=2), clock)
    for number in range(20):
        writer(b"%02d" % number * 15)
        writer.flush()
    writer.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["access.jsonl", "access.jsonl.1", "access.jsonl.2"]
    kept = [line for name in (".2", ".1", "") for line in path.with_name(path.name + name).read_text().split()]
    assert kept == [f"{number:02d}" * 15 for number in range(20 - len(kept), 20)]
    assert all(file.stat().st_size <= 100 for file in tmp_path.iterdir())


def test_a_file_that_was_moved_away_is_opened_anew_when_asked(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "access.jsonl"
    writer = LineWriter(RotatingFile(path), clock)
    writer(b"before")
    writer.flush()
    moved = path.rename(tmp_path / "moved")
    writer.reopen()
    writer.flush()
    writer(b"after")
    writer.close()
    assert (moved.read_text(), path.read_text()) == ("before\n", "after\n")
