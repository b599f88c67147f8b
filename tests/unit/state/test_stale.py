"""When a lock file may be taken over: the rule, and a store that finds such a file. Young is 5 s, old is 20 s.

The rule of the original, an old file of a dead process, holds at `stale_lock_ms`, here 10 s; the others at once.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rawr.clock import SystemClock
from rawr.errors import StorageError
from rawr.ids import PluginId
from rawr.state import PluginState, RepoState, RepoStateMutationOptions, RepoStateStore
from rawr.state.faults import StateLockTimeoutError
from rawr.state.lockfile import SETTLE_S, LockFile
from rawr.state.stale import ORIGINAL_STALE_MS, LockNote, Seen, Stale, note_in, others_may_take_it, staleness

Process = subprocess.Popen[bytes]
STALE_MS = 10_000
YOUNG, OLD, FUTURE = 5_000, 20_000, -20_000
YEAR_MS = 365 * 86_400_000
NOW = 1_767_225_600_000
BOOT = NOW - 3_600_000


def seen(age_ms: int, *, note: LockNote | None, is_alive: bool = False, started_age_ms: int | None = None) -> Seen:
    started_ms = None if started_age_ms is None else NOW - started_age_ms
    return Seen(note=note, changed_ms=NOW - age_ms, now_ms=NOW, is_alive=is_alive, started_ms=started_ms, boot_ms=BOOT)


THEIRS = LockNote(pid=412, acquired_at="x")
OURS = LockNote(pid=412, acquired_at="x", owner="rawr-py", host="here")
FIRST = LockNote(pid=1, acquired_at="x")
ELSEWHERE = LockNote(pid=412, acquired_at="x", host="elsewhere")


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        pytest.param(seen(YOUNG, note=THEIRS), None, id="dead, young"),
        pytest.param(seen(STALE_MS - 1, note=THEIRS), None, id="dead, not quite old"),
        pytest.param(seen(STALE_MS, note=THEIRS), Stale.OLD_AND_DEAD, id="dead, old"),
        pytest.param(seen(YOUNG, note=THEIRS, is_alive=True, started_age_ms=9_000), None, id="alive, young"),
        pytest.param(seen(OLD, note=THEIRS, is_alive=True, started_age_ms=30_000), None, id="alive or suspended, old"),
        pytest.param(seen(OLD, note=THEIRS, is_alive=True), None, id="alive, of unknown age"),
        pytest.param(
            seen(OLD, note=THEIRS, is_alive=True, started_age_ms=17_000), Stale.PROCESS_IS_YOUNGER, id="number reused"
        ),
        pytest.param(
            seen(YOUNG, note=THEIRS, is_alive=True, started_age_ms=3_500), None, id="started with the lock, rounded"
        ),
        pytest.param(
            seen(3_000_000, note=FIRST, is_alive=True, started_age_ms=60_000),
            Stale.PROCESS_IS_YOUNGER,
            id="process 1 of a container that was started again",
        ),
        pytest.param(seen(YOUNG, note=None), None, id="unreadable, young: just being written"),
        pytest.param(seen(OLD, note=None), Stale.OLD_AND_DEAD, id="unreadable, old"),
        pytest.param(seen(3_700_000, note=THEIRS, is_alive=True), Stale.BEFORE_BOOT, id="before boot"),
        pytest.param(seen(3_601_000, note=THEIRS, is_alive=True), None, id="before boot, by rounding"),
        pytest.param(seen(-YOUNG, note=THEIRS), None, id="dead, a little in the future"),
        pytest.param(seen(FUTURE, note=THEIRS), Stale.OLD_AND_DEAD, id="dead, far in the future: a clock set back"),
        pytest.param(seen(FUTURE, note=THEIRS, is_alive=True, started_age_ms=0), None, id="alive, in the future"),
        pytest.param(seen(0, note=OURS), Stale.WRITER_FREED_THE_KERNEL_LOCK, id="of this rawr, dead"),
        pytest.param(
            seen(0, note=OURS, is_alive=True, started_age_ms=9_000),
            Stale.WRITER_FREED_THE_KERNEL_LOCK,
            id="of this rawr, alive: it could not remove it",
        ),
        pytest.param(seen(YOUNG, note=ELSEWHERE), None, id="other host, young"),
        pytest.param(seen(OLD, note=ELSEWHERE), Stale.OLD_AND_DEAD, id="other host, old: as the original does"),
    ],
)
def test_a_lock_file_is_stale_when_its_writer_cannot_be_writing(case: Seen, expected: Stale | None) -> None:
    assert staleness(case, stale_lock_ms=STALE_MS) == expected


def test_others_are_reckoned_with_from_just_before_they_would_judge_a_lock_stale() -> None:
    assert not others_may_take_it(seen(ORIGINAL_STALE_MS - 3_000, note=THEIRS))
    assert others_may_take_it(seen(ORIGINAL_STALE_MS - 1_000, note=THEIRS))
    assert others_may_take_it(seen(-ORIGINAL_STALE_MS, note=THEIRS))


@pytest.mark.parametrize("raw", [b"", b"\x00\x00", b"\xff", b"[" * 90_000, b'"412"', b"{}", b'{"pid":"412"}', b"412"])
def test_a_note_that_cannot_be_understood_names_nobody(raw: bytes) -> None:
    assert note_in(raw) is None


def test_a_note_may_have_keys_that_are_not_ours() -> None:
    assert note_in(b'{"pid":412,"acquiredAt":"x","shiny":[1]}') == THEIRS


# On disk, with real processes.


@pytest.fixture
def other() -> Iterator[Process]:
    """A process that does nothing and was started just now."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


@pytest.fixture
def dead_pid() -> int:
    with subprocess.Popen(["true"]) as process:
        pass
    return process.pid


@pytest.fixture
def store(tmp_path: Path) -> RepoStateStore:
    store = RepoStateStore(
        tmp_path, options=RepoStateMutationOptions(lock_timeout_ms=150, stale_lock_ms=STALE_MS), shares=False
    )
    store.files.folder.mkdir(parents=True)
    return store


def left(store: RepoStateStore, raw: bytes, *, age_ms: int) -> bytes:
    """A lock file that somebody left so long ago."""
    store.files.lock_file.write_bytes(raw)
    at_s = time.time() - age_ms / 1000
    os.utime(store.files.lock_file, (at_s, at_s))
    return raw


def note(pid: int, **more: str) -> bytes:
    return json.dumps({"pid": pid, "acquiredAt": "2026-01-01T00:00:00.000Z", **more}).encode() + b"\n"


def is_honoured(store: RepoStateStore, raw: bytes) -> StateLockTimeoutError:
    """It times out; the lock file is what it was, and no state was made."""
    with pytest.raises(StateLockTimeoutError) as caught:
        store.enable("new")
    assert store.files.lock_file.read_bytes() == raw
    assert not store.path.exists()
    return caught.value


def is_taken_over(store: RepoStateStore) -> None:
    """The change is in the answer and on disk, and the lock file is gone."""
    assert store.set(RepoState(version=1, plugins=PluginState(enabled=(PluginId("new"),), last_updated_at="x")))
    assert store.get().plugins.enabled == ("new",)
    assert not store.files.lock_file.exists()


def test_a_young_lock_of_a_dead_process_is_honoured_and_an_old_one_taken_over(
    store: RepoStateStore, dead_pid: int
) -> None:
    error = is_honoured(store, left(store, note(dead_pid), age_ms=YOUNG))
    assert f"held by pid {dead_pid} (dead), for 5." in error.message
    left(store, note(dead_pid), age_ms=OLD)
    is_taken_over(store)


def test_a_lock_of_a_living_process_is_honoured_however_old_it_looks(store: RepoStateStore, other: Process) -> None:
    for age_ms in (0, -YOUNG, FUTURE):
        error = is_honoured(store, left(store, note(other.pid), age_ms=age_ms))
        assert f"held by pid {other.pid} (alive, " in error.message


def test_an_old_lock_of_a_process_that_was_there_before_it_is_honoured(tmp_path: Path, other: Process) -> None:
    options = RepoStateMutationOptions(lock_timeout_ms=150, stale_lock_ms=1)  # so that it is old at once
    store = RepoStateStore(tmp_path, options=options, shares=False)
    store.files.folder.mkdir(parents=True)
    is_honoured(store, left(store, note(other.pid), age_ms=100))


def test_a_suspended_process_is_alive(store: RepoStateStore, other: Process) -> None:
    other.send_signal(signal.SIGSTOP)
    error = is_honoured(store, left(store, note(other.pid), age_ms=0))
    assert f"held by pid {other.pid} (alive, " in error.message
    other.send_signal(signal.SIGCONT)


def test_a_lock_is_taken_over_when_its_number_belongs_to_a_younger_process(
    store: RepoStateStore, other: Process
) -> None:
    left(store, note(other.pid), age_ms=OLD)
    is_taken_over(store)


@pytest.mark.parametrize("raw", [b"", b"{", b"\x00" * 40])
def test_an_unreadable_lock_is_honoured_while_it_may_be_just_being_written(store: RepoStateStore, raw: bytes) -> None:
    error = is_honoured(store, left(store, raw, age_ms=YOUNG))
    assert "held by a process that cannot be named" in error.message
    left(store, raw, age_ms=OLD)
    is_taken_over(store)


def test_a_lock_from_before_the_machine_started_is_taken_over_whatever_counts_as_old(
    tmp_path: Path, dead_pid: int
) -> None:
    options = RepoStateMutationOptions(lock_timeout_ms=150, stale_lock_ms=100 * YEAR_MS)
    store = RepoStateStore(tmp_path, options=options, shares=False)
    store.files.folder.mkdir(parents=True)
    left(store, note(dead_pid), age_ms=40 * YEAR_MS)
    is_taken_over(store)


def test_the_lock_of_a_dead_process_far_in_the_future_is_taken_over(store: RepoStateStore, dead_pid: int) -> None:
    is_honoured(store, left(store, note(dead_pid), age_ms=-YOUNG))
    left(store, note(dead_pid), age_ms=FUTURE)
    is_taken_over(store)


@pytest.mark.parametrize("host", ["", "elsewhere"])
def test_a_lock_of_this_rawr_without_the_kernel_lock_is_taken_over_at_once(
    store: RepoStateStore, other: Process, host: str
) -> None:
    left(store, note(other.pid, owner="rawr-py", host=host), age_ms=0)
    is_taken_over(store)


def test_a_lock_of_another_host_is_judged_as_the_original_does(store: RepoStateStore, dead_pid: int) -> None:
    error = is_honoured(store, left(store, note(dead_pid, host="elsewhere"), age_ms=YOUNG))
    assert "'host': 'elsewhere'" in str(error.details)
    left(store, note(dead_pid, host="elsewhere"), age_ms=OLD)
    is_taken_over(store)


def test_a_lock_file_that_is_a_link_is_an_error_and_its_target_is_left_alone(
    store: RepoStateStore, tmp_path: Path
) -> None:
    target = tmp_path / "precious"
    target.write_text("mine")
    store.files.lock_file.symlink_to(target)
    with pytest.raises(StorageError, match="cannot read the lock"):
        store.enable("new")
    assert target.read_text() == "mine"


# What else happens while a lock is taken over.


def lock_file(store: RepoStateStore, pause: Callable[[float], None]) -> LockFile:
    return LockFile(store.files, SystemClock(), stale_lock_ms=STALE_MS, pause=pause)


def test_who_takes_over_a_lock_that_others_may_remove_waits_before_it_enters(
    store: RepoStateStore, dead_pid: int
) -> None:
    pauses: list[float] = []
    left(store, note(dead_pid), age_ms=2 * ORIGINAL_STALE_MS)
    held = lock_file(store, pauses.append)
    assert held.try_hold()
    assert pauses == [SETTLE_S]
    held.release()
    left(store, note(dead_pid), age_ms=OLD)  # too young for the others
    assert lock_file(store, pauses.append).try_hold()
    assert pauses == [SETTLE_S]


def test_who_loses_the_lock_in_that_time_does_not_hold_it(store: RepoStateStore, dead_pid: int) -> None:
    def removed_by_somebody(_: float) -> None:
        store.files.lock_file.unlink()
        store.files.lock_file.write_bytes(theirs)

    theirs = note(os.getpid())
    left(store, note(dead_pid), age_ms=2 * ORIGINAL_STALE_MS)
    held = lock_file(store, removed_by_somebody)
    assert not held.try_hold()
    held.release()
    assert store.files.lock_file.read_bytes() == theirs


def test_releasing_never_removes_the_lock_of_somebody_else(store: RepoStateStore) -> None:
    held = lock_file(store, lambda _: None)
    assert held.try_hold()
    store.files.lock_file.unlink()
    assert not held.is_ours()
    theirs = left(store, note(os.getpid()), age_ms=0)
    held.release()
    assert store.files.lock_file.read_bytes() == theirs
