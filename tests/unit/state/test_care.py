"""History, verification, repair and unlocking, on real files with a clock that stands still."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rawr.state import care
from rawr.state.care import StateLockHeldError
from rawr.state.changes import Change
from rawr.state.faults import StateLockTimeoutError
from rawr.state.findings import HELD_LONG_MS, findings
from rawr.state.history import UnknownRevisionError, past_of
from rawr.state.journal import Entry, Journal, sha_of
from rawr.state.lockfile import present_holder
from rawr.state.model import StateCorruptError, StateVersionError
from rawr.state.store import RepoStateStore
from rawr.storage.lock import FileLock
from rawr.testing.clock import FakeClock
from rawr.wire import iso_from_ms

FOREIGN = b'{"version": 1, "plugins": {"enabled": ["x"]}, "theirs": 1}'


@pytest.fixture
def store(tmp_path: Path) -> RepoStateStore:
    """With revisions 1 (a), 2 (a, b) and 3 (b)."""
    made = RepoStateStore(tmp_path)
    made.enable("a")
    made.enable("b")
    made.disable("a")
    return made


@pytest.fixture
def clock() -> FakeClock:
    """The lock files of these tests are made in real time, hence it begins there."""
    import time

    return FakeClock(round(time.time() * 1000))


@pytest.fixture
def stranger() -> Iterator[int]:
    """The number of a process that lives and has nothing to do with us."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid
        process.kill()


@pytest.fixture
def dead() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def ids(store: RepoStateStore, clock: FakeClock) -> list[str]:
    return [finding.id for finding in findings(store.files, clock)]


def intend(store: RepoStateStore, text: str = "{}") -> None:
    """What a writer leaves that dies between the journal and the rename."""
    raw = store.path.read_bytes()
    entry = Entry(
        rev=4, at="now", pid=1, ops=(Change(op="set"),), prev=sha_of(raw), sha=sha_of(text.encode()), text=text
    )
    Journal(store.files.journal).append([entry])


def write_typescript_lock(store: RepoStateStore, pid: int, clock: FakeClock) -> str:
    """As the TypeScript rawr does; the holder id."""
    acquired_at = iso_from_ms(clock.now_ms())
    store.files.lock_file.write_text(json.dumps({"pid": pid, "acquiredAt": acquired_at}))
    return f"{pid}@{acquired_at}"


def test_the_history_is_newest_first_and_has_every_revision(store: RepoStateStore) -> None:
    past = past_of(store.files)
    assert [(row.revision, row.changes[0].op, row.changes[0].id) for row in past.revisions] == [
        (3, "disable", "a"),
        (2, "enable", "b"),
        (1, "enable", "a"),
    ]
    assert past.document(2)["plugins"]["enabled"] == ["a", "b"]
    assert past.document(None)["plugins"]["enabled"] == ["b"]
    assert past.document(0)["plugins"]["enabled"] == []


def test_an_intention_that_was_not_carried_out_is_no_revision(store: RepoStateStore) -> None:
    intend(store)
    assert [row.revision for row in past_of(store.files).revisions] == [3, 2, 1]


def test_what_another_program_wrote_is_shown_as_not_adopted_until_the_next_change(store: RepoStateStore) -> None:
    store.path.write_bytes(FOREIGN)
    newest = past_of(store.files).revisions[0]
    assert (newest.revision, newest.at, newest.is_recorded, newest.text) == (4, None, False, FOREIGN.decode())
    store.enable("y")
    rows = [(row.revision, row.is_recorded, row.changes[0].op) for row in past_of(store.files).revisions[:2]]
    assert rows == [(5, True, "enable"), (4, True, "adopt")]


def test_a_revision_whose_line_a_power_cut_took_is_still_the_newest(store: RepoStateStore, clock: FakeClock) -> None:
    lines = store.files.journal.read_bytes().splitlines(keepends=True)
    store.files.journal.write_bytes(b"".join(lines[:-1]))
    newest = past_of(store.files).revisions[0]
    assert (newest.revision, newest.is_recorded, newest.text.encode()) == (3, False, store.path.read_bytes())
    assert store.snapshot().revision == 3
    assert {finding.severity for finding in findings(store.files, clock)} <= {"info"}


def test_an_unknown_revision_is_an_error_with_the_range_that_is_there(store: RepoStateStore) -> None:
    with pytest.raises(UnknownRevisionError, match=r"no revision 9 .* which has 1 to 3") as raised:
        past_of(store.files).revision(9)
    assert raised.value.details == {"revision": 9, "oldest": 1, "newest": 3}


def test_a_state_that_was_never_changed_has_no_history_and_no_findings(tmp_path: Path, clock: FakeClock) -> None:
    store = RepoStateStore(tmp_path)
    assert past_of(store.files).revisions == ()
    assert ids(store, clock) == []
    assert not store.files.folder.exists()


def test_a_sound_state_has_no_findings(store: RepoStateStore, clock: FakeClock) -> None:
    assert ids(store, clock) == []
    assert care.repair(store.files, clock, pytest.fail) == care.Repair(actions=(), left=())


def test_a_foreign_write_is_only_information(store: RepoStateStore, clock: FakeClock) -> None:
    store.path.write_bytes(FOREIGN)
    (finding,) = findings(store.files, clock)
    assert (finding.id, finding.severity) == ("state.not_adopted", "info")


def test_a_corrupt_state_is_restored_and_its_bytes_are_kept(store: RepoStateStore, clock: FakeClock) -> None:
    store.path.write_bytes(b"{ torn")
    assert ids(store, clock) == ["state.corrupt"]
    notes: list[str] = []
    done = care.repair(store.files, clock, notes.append)
    assert [action.finding for action in done.actions] == ["state.corrupt"]
    assert done.left == ()
    assert store.get().plugins.enabled == ("b",)
    (kept,) = store.files.quarantined
    assert kept.read_bytes() == b"{ torn"
    assert str(kept) in notes[0]
    assert [change.op for change in past_of(store.files).revisions[0].changes] == ["recover", "repair"]
    assert ids(store, clock) == ["state.quarantined"]


def test_a_corrupt_state_without_a_journal_is_refused_with_the_way_out(store: RepoStateStore, clock: FakeClock) -> None:
    store.path.write_bytes(b"{ torn")
    store.files.journal.unlink()
    orphan = store.files.folder / ".state.json.1.aa.tmp"
    orphan.touch()
    with pytest.raises(StateCorruptError) as raised:
        care.repair(store.files, clock, pytest.fail)
    assert "move it away" in (raised.value.fix or "")
    assert store.path.read_bytes() == b"{ torn"
    assert orphan.exists(), "what refuses comes first, so that nothing is half done"
    assert not store.files.lock_file.exists()


def test_a_state_of_another_version_is_a_finding_that_no_repair_touches(
    store: RepoStateStore, clock: FakeClock
) -> None:
    store.path.write_bytes(b'{"version": 2}')
    assert [finding.id for finding in care.repair(store.files, clock, pytest.fail).left] == ["state.version_unknown"]
    assert store.path.read_bytes() == b'{"version": 2}'
    with pytest.raises(StateVersionError):
        store.get()


def test_damaged_and_misplaced_lines_of_the_journal_are_put_aside(store: RepoStateStore, clock: FakeClock) -> None:
    lines = store.files.journal.read_bytes().splitlines(keepends=True)
    damaged = lines[1] + lines[0] + lines[1][:30] + b"\n" + lines[2]
    store.files.journal.write_bytes(damaged)
    (finding,) = findings(store.files, clock)
    assert finding.id == "state.journal_damaged"
    assert (finding.evidence["damagedLines"], finding.evidence["misplacedLines"]) == (1, 1)
    care.repair(store.files, clock, pytest.fail)
    assert ids(store, clock) == ["state.quarantined"]
    assert [row.revision for row in past_of(store.files).revisions] == [3, 1]
    assert store.files.quarantined[0].read_bytes() == damaged


def test_a_repeated_try_of_one_revision_is_not_out_of_order(store: RepoStateStore, clock: FakeClock) -> None:
    intend(store)
    store.enable("c")
    assert ids(store, clock) == []


def test_orphans_are_found_and_collected_when_nobody_is_at_work(store: RepoStateStore, clock: FakeClock) -> None:
    orphan = store.files.folder / ".state.json.1.aa.tmp"
    orphan.touch()
    with FileLock(store.files.kernel_lock).acquire(10):
        assert ids(store, clock) == [], "it may be the holder's"
    assert ids(store, clock) == ["state.orphans"]
    care.repair(store.files, clock, pytest.fail)
    assert not orphan.exists()


def test_a_damaged_file_of_requests_is_begun_anew(store: RepoStateStore, clock: FakeClock) -> None:
    store.files.requests.write_bytes(b"\0" * 100)
    assert ids(store, clock) == ["state.queue_damaged"]
    assert care.repair(store.files, clock, pytest.fail).left == ()
    assert ids(store, clock) == []


def test_a_planned_repair_says_what_it_would_do_and_does_nothing(store: RepoStateStore, clock: FakeClock) -> None:
    store.path.write_bytes(b"{ torn")
    before = {path: path.read_bytes() for path in store.files.folder.iterdir()}
    planned = care.planned_repair(store.files, clock)
    assert [action.finding for action in planned.actions] == ["state.corrupt"]
    assert {path: path.read_bytes() for path in store.files.folder.iterdir()} == before


def test_a_repair_waits_for_the_lock_and_then_gives_up_with_the_holders_name(
    store: RepoStateStore, clock: FakeClock
) -> None:
    store.path.write_bytes(b"{ torn")
    with (
        FileLock(store.files.kernel_lock).acquire(10),
        pytest.raises(StateLockTimeoutError, match=f"pid {os.getpid()}"),
    ):
        care.repair(store.files, clock, pytest.fail, timeout_s=0)
    assert store.path.read_bytes() == b"{ torn"


def test_the_lock_of_a_killed_writer_of_ours_is_stale_at_once(
    store: RepoStateStore, clock: FakeClock, dead: int
) -> None:
    note = {"pid": dead, "acquiredAt": iso_from_ms(clock.now_ms()), "owner": "rawr-py", "host": "h"}
    store.files.lock_file.write_text(json.dumps(note))
    assert ids(store, clock) == ["state.lock_stale"]
    with FileLock(store.files.kernel_lock).acquire(10):
        assert ids(store, clock) == [], "its writer may be the holder"
    care.repair(store.files, clock, pytest.fail)
    assert not store.files.lock_file.exists()


def test_a_lock_that_is_held_for_long_is_a_finding_with_the_holders_id(
    store: RepoStateStore, clock: FakeClock, stranger: int
) -> None:
    holder_id = write_typescript_lock(store, stranger, clock)
    assert ids(store, clock) == []
    clock.advance(HELD_LONG_MS + 5000)
    (finding,) = findings(store.files, clock)
    assert (finding.id, finding.evidence["holder"]["id"]) == ("state.lock_held_long", holder_id)
    assert f"kill -CONT {stranger}" in finding.fix


def test_unlocking_what_is_not_locked_does_nothing(store: RepoStateStore, clock: FakeClock) -> None:
    assert care.unlock(store.files, clock).holder is None


def test_the_young_lock_of_a_dead_process_is_unlocked(store: RepoStateStore, clock: FakeClock, dead: int) -> None:
    write_typescript_lock(store, dead, clock)
    unlocked = care.unlock(store.files, clock)
    assert (unlocked.holder and unlocked.holder.pid, unlocked.reason) == (dead, "its process is gone")
    assert not store.files.lock_file.exists()


def test_a_lock_that_has_taken_the_place_of_the_one_that_was_judged_stays(
    store: RepoStateStore, clock: FakeClock, dead: int, stranger: int, tmp_path: Path
) -> None:
    write_typescript_lock(store, stranger, clock)
    fresh = store.files.lock_file.rename(tmp_path / "fresh")
    write_typescript_lock(store, dead, clock)

    class Meanwhile(FakeClock):
        """The time is asked for once the lock has been looked at, and before it is removed."""

        def now_ms(self) -> int:
            if fresh.exists():
                fresh.replace(store.files.lock_file)
            return clock.now_ms()

    assert care.unlock(store.files, Meanwhile()).reason == "its process is gone"
    holder = present_holder(store.files, clock)
    assert holder is not None
    assert holder.pid == stranger


def test_the_lock_of_a_living_process_is_removed_only_by_force_with_its_id(
    store: RepoStateStore, clock: FakeClock, stranger: int
) -> None:
    holder_id = write_typescript_lock(store, stranger, clock)
    holder = present_holder(store.files, clock)
    assert holder is not None
    assert holder.id == holder_id
    for force in (None, "1@then"):
        with pytest.raises(StateLockHeldError, match=f"pid {stranger}") as raised:
            care.unlock(store.files, clock, force=force)
        assert f"--force {holder_id}" in (raised.value.fix or "")
    assert store.files.lock_file.exists()
    assert care.unlock(store.files, clock, force=holder_id).reason == "by force"
    assert not store.files.lock_file.exists()


def test_a_kernel_lock_is_not_removed_even_by_force(store: RepoStateStore, clock: FakeClock) -> None:
    inode = store.files.kernel_lock.stat().st_ino
    with FileLock(store.files.kernel_lock).acquire(10):
        holder = present_holder(store.files, clock)
        assert holder is not None
        with pytest.raises(StateLockHeldError, match="a kernel lock ends with its process"):
            care.unlock(store.files, clock, force=holder.id)
    assert store.files.kernel_lock.stat().st_ino == inode
