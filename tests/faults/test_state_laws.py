"""Any sequence of changes, crashes, foreign writes and damage on one folder: the state is what a simple model says.

The model is the bytes of the file and the list of revisions. Everything else follows from them.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from tests.faults.original import Original

from rawr import wire
from rawr.errors import CorruptFileError
from rawr.ids import PluginId
from rawr.state import PluginState, RepoState, RepoStateStore
from rawr.state.aio import AsyncRepoState
from rawr.state.changes import Change
from rawr.state.journal import Entry, Journal, sha_of
from rawr.testing.clock import FakeClock

IDS = ("a", "b", "c", "\u00e9\U0001f680")
Document = dict[str, Any]
some_id = st.sampled_from(IDS)
some_ids = st.lists(some_id, max_size=4)
some_way = st.integers(0, 2)


class Folder(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.temporary = tempfile.TemporaryDirectory()
        root = Path(self.temporary.name) / "root"
        root.mkdir()
        alias = root.with_name("alias")
        alias.symlink_to(root)
        self.clock = FakeClock()
        self.told: list[str] = []
        self.stores = [RepoStateStore(path, self.clock, notify=self.told.append) for path in (root, alias)]
        self.files = self.stores[0].files
        self.files.folder.mkdir(parents=True)
        # The model.
        self.file: bytes | None = None
        self.revisions: list[tuple[int, bytes]] = []
        self.recoveries = 0

    def teardown(self) -> None:
        self.temporary.cleanup()

    # Changes of ours.

    @rule(plugin_id=some_id, way=some_way)
    def enable(self, plugin_id: str, way: int) -> None:
        self.change(self.way(way, "enable", plugin_id), partial(with_enabled, plugin_id))

    @rule(plugin_id=some_id, way=some_way)
    def disable(self, plugin_id: str, way: int) -> None:
        self.change(self.way(way, "disable", plugin_id), partial(with_disabled, plugin_id))

    @rule(enabled=some_ids, disabled=some_ids, way=some_way)
    def set(self, enabled: list[str], disabled: list[str], way: int) -> None:
        state = RepoState(
            version=1, plugins=PluginState(enabled=ids(enabled), disabled=ids(disabled), last_updated_at=self.now)
        )
        self.change(self.way(way, "set", state), lambda lists: (enabled, disabled))

    @rule(more=some_ids, way=some_way)
    def mutate(self, more: list[str], way: int) -> None:
        def mutator(state: RepoState) -> RepoState:
            plugins = msgspec.structs.replace(state.plugins, enabled=(*state.plugins.enabled, *ids(more)))
            return msgspec.structs.replace(state, plugins=plugins)

        self.change(self.way(way, "mutate", mutator), lambda lists: (lists[0] + more, lists[1]))

    @precondition(lambda self: self.revisions)
    @rule(which=st.integers(0, 100))
    def restore(self, which: int) -> None:
        revision, text = self.revisions[which % len(self.revisions)]
        act = partial(self.stores[0].restore, revision, text.decode())
        self.change(act, lambda lists: lists, beginning_with=json.loads(text))

    @rule(plugin_id=some_id)
    def a_failing_change_changes_nothing(self, plugin_id: str) -> None:
        def failing(_: RepoState) -> RepoState:
            raise ZeroDivisionError

        with pytest.raises((ZeroDivisionError, CorruptFileError)):
            self.stores[0].mutate(failing)

    # What crashes leave.

    @precondition(lambda self: not self.is_refused)
    @rule(plugin_id=some_id)
    def a_writer_dies_before_the_rename(self, plugin_id: str) -> None:
        """Its line is in the journal and its new file lies about; it was never carried out."""
        text = encoded({**self.document(), "never": "carried out"})
        Journal(self.files.journal).append(
            [
                Entry(
                    rev=self.revision + 1,
                    at=self.now,
                    pid=1,
                    ops=(Change(op="enable", id="x"),),
                    prev=None if self.file is None else sha_of(self.file),
                    sha=sha_of(text),
                    text=text.decode(),
                )
            ]
        )
        (self.files.folder / ".state.json.4711.abcdef.tmp").write_bytes(text[:-5])
        self.leave_lock(owner="rawr-py")
        self.agrees()
        self.enable(plugin_id, 0)

    @precondition(lambda self: not self.is_refused)
    @rule(plugin_id=some_id, another=some_id)
    def a_writer_dies_after_the_rename(self, plugin_id: str, another: str) -> None:
        """So nobody was told: the mark is still the one before."""
        mark = self.files.kernel_lock.read_bytes() if self.files.kernel_lock.exists() else b""
        self.enable(plugin_id, 0)
        self.files.kernel_lock.write_bytes(mark)
        self.leave_lock(owner="rawr-py")
        self.agrees()
        self.disable(another, 0)

    @rule(ours=st.booleans())
    def a_stale_lock_is_left(self, ours: bool) -> None:
        self.leave_lock(owner="rawr-py" if ours else "")

    @precondition(lambda self: self.files.journal.exists())
    @rule(size=st.integers(1, 40))
    def the_journal_ends_in_a_torn_line(self, size: int) -> None:
        with self.files.journal.open("ab") as file:
            file.write(b'{"rev":99999,"at":"2026-01-01T00:00:00.000Z"'[:size])

    @rule(damage=st.sampled_from([b"", b"\x00" * 300, b'{"queue":"x"}\n{"key":1,"op":"enable","id":"x"}\n', None]))
    def the_file_of_requests_is_damaged(self, damage: bytes | None) -> None:
        if damage is None:
            self.files.requests.unlink(missing_ok=True)
        else:
            self.files.requests.write_bytes(damage)

    # What others do to the file.

    @precondition(lambda self: self.file is not None)
    @rule(cut=st.integers(3, 300), noise=st.binary(max_size=20))
    def the_file_is_torn(self, cut: int, noise: bytes) -> None:
        assert self.file is not None
        self.written_by_others(self.file[:-cut] + b"\xff" + noise)

    @rule()
    def a_newer_rawr_writes_another_version(self) -> None:
        self.written_by_others(b'{"version":2,"plugins":{"enabled":["z"]}}')

    @rule(enabled=some_ids, note=st.none() | st.integers())
    def an_editor_writes(self, enabled: list[str], note: int | None) -> None:
        document = {"note": note, "plugins": {"more": [note], "enabled": [f" {entry}" for entry in enabled]}}
        self.written_by_others(json.dumps({**document, "version": 1}).encode())

    @precondition(lambda self: self.revisions)
    @rule(which=st.integers(0, 100))
    def somebody_puts_an_earlier_file_back(self, which: int) -> None:
        self.written_by_others(self.revisions[which % len(self.revisions)][1])

    @precondition(lambda self: not self.files.lock_file.exists())
    @rule(plugin_id=some_id)
    def the_original_enables(self, plugin_id: str) -> None:
        """It takes what it cannot read for nothing, so after it there is a state again."""
        Original(self.files.root).enable(plugin_id)
        self.file = self.files.state.read_bytes()
        assert plugin_id in self.lists()[0]

    @rule()
    def somebody_removes_the_file(self) -> None:
        self.files.state.unlink(missing_ok=True)
        self.file = None

    @rule(ms=st.integers(-100_000, 100_000))
    def time_passes(self, ms: int) -> None:
        self.clock.advance(ms)

    # What must be true all the time.

    @invariant()
    def agrees(self) -> None:
        assert (self.files.state.read_bytes() if self.files.state.exists() else None) == self.file
        for store in self.stores:
            if self.is_refused:
                with pytest.raises(CorruptFileError):
                    store.snapshot()
                continue
            snapshot = store.snapshot()
            plugins = snapshot.state.plugins
            assert store.get().plugins == plugins
            assert (plugins.enabled, plugins.disabled) == tuple(map(normal, self.lists()))
            assert snapshot.revision == self.revision
            assert snapshot.text == (None if self.file is None else self.file.decode())

    @invariant()
    def every_recovery_is_told_and_keeps_the_bytes(self) -> None:
        assert len(self.told) == self.recoveries

    # The model.

    def change(
        self,
        act: Callable[[], object],
        expected: Callable[[tuple[list[str], list[str]]], tuple[list[str], list[str]]],
        *,
        beginning_with: Document | None = None,
    ) -> None:
        is_corrupt = self.is_corrupt
        if self.has_other_version or (is_corrupt and not self.revisions):
            with pytest.raises(CorruptFileError):
                act()
            return
        revision = self.revision
        corrupt = self.file if is_corrupt else None
        if is_corrupt:
            self.file = self.revisions[-1][1]
            self.recoveries += 1
        elif self.file is not None and revision > self.newest[0]:
            self.revisions.append((revision, self.file))
        act()
        document = beginning_with or self.document()
        enabled, disabled = map(normal, expected(lists_of(document)))
        plugins = {"enabled": enabled, "disabled": disabled, "lastUpdatedAt": self.now}
        if not disabled:
            del plugins["disabled"]
        self.file = encoded({"version": 1, **document, "plugins": {**plugins, **strange(document["plugins"])}})
        self.revisions.append((revision + 1, self.file))
        left = {path.name for path in self.files.folder.iterdir()}
        assert not {name for name in left if name.endswith(".tmp")}
        assert "state.lock" not in left
        if corrupt is not None:
            assert corrupt in [path.read_bytes() for path in self.files.folder.glob("state.json.corrupt-*")]

    @property
    def newest(self) -> tuple[int, bytes | None]:
        return self.revisions[-1] if self.revisions else (0, None)

    @property
    def revision(self) -> int:
        """One more than the newest that we know of when somebody else wrote the file."""
        is_foreign = self.file is not None and not self.is_refused and self.file != self.newest[1]
        return self.newest[0] + is_foreign

    @property
    def is_refused(self) -> bool:
        return self.is_corrupt or self.has_other_version

    @property
    def is_corrupt(self) -> bool:
        return self.file is not None and b"\xff" in self.file

    @property
    def has_other_version(self) -> bool:
        return self.file is not None and self.file.startswith(b'{"version":2') and not self.is_corrupt

    @property
    def now(self) -> str:
        return wire.iso_from_ms(self.clock.now_ms())

    def document(self) -> Document:
        if self.file is None:
            return {"version": 1, "plugins": {"enabled": []}}
        document: Document = json.loads(self.file)
        return document

    def lists(self) -> tuple[list[str], list[str]]:
        return lists_of(self.document())

    # How it is done.

    def way(self, number: int, name: str, argument: object) -> Callable[[], object]:
        """By the store, by one that was opened by an alias, or by a coroutine."""
        if number < len(self.stores):
            return partial(getattr(self.stores[number], name), argument)

        async def by_coroutine() -> object:
            try:
                return await getattr(AsyncRepoState(self.stores[0]), name)(argument)
            finally:
                for thread in threading.enumerate():
                    if thread.name == "rawr-state":  # it answers before it tidies up
                        thread.join(60)

        return lambda: asyncio.run(by_coroutine())

    def written_by_others(self, raw: bytes) -> None:
        self.files.state.write_bytes(raw)
        self.file = raw

    def leave_lock(self, *, owner: str) -> None:
        """As the clock has it, from before this machine was started: all of them are stale."""
        note = {"pid": os.getpid(), "acquiredAt": self.now, "owner": owner}
        self.files.lock_file.write_text(json.dumps(note))
        os.utime(self.files.lock_file, (self.clock.now_ms() / 1000, self.clock.now_ms() / 1000))


def with_enabled(plugin_id: str, lists: tuple[list[str], list[str]]) -> tuple[list[str], list[str]]:
    return [*lists[0], plugin_id], [entry for entry in lists[1] if entry != plugin_id]


def with_disabled(plugin_id: str, lists: tuple[list[str], list[str]]) -> tuple[list[str], list[str]]:
    return [entry for entry in lists[0] if entry != plugin_id], [*lists[1], plugin_id]


def lists_of(document: Document) -> tuple[list[str], list[str]]:
    plugins = document["plugins"]
    return [entry.strip() for entry in plugins["enabled"]], list(plugins.get("disabled", []))


def normal(entries: list[str]) -> tuple[str, ...]:
    return tuple(sorted(set(entries)))


def strange(plugins: Document) -> Document:
    return {key: value for key, value in plugins.items() if key not in ("enabled", "disabled", "lastUpdatedAt")}


def encoded(document: Document) -> bytes:
    first = {key: document[key] for key in ("version", "plugins")}
    return (json.dumps({**first, **document}, indent=2, ensure_ascii=False) + "\n").encode()


def ids(entries: list[str]) -> tuple[PluginId, ...]:
    return tuple(map(PluginId, entries))


def test_whatever_happens_the_state_is_what_the_model_says() -> None:
    examples = int(os.environ.get("RAWR_FAULT_EXAMPLES", "20"))
    run_state_machine_as_test(Folder, settings=settings(max_examples=examples, stateful_step_count=30))
