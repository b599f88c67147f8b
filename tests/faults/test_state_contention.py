"""Many who change one state at once, and many who read it meanwhile: all are served, and nobody sees a tear."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
from tests.faults.crew import PATIENT, Crew

from rawr.ids import PluginId
from rawr.state import PluginState, RepoState, RepoStateStore, enable_plugin, mutate_repo_state_atomically

READS = int(os.environ.get("RAWR_FAULT_READS", "100000"))
READERS, WRITERS = 4, 8
SNAPSHOT_EVERY = 40


def at_once(calls: list[Callable[[], object]]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)


def with_enabled(state: RepoState, plugin_id: str, *, moment: threading.Event | None = None) -> RepoState:
    if moment is not None:
        moment.wait(0.005)
    plugins = msgspec.structs.replace(state.plugins, enabled=(*state.plugins.enabled, PluginId(plugin_id)))
    return msgspec.structs.replace(state, plugins=plugins)


def test_forty_mutations_of_one_process_that_each_add_an_id_are_all_there_and_the_lock_is_gone(tmp_path: Path) -> None:
    names = [f"plugin-{number:02}" for number in range(40)]
    moments = [threading.Event() if number % 5 == 0 else None for number in range(40)]
    at_once(
        [
            partial(
                mutate_repo_state_atomically, tmp_path, partial(with_enabled, plugin_id=name, moment=moment), PATIENT
            )
            for name, moment in zip(names, moments, strict=True)
        ]
    )
    store = RepoStateStore(tmp_path)
    assert json.loads(store.path.read_bytes())["plugins"]["enabled"] == names
    assert not store.files.lock_file.exists()


def test_twenty_four_enablings_at_once_are_all_there_in_order(tmp_path: Path) -> None:
    names = [f"plugin-{number:02}" for number in range(24)]
    at_once([partial(enable_plugin, tmp_path, name) for name in names])
    assert list(RepoStateStore(tmp_path).get().plugins.enabled) == names


def change_a_few_times(_: Connection, root: Path, who: int) -> None:
    """With the default timeout; half of them by what a holder can do for others, half not."""
    store = RepoStateStore(root)
    for number in range(2):
        if who % 2:
            store.enable(f"{who}-{number}")
        else:
            store.mutate(partial(with_enabled, plugin_id=f"{who}-{number}"))


def test_nobody_of_twenty_four_processes_waits_for_longer_than_the_default_timeout(tmp_path: Path) -> None:
    with Crew() as crew:
        members = [crew.start(change_a_few_times, tmp_path, who) for who in range(24)]
        assert [member.ended() for member in members] == [0] * 24
    expected = {f"{who}-{number}" for who in range(24) for number in range(2)}
    assert set(RepoStateStore(tmp_path).get().plugins.enabled) == expected


# Readers, while writers count. A writer's count stands in both lists, so a mixture of two states has two of them.


def count_up(line: Connection, root: Path, who: int) -> None:
    """Replace `<who>:<count>` by the next one, in `enabled` and in `disabled`, until told to stop."""
    store, count = RepoStateStore(root, options=PATIENT), 0

    def one_more(state: RepoState) -> RepoState:
        others = [entry for entry in state.plugins.enabled if not entry.startswith(f"{who}:")]
        lists = PluginId(f"{who}:{count}"), *others
        return RepoState(
            version=1, plugins=PluginState(enabled=lists, disabled=lists, last_updated_at=state.plugins.last_updated_at)
        )

    while not line.poll():
        count += 1
        store.mutate(one_more)
    line.recv()
    line.send(count)


def read(line: Connection, root: Path, reads: int) -> None:
    """Look again and again; what is amiss, or how many different states there were."""
    store = RepoStateStore(root)
    newest: dict[str, int] = {}
    revision, amiss, seen = 0, list[str](), set[str]()
    for number in range(reads):
        state = store.get()
        if number % SNAPSHOT_EVERY == 0:
            snapshot = store.snapshot()
            amiss += wrong_in_snapshot(snapshot.text, snapshot.state, revision, snapshot.revision)
            state, revision = snapshot.state, snapshot.revision
        if state.plugins.enabled != state.plugins.disabled:
            amiss.append(f"torn: {state}")
        for entry in state.plugins.enabled:
            who, _, count = entry.partition(":")
            if int(count) < newest.get(who, 0):
                amiss.append(f"{entry} after {newest[who]}")
            newest[who] = int(count)
        seen.add(str(state.plugins.enabled))
    line.send((amiss[:5], len(seen)))


def wrong_in_snapshot(text: str | None, state: RepoState, revision_before: int, revision: int) -> list[str]:
    wrong = [f"revision {revision} after {revision_before}"] if revision < revision_before else []
    if text is not None and tuple(json.loads(text)["plugins"]["enabled"]) != state.plugins.enabled:
        wrong.append(f"revision {revision} has another text")
    return wrong


def test_readers_never_see_a_torn_or_an_older_state_while_eight_processes_write(tmp_path: Path) -> None:
    with Crew() as crew:
        writers = [crew.start(count_up, tmp_path, who) for who in range(WRITERS)]
        readers = [crew.start(read, tmp_path, READS // READERS) for _ in range(READERS)]
        heard = [reader.hear() for reader in readers]
        for writer in writers:
            writer.tell("stop")
        counts = [writer.hear() for writer in writers]
    assert [amiss for amiss, _ in heard] == [[]] * READERS
    assert min(states for _, states in heard) > 1
    now = RepoStateStore(tmp_path).get().plugins.enabled
    assert now == tuple(sorted(f"{who}:{count}" for who, count in enumerate(counts)))
