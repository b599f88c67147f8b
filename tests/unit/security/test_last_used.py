"""When keys were last used: noted without the disk, written down together, by several servers into one file."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from rawr.security.credentials import SecretCorruptError
from rawr.security.last_used import KEPT_MAX, LastUsed
from rawr.testing.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".rawr" / "secrets" / "last-used.json"


@pytest.fixture
def used(path: Path, clock: FakeClock) -> LastUsed:
    return LastUsed(path, clock)


def test_noting_touches_no_disk(used: LastUsed, path: Path) -> None:
    used.note("a")
    assert not path.parent.exists()
    assert (used.noted_ms("a"), used.noted_ms("b"), used.stored()) == (1_000_000, None, {})


def test_what_was_noted_is_written_once(used: LastUsed, path: Path, clock: FakeClock) -> None:
    used.note("a")
    used.flush()
    assert used.stored() == {"a": 1_000_000}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    written = path.stat()
    used.flush()
    clock.advance(999)
    used.note("a")
    used.flush()
    assert path.stat().st_ino == written.st_ino  # nothing was noted since: the same second is not noted twice
    clock.advance(1)
    used.note("a")
    used.flush()
    assert used.stored() == {"a": 1_001_000}


def test_the_latest_of_several_servers_counts(path: Path) -> None:
    ahead, behind = LastUsed(path, FakeClock(2000)), LastUsed(path, FakeClock(1000))
    for server in (ahead, behind):
        server.note("both")
    behind.note("one")
    ahead.flush()
    behind.flush()
    assert ahead.stored() == {"both": 2000, "one": 1000}


def test_of_too_many_the_oldest_are_forgotten(used: LastUsed, clock: FakeClock) -> None:
    for number in range(KEPT_MAX + 10):
        clock.advance(1)
        used.note(f"key-{number}")
    used.flush()
    assert len(used.stored()) == KEPT_MAX
    assert "key-9" not in used.stored()
    assert "key-10" in used.stored()


def test_what_cannot_be_written_is_kept_for_the_next_time(used: LastUsed, path: Path) -> None:
    path.parent.mkdir(parents=True, mode=0o700)
    path.write_text("{")
    path.chmod(0o600)
    used.note("a")
    with pytest.raises(SecretCorruptError):
        used.flush()
    assert path.read_text() == "{"
    path.unlink()
    used.flush()
    assert used.stored() == {"a": 1_000_000}
