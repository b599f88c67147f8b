"""The TypeScript rawr and ours on one workspace: they exclude each other, and its mistakes cost us nothing.

The other side is `original.py`, which does what the TypeScript does, in the same order.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
import pytest
from tests.faults.crew import PATIENT, Crew, Member
from tests.faults.original import INSIDE, JUDGED_STALE, Original, OriginalTimeoutError

from rawr.ids import PluginId
from rawr.state import RepoState, RepoStateMutationOptions, RepoStateStore
from rawr.state.faults import StateLockTimeoutError

ROUNDS = int(os.environ.get("RAWR_FAULT_ROUNDS", "4"))
CHANGES = 8


def change_as_original(line: Connection, root: Path, plugin_id: str, pauses: frozenset[str]) -> None:
    """Enable a plugin; at each of `pauses`, say so and wait for a word."""

    def pause(where: str) -> None:
        if where in pauses:
            line.send(where)
            line.recv()

    Original(root, pause=pause).enable(plugin_id)
    line.send("done")


def enable_many(line: Connection, root: Path, kind: str, names: list[str]) -> None:
    store = RepoStateStore(root, options=PATIENT)
    ways: dict[str, Callable[[str], object]] = {
        "original": Original(root).enable,
        "ours": store.enable,
        "ours by function": lambda name: store.mutate(partial(with_enabled, plugin_id=name)),
    }
    line.recv()
    for name in names:
        ways[kind](name)


def with_enabled(state: RepoState, plugin_id: str) -> RepoState:
    plugins = msgspec.structs.replace(state.plugins, enabled=(*state.plugins.enabled, PluginId(plugin_id)))
    return msgspec.structs.replace(state, plugins=plugins)


def leave_stale_lock(root: Path) -> None:
    """What a process of the TypeScript rawr leaves that was killed two minutes ago."""
    with subprocess.Popen(["true"]) as dead:
        pass
    lock = RepoStateStore(root).files.lock_file
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text(json.dumps({"pid": dead.pid, "acquiredAt": "2026-01-01T00:00:00.000Z"}))
    os.utime(lock, (time.time() - 120, time.time() - 120))


def all_at_once(crew: Crew, members: list[Member]) -> None:
    for member in members:
        member.tell("go")
    assert [member.ended() for member in members] == [0] * len(members)


def test_four_processes_of_each_kind_lose_nothing(tmp_path: Path) -> None:
    kinds = ["original"] * 4 + ["ours"] * 2 + ["ours by function"] * 2
    names = [[f"p{who}-{number}" for number in range(CHANGES)] for who in range(len(kinds))]
    with Crew() as crew:
        members = [crew.start(enable_many, tmp_path, kind, mine) for kind, mine in zip(kinds, names, strict=True)]
        all_at_once(crew, members)
    store = RepoStateStore(tmp_path, options=PATIENT)
    assert set(store.get().plugins.enabled) == {name for mine in names for name in mine}
    assert not store.files.lock_file.exists()


@pytest.mark.parametrize("number", range(ROUNDS))
def test_many_who_find_one_stale_lock_lose_nothing(tmp_path: Path, number: int) -> None:
    """With one of the other kind: two of them would take the lock from each other, with or without us."""
    kinds = ["original"] + ["ours", "ours by function"] * 3
    with Crew() as crew:
        members = [crew.start(enable_many, tmp_path, kind, [f"p{who}"]) for who, kind in enumerate(kinds)]
        leave_stale_lock(tmp_path)
        all_at_once(crew, members)
    assert RepoStateStore(tmp_path).get().plugins.enabled == tuple(f"p{who}" for who in range(len(kinds)))


def test_the_original_alone_loses_an_update_when_one_is_parked_after_its_judgement(tmp_path: Path) -> None:
    """That is the defect; here it shows that the stand-in has it, and what the tests below protect from."""
    leave_stale_lock(tmp_path)
    with Crew() as crew:
        parked = crew.start(change_as_original, tmp_path, "parked", frozenset({JUDGED_STALE}))
        assert parked.hear() == JUDGED_STALE

        def the_parked_one_goes_on(where: str) -> None:
            if where == INSIDE:
                parked.tell("go on")
                assert parked.hear() == "done"

        Original(tmp_path, pause=the_parked_one_goes_on).enable("overtaken")
    assert RepoStateStore(tmp_path).get().plugins.enabled == ("overtaken",)


class Overtaken:
    """A change of ours during whose first attempt something happens."""

    def __init__(self, happens: Callable[[], None]) -> None:
        self._happens = happens
        self.seen: list[tuple[str, ...]] = []

    def __call__(self, state: RepoState) -> RepoState:
        self.seen.append(state.plugins.enabled)
        if len(self.seen) == 1:
            self._happens()
        return with_enabled(state, "ours")


def test_a_parked_original_that_removes_our_lock_is_noticed_and_our_change_made_again(tmp_path: Path) -> None:
    leave_stale_lock(tmp_path)
    store = RepoStateStore(tmp_path, options=PATIENT)
    with Crew() as crew:
        parked = crew.start(change_as_original, tmp_path, "theirs", frozenset({JUDGED_STALE}))
        assert parked.hear() == JUDGED_STALE

        def it_goes_on_to_its_end() -> None:
            parked.tell("go on")
            assert parked.hear() == "done"

        change = Overtaken(it_goes_on_to_its_end)
        result = store.mutate(change)
    assert change.seen == [(), ("theirs",)]
    assert result.state.plugins.enabled == store.get().plugins.enabled == ("ours", "theirs")
    assert result.revision == 2  # theirs is the first
    assert not store.files.lock_file.exists()


def test_our_change_waits_for_a_parked_original_that_removed_our_lock_and_is_inside(tmp_path: Path) -> None:
    leave_stale_lock(tmp_path)
    store = RepoStateStore(tmp_path, options=PATIENT)
    entered = threading.Event()
    with Crew() as crew:
        parked = crew.start(change_as_original, tmp_path, "theirs", frozenset({JUDGED_STALE, INSIDE}))
        assert parked.hear() == JUDGED_STALE

        def it_goes_on_until_it_is_inside() -> None:
            parked.tell("go on")
            assert parked.hear() == INSIDE
            entered.set()

        change = Overtaken(it_goes_on_until_it_is_inside)
        ours = threading.Thread(target=store.mutate, args=(change,))
        ours.start()
        assert entered.wait(90)
        late = RepoStateStore(tmp_path, options=RepoStateMutationOptions(lock_timeout_ms=200))
        with pytest.raises(StateLockTimeoutError, match=rf"held by pid {parked.pid} \(alive"):
            late.enable("late")
        assert store.get().plugins.enabled == ()  # so ours is not there either: it would have been by now
        parked.tell("go on")
        assert parked.hear() == "done"
        ours.join(90)
    assert change.seen == [(), ("theirs",)]
    assert store.get().plugins.enabled == ("ours", "theirs")


def test_a_parked_original_that_goes_on_after_our_change_adds_to_it(tmp_path: Path) -> None:
    leave_stale_lock(tmp_path)
    store = RepoStateStore(tmp_path, options=PATIENT)
    with Crew() as crew:
        parked = crew.start(change_as_original, tmp_path, "theirs", frozenset({JUDGED_STALE}))
        assert parked.hear() == JUDGED_STALE
        store.enable("ours")
        parked.tell("go on")
        assert parked.hear() == "done"
    assert store.get().plugins.enabled == ("ours", "theirs")


def test_requests_of_other_processes_survive_the_loss_of_our_lock(tmp_path: Path) -> None:
    leave_stale_lock(tmp_path)
    store = RepoStateStore(tmp_path, options=PATIENT)
    with Crew() as crew:
        parked = crew.start(change_as_original, tmp_path, "theirs", frozenset({JUDGED_STALE}))
        assert parked.hear() == JUDGED_STALE
        others = [crew.start(enable_many, tmp_path, "ours", [f"p{who}"]) for who in range(3)]

        def all_others_come() -> None:
            for other in others:
                other.tell("go")
            parked.tell("go on")
            assert parked.hear() == "done"

        store.mutate(Overtaken(all_others_come))
        assert [other.ended() for other in others] == [0] * 3
    assert store.get().plugins.enabled == ("ours", "p0", "p1", "p2", "theirs")


def test_the_original_stays_out_while_we_change_the_state(tmp_path: Path) -> None:
    store = RepoStateStore(tmp_path, options=PATIENT)

    def it_tries() -> None:
        note = json.loads(store.files.lock_file.read_bytes())
        assert note["pid"] == os.getpid()
        with pytest.raises(OriginalTimeoutError):
            Original(tmp_path, timeout_s=0.1, stale_s=0).enable("theirs")  # as old as it likes: we live

    store.mutate(Overtaken(it_tries))
    assert store.get().plugins.enabled == ("ours",)


def test_the_original_takes_over_when_we_were_killed(tmp_path: Path) -> None:
    with Crew() as crew:
        killed = crew.start(hold_for_ever, tmp_path)
        assert killed.hear() == "holding"
        killed.kill()
    Original(tmp_path, stale_s=0.2).enable("theirs")
    assert RepoStateStore(tmp_path).enable("ours").plugins.enabled == ("ours", "theirs")


def hold_for_ever(line: Connection, root: Path) -> None:
    def change(state: RepoState) -> RepoState:
        line.send("holding")
        threading.Event().wait()
        return state

    RepoStateStore(root).mutate(change)


def test_each_reads_what_the_other_wrote(tmp_path: Path) -> None:
    store, original = RepoStateStore(tmp_path), Original(tmp_path)
    original.enable("b")
    store.disable("a")
    written = store.path.read_bytes()
    original.enable("c")
    plugins = store.get().plugins
    assert (plugins.enabled, plugins.disabled) == (("b", "c"), ("a",))
    assert store.snapshot().revision == 3
    document = json.loads(written)
    assert written.decode() == json.dumps(document, indent=2) + "\n"
