"""Changing the state by a function, replacing it, its revisions, and what others wrote meanwhile."""

from __future__ import annotations

import errno
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from rawr import state as public
from rawr.errors import BadInputError
from rawr.state import PluginState, RepoState, RepoStateMutationOptions, RepoStateStore
from rawr.state.faults import ReentrantMutationError
from rawr.state.journal import Journal
from rawr.state.model import StateCorruptError, StateVersionError
from rawr.storage.lock import FileLock
from rawr.testing.clock import FakeClock

START = "2026-01-01T00:00:00.000Z"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock, told: list[str]) -> RepoStateStore:
    return RepoStateStore(tmp_path, clock, notify=told.append)


def also(*plugin_ids: str) -> public.Mutator:
    def mutator(state: RepoState) -> RepoState:
        return with_enabled(state, *state.plugins.enabled, *plugin_ids)

    return mutator


def with_enabled(state: RepoState, *plugin_ids: str) -> RepoState:
    plugins = msgspec.structs.replace(state.plugins, enabled=plugin_ids)
    return msgspec.structs.replace(state, plugins=plugins)


def test_the_functions_do_what_the_store_does(tmp_path: Path) -> None:
    assert public.get_repo_state(tmp_path).plugins.enabled == ()
    public.enable_plugin(tmp_path, "a")
    public.disable_plugin(str(tmp_path), "b")
    result = public.mutate_repo_state_atomically(tmp_path, also("c"))
    assert (result.state.plugins.enabled, result.state.plugins.disabled) == (("a", "c"), ("b",))
    assert public.get_repo_state(tmp_path) == result.state
    assert (result.revision, result.attempts) == (3, 1)
    assert result.waited_ms >= 0
    assert result.state_path == public.state_path(tmp_path) == tmp_path.resolve() / ".rawr/state/state.json"
    assert result.lock_path == public.state_lock_path(tmp_path) == tmp_path.resolve() / ".rawr/state/state.lock"
    assert not result.lock_path.exists()
    assert public.set_repo_state(tmp_path, with_enabled(result.state, "z")).state.plugins.enabled == ("z",)


def test_a_change_notes_its_time_unless_the_function_did(store: RepoStateStore, clock: FakeClock) -> None:
    clock.advance(5)
    assert store.mutate(also("a")).state.plugins.last_updated_at == "2026-01-01T00:00:00.005Z"
    clock.advance(5)

    def dated(state: RepoState) -> RepoState:
        return msgspec.structs.replace(
            state, plugins=msgspec.structs.replace(state.plugins, last_updated_at="2020-01-01T00:00:00.000Z")
        )

    assert store.mutate(dated).state.plugins.last_updated_at == "2020-01-01T00:00:00.000Z"
    given = RepoState(version=1, plugins=PluginState(enabled=(), last_updated_at=START))
    assert store.set(given).state.plugins.last_updated_at == START


@pytest.mark.parametrize("bad", ["", " \n", "x" * 10_000])
def test_a_function_cannot_smuggle_in_what_is_no_plugin_id(store: RepoStateStore, bad: str) -> None:
    store.enable("a")
    before = store.path.read_bytes()
    with pytest.raises(BadInputError, match="plugin id"):
        store.mutate(also(bad))
    assert store.path.read_bytes() == before


def test_a_long_id_that_somebody_else_wrote_is_kept(store: RepoStateStore) -> None:
    theirs = "x" * 10_000
    store.path.parent.mkdir(parents=True)
    store.path.write_text('{"version":1,"plugins":{"enabled":["' + theirs + '"],"lastUpdatedAt":"x"}}')
    assert store.mutate(also("a")).state.plugins.enabled == ("a", theirs)


def test_a_function_has_to_give_a_state_of_this_version(store: RepoStateStore) -> None:
    with pytest.raises(BadInputError, match="a repo state is a RepoState, this is a NoneType"):
        store.mutate(lambda _: None)  # type: ignore[arg-type, return-value]  # what forgetting to return gives
    with pytest.raises(BadInputError, match="has version 1, this one has 2"):
        store.mutate(lambda state: msgspec.structs.replace(state, version=2))
    with pytest.raises(BadInputError, match="a plugin id is a text, this is a int"):
        store.enable(5)  # type: ignore[arg-type]
    assert not store.path.exists()


def test_what_a_function_raises_is_raised_and_nothing_changes(store: RepoStateStore) -> None:
    store.enable("a")
    before = store.path.read_bytes()

    def failing(_: RepoState) -> RepoState:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        store.mutate(failing)
    assert store.path.read_bytes() == before
    assert store.enable("b").plugins.enabled == ("a", "b")
    assert store.snapshot().revision == 2


def test_a_change_within_a_change_is_an_error_at_once(store: RepoStateStore, tmp_path: Path) -> None:
    alias = tmp_path.parent / f"{tmp_path.name}-alias"
    alias.symlink_to(tmp_path)
    raised: list[BaseException] = []
    attempts: list[Callable[[], object]] = [lambda: store.enable("b"), lambda: public.enable_plugin(alias, "b")]

    def nested(state: RepoState) -> RepoState:
        for attempt in attempts:
            with pytest.raises(ReentrantMutationError) as caught:
                attempt()
            raised.append(caught.value)
        return also("a")(state)

    assert store.mutate(nested).state.plugins.enabled == ("a",)
    assert len(raised) == 2
    assert store.enable("b").plugins.enabled == ("a", "b")


def test_a_change_of_another_state_within_a_change_is_fine(store: RepoStateStore, tmp_path: Path) -> None:
    other = RepoStateStore(tmp_path / "other")

    def both(state: RepoState) -> RepoState:
        other.enable("there")
        return also("here")(state)

    store.mutate(both)
    assert (store.get().plugins.enabled, other.get().plugins.enabled) == (("here",), ("there",))


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf])
def test_an_option_that_is_no_positive_number_means_the_default(store: RepoStateStore, timeout: float) -> None:
    options = RepoStateMutationOptions(lock_timeout_ms=timeout, retry_delay_ms=timeout, stale_lock_ms=timeout)
    assert store.mutate(also("a"), options).revision == 1


def test_threads_that_wait_together_share_one_commit(store: RepoStateStore) -> None:
    results: list[public.RepoStateMutationResult] = []
    threads = [threading.Thread(target=lambda n=n: results.append(store.mutate(also(f"p{n}")))) for n in range(8)]
    with FileLock(store.files.kernel_lock).acquire(0):
        for thread in threads:
            thread.start()
        while len(store._line.waiting()) < 8:
            threading.Event().wait(0.001)
    for thread in threads:
        thread.join(60)
    assert {result.revision for result in results} == {1}
    assert store.get().plugins.enabled == tuple(f"p{n}" for n in range(8))
    assert sorted(len(result.state.plugins.enabled) for result in results) == list(range(1, 9))


def test_what_somebody_else_wrote_is_a_revision_of_its_own(store: RepoStateStore) -> None:
    store.enable("a")
    theirs = b'{"version":1,"plugins":{"enabled":["theirs"],"lastUpdatedAt":"x"}}'
    store.path.write_bytes(theirs)
    assert store.snapshot().revision == 2
    store.enable("b")
    assert store.snapshot().revision == 3
    [ours, adopted, first] = Journal(store.files.journal).entries()
    assert [(entry.rev, entry.ops[0].op) for entry in (first, adopted, ours)] == [
        (1, "enable"),
        (2, "adopt"),
        (3, "enable"),
    ]
    assert adopted.text.encode() == theirs
    assert store.get().plugins.enabled == ("b", "theirs")


def test_a_file_that_was_there_before_the_first_change_is_adopted(store: RepoStateStore) -> None:
    store.path.parent.mkdir(parents=True)
    store.path.write_bytes(b'\xef\xbb\xbf{"version":1,"plugins":{"enabled":["theirs"],"lastUpdatedAt":"x"}}')
    assert store.snapshot().revision == 1
    assert store.mutate(also("a")).revision == 2


def test_a_file_that_was_moved_away_means_a_fresh_start_and_revisions_go_on(store: RepoStateStore) -> None:
    store.enable("a")
    store.path.unlink()
    assert store.get().plugins.enabled == ()
    assert store.mutate(also("b")).state.plugins.enabled == ("b",)
    assert store.snapshot().revision == 2


def test_a_file_that_somebody_put_back_is_a_revision_of_its_own(store: RepoStateStore) -> None:
    store.enable("a")
    before = store.path.read_bytes()
    store.enable("b")
    store.path.write_bytes(before)
    assert store.snapshot().revision == 3
    assert store.mutate(also("c")).revision == 4
    assert store.get().plugins.enabled == ("a", "c")


def test_an_intention_that_was_not_carried_out_does_not_count(store: RepoStateStore) -> None:
    store.enable("a")
    before, mark = store.path.read_bytes(), store.files.kernel_lock.read_bytes()
    store.enable("b")
    store.path.write_bytes(before)  # as if the second writer had died before the rename
    store.files.kernel_lock.write_bytes(mark)
    assert store.snapshot().revision == 1
    assert store.mutate(also("c")).revision == 2
    assert [entry.rev for entry in Journal(store.files.journal).entries()] == [2, 1]
    assert store.get().plugins.enabled == ("a", "c")


def test_a_corrupt_file_is_put_away_and_the_newest_revision_restored_loudly(
    store: RepoStateStore, told: list[str]
) -> None:
    store.enable("a")
    store.enable("b")
    torn = store.path.read_bytes()[:-20]
    store.path.write_bytes(torn)
    with pytest.raises(StateCorruptError):
        store.get()
    assert store.enable("c").plugins.enabled == ("a", "b", "c")
    [put_away] = store.files.folder.glob("state.json.corrupt-*")
    assert put_away.read_bytes() == torn
    assert len(told) == 1
    assert "was corrupt: revision 2 was restored" in told[0]
    assert str(put_away) in told[0]


def test_a_corrupt_file_without_a_journal_is_refused_and_left(store: RepoStateStore, told: list[str]) -> None:
    store.path.parent.mkdir(parents=True)
    store.path.write_bytes(b"{")
    with pytest.raises(StateCorruptError, match=r"state\.json \(1 bytes\)"):
        store.enable("a")
    assert (store.path.read_bytes(), told) == (b"{", [])


def test_an_unknown_version_is_refused_although_there_is_a_journal(store: RepoStateStore, told: list[str]) -> None:
    store.enable("a")
    store.path.write_bytes(b'{"version":2,"plugins":{"enabled":[]}}')
    with pytest.raises(StateVersionError):
        store.enable("b")
    assert store.path.read_bytes() == b'{"version":2,"plugins":{"enabled":[]}}'
    assert told == []


def test_an_earlier_revision_can_be_restored_with_keys_that_are_not_ours(store: RepoStateStore) -> None:
    store.path.parent.mkdir(parents=True)
    store.path.write_bytes(b'{"theirs":1,"version":1,"plugins":{"enabled":["a"],"lastUpdatedAt":"x","more":null}}')
    store.enable("b")
    text = store.snapshot().text or ""
    store.set(RepoState(version=1, plugins=PluginState(enabled=(), last_updated_at=START)))
    result = store.restore(2, text)
    assert (result.revision, result.state.plugins.enabled) == (4, ("a", "b"))
    assert b'"theirs": 1' in store.path.read_bytes()
    assert b'"more": null' in store.path.read_bytes()


LEFT = [".state.json.4711.abc.tmp", ".state.lock.4711.5.tmp", "state.4711.1767225600000.3.tmp"]


def test_what_killed_writers_left_is_collected_by_the_first_change_of_a_store(store: RepoStateStore) -> None:
    store.enable("a")
    kept = ["state.notes.tmp", "state.json.bak"]
    for name in (*LEFT, *kept):
        (store.files.folder / name).write_text("x")
    RepoStateStore(store.root).enable("b")
    there = {path.name for path in store.files.folder.iterdir()}
    assert there.isdisjoint(LEFT)
    assert there.issuperset(kept)


def test_what_a_writer_left_that_was_killed_meanwhile_is_collected_too(store: RepoStateStore) -> None:
    store.enable("a")
    for name in LEFT:
        (store.files.folder / name).write_text("x")
    os.link(store.files.lock_note, store.files.lock_file)  # it leaves its lock as well
    store.enable("b")
    assert {path.name for path in store.files.folder.iterdir()}.isdisjoint([*LEFT, "state.lock"])


def test_a_forked_child_can_use_a_store_whose_parent_was_just_changing_it(tmp_path: Path) -> None:
    program = (
        "import os, sys, threading\nfrom rawr.state import RepoStateStore\n"
        "store = RepoStateStore(sys.argv[1])\n"
        "inside, on = threading.Event(), threading.Event()\n"
        "def slow(state):\n    inside.set()\n    on.wait()\n    return state\n"
        "changing = threading.Thread(target=store.mutate, args=(slow,))\n"
        "changing.start()\ninside.wait()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    store.enable('of the child')\n"
        "    os._exit(0)\n"
        "on.set()\nchanging.join()\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], timeout=60, check=False)
    assert done.returncode == 0
    assert RepoStateStore(tmp_path).get().plugins.enabled == ("of the child",)


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="the system has no extended attributes")
def test_a_journal_that_lost_its_last_lines_gives_no_revision_twice(store: RepoStateStore) -> None:
    for name in ("a", "b", "c"):
        store.enable(name)
    lines = store.files.journal.read_bytes().splitlines(keepends=True)
    store.files.journal.write_bytes(lines[0] + b"\0" * 50)  # what a power cut may leave
    store.files.kernel_lock.write_bytes(b"")
    fresh = RepoStateStore(store.root, FakeClock())
    assert (fresh.snapshot().revision, fresh.get().plugins.enabled) == (3, ("a", "b", "c"))
    assert fresh.mutate(also("d")).revision == 4
    assert [(entry.rev, entry.ops[0].op) for entry in Journal(fresh.files.journal).entries()] == [
        (4, "mutate"),
        (3, "recall"),
        (1, "enable"),
    ]


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="the system has no extended attributes")
def test_what_is_written_in_place_after_a_power_cut_took_the_journal_gets_a_revision_of_its_own(
    store: RepoStateStore,
) -> None:
    for name in ("a", "b", "c"):
        store.enable(name)
    lines = store.files.journal.read_bytes().splitlines(keepends=True)
    store.files.journal.write_bytes(lines[0])
    store.files.kernel_lock.write_bytes(b"")
    with store.path.open("r+b") as file:  # the attribute stays with the file
        file.write(store.path.read_bytes().replace(b'"c"', b'"x"'))
    fresh = RepoStateStore(store.root, FakeClock())
    assert (fresh.snapshot().revision, fresh.get().plugins.enabled) == (4, ("a", "b", "x"))
    fresh.enable("d")
    assert [(entry.rev, entry.ops[0].op) for entry in Journal(fresh.files.journal).entries()] == [
        (5, "enable"),
        (4, "adopt"),
        (1, "enable"),
    ]


def test_where_files_carry_no_attributes_the_journal_is_forced_to_disk(
    store: RepoStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    flushed: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real(descriptor)

    monkeypatch.setattr(os, "setxattr", unsupported, raising=False)
    monkeypatch.setattr(os, "fsync", fsync)
    store.enable("a")
    assert flushed[-3:-1] == ["state.journal", flushed[-2]]
    assert flushed[-2].startswith(".state.json.")
