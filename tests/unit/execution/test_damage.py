"""Telling a damaged engine file from one whose process was killed, and putting it aside with nothing lost."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path

import apsw
import pytest

from rawr.execution.embedded.damage import EngineFileDamagedError, EngineInUseError, put_aside
from rawr.execution.embedded.durations import inngest_backoff
from rawr.execution.embedded.owners import SlotLock
from rawr.execution.embedded.store import EngineStore
from rawr.testing.clock import FakeClock

PAGE_BYTES = 4096


def opened(database: Path) -> EngineStore:
    return EngineStore(database, clock=FakeClock(), backoff=inngest_backoff(lambda: 0))


def with_log(database: Path, aside: Path) -> tuple[bytes, bytes]:
    """A file and a log that makes it longer, as both are before the checkpoint; and the file as it is after it."""
    opened(database).close()
    connection = apsw.Connection(str(database))
    with contextlib.closing(connection):
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        for number in range(50):
            connection.execute(
                "INSERT INTO apps (app_id, checksum, synced_at) VALUES (?, ?, 0)", (f"app-{number}", "x" * 3000)
            )
        log = database.with_name(database.name + "-wal").read_bytes()
        shutil.copy(database, aside)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return log, database.read_bytes()


def test_a_file_whose_checkpoint_was_killed_after_its_first_page_is_sound(tmp_path: Path) -> None:
    database, aside = tmp_path / "engine.sqlite", tmp_path / "before"
    log, after = with_log(database, aside)
    short = after[:PAGE_BYTES] + aside.read_bytes()[PAGE_BYTES:]
    assert len(short) < len(after)
    database.write_bytes(short)
    database.with_name("engine.sqlite-wal").write_bytes(log)
    assert put_aside(database, tmp_path / "run", at_ms=1).damage is None
    opened(database).close()
    with contextlib.closing(apsw.Connection(str(database))) as connection:
        assert list(connection.execute("SELECT count(*) FROM apps")) == [(50,)]


def test_a_file_that_is_too_short_without_a_log_is_damaged(tmp_path: Path) -> None:
    database = tmp_path / "engine.sqlite"
    with_log(database, tmp_path / "before")
    database.write_bytes(database.read_bytes()[: 3 * PAGE_BYTES])
    with pytest.raises(EngineFileDamagedError, match=str(database)):
        opened(database)
    assert put_aside(database, tmp_path / "run", at_ms=1, check_only=True).damage is not None


def test_everything_that_belongs_to_a_damaged_file_is_kept_beside_it(tmp_path: Path) -> None:
    database = tmp_path / "engine.sqlite"
    parts = {"": b"no database" * 900, "-wal": b"a log" * 100}
    for suffix, content in parts.items():
        database.with_name(database.name + suffix).write_bytes(content)
    with pytest.raises(EngineFileDamagedError):
        opened(database)
    assert put_aside(database, tmp_path / "run", at_ms=6, check_only=True).put_aside == ()
    done = put_aside(database, tmp_path / "run", at_ms=7)
    # The index is made anew from the log by whoever looks, so its content is none of ours.
    kept = [path for path in done.put_aside if not path.endswith("-shm")]
    assert {path: Path(path).read_bytes() for path in kept} == {
        str(tmp_path / f"engine.sqlite.damaged-7{suffix}"): content for suffix, content in parts.items()
    }
    assert not [*tmp_path.glob("engine.sqlite"), *tmp_path.glob("engine.sqlite-*")]
    opened(database).close()
    assert put_aside(database, tmp_path / "run", at_ms=8).put_aside == ()


def test_a_file_that_an_engine_works_with_stays(tmp_path: Path) -> None:
    database = tmp_path / "engine.sqlite"
    database.write_bytes(b"no database" * 900)
    slot = SlotLock(tmp_path / "run")
    asyncio.run(slot.take())
    try:
        with pytest.raises(EngineInUseError):
            put_aside(database, tmp_path / "run", at_ms=1)
        assert database.read_bytes() == b"no database" * 900
    finally:
        slot.free()
