"""One instance has one state, whatever path leads to it; two instances never share anything."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import msgspec
import pytest

from rawr.ids import PluginId
from rawr.state import RepoState, RepoStateMutationOptions, RepoStateStore, state_lock_path, state_path
from rawr.state.faults import StateLockTimeoutError
from rawr.state.requests import IS_AVAILABLE
from rawr.storage.lock import FileLock

IMPATIENT = RepoStateMutationOptions(lock_timeout_ms=50)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "real"
    root.mkdir()
    return root


@pytest.fixture
def alias(root: Path, tmp_path: Path) -> Path:
    """A link to a link to the root, and a way round."""
    (tmp_path / "link").symlink_to(root)
    (tmp_path / "alias").symlink_to(tmp_path / "link")
    return tmp_path / "alias" / ".." / "alias"


def with_enabled(state: RepoState, plugin_id: str) -> RepoState:
    plugins = msgspec.structs.replace(state.plugins, enabled=(*state.plugins.enabled, PluginId(plugin_id)))
    return msgspec.structs.replace(state, plugins=plugins)


def test_an_alias_has_the_files_of_the_real_path(root: Path, alias: Path) -> None:
    by_alias, by_real_path = RepoStateStore(alias), RepoStateStore(root)
    assert by_alias.files == by_real_path.files
    assert by_alias.root == root.resolve()
    assert state_path(alias) == state_path(root)
    assert state_lock_path(alias) == state_lock_path(root)


def test_a_change_by_an_alias_keeps_others_out_by_the_real_path(root: Path, alias: Path) -> None:
    def change(state: RepoState) -> RepoState:
        other = threading.Thread(target=enable_late)
        other.start()
        other.join(60)
        return with_enabled(state, "by-alias")

    def enable_late() -> None:
        with pytest.raises(StateLockTimeoutError):
            RepoStateStore(root, options=IMPATIENT).enable("late")
        refused.append("late")

    refused: list[str] = []
    RepoStateStore(alias).mutate(change)
    assert refused == ["late"]
    assert RepoStateStore(root).get().plugins.enabled == ("by-alias",)


def requests_in(store: RepoStateStore) -> int:
    queue = store.files.requests
    return queue.read_bytes().count(b'"op":"enable"') if queue.exists() else 0


@pytest.mark.skipif(not IS_AVAILABLE, reason="elsewhere processes do not ask each other")
def test_requests_by_an_alias_stand_in_the_same_queue_and_journal(root: Path, alias: Path) -> None:
    stores = [RepoStateStore(alias), RepoStateStore(root)]
    threads = [threading.Thread(target=store.enable, args=(f"p{n}",)) for n, store in enumerate(stores)]
    with FileLock(stores[0].files.kernel_lock).acquire(0):
        for thread in threads:
            thread.start()
        while requests_in(stores[0]) < 2:
            threading.Event().wait(0.002)
    for thread in threads:
        thread.join(60)
    assert stores[0].get() == stores[1].get()
    assert stores[0].snapshot().revision == stores[1].snapshot().revision == 1
    assert stores[0].get().plugins.enabled == ("p0", "p1")


def test_a_store_that_was_opened_by_an_alias_works_without_it(root: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(root)
    store = RepoStateStore(tmp_path / "alias")
    store.enable("a")
    (tmp_path / "alias").unlink()
    assert store.enable("b").plugins.enabled == ("a", "b")
    assert RepoStateStore(root).get().plugins.enabled == ("a", "b")


def test_a_store_stays_with_its_instance_when_the_alias_moves_on(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "alias").symlink_to(root)
    store = RepoStateStore(tmp_path / "alias")
    (tmp_path / "alias").unlink()
    (tmp_path / "alias").symlink_to(other)
    store.enable("a")
    assert RepoStateStore(tmp_path / "alias").get().plugins.enabled == ()
    assert RepoStateStore(root).get().plugins.enabled == ("a",)


def test_while_one_clone_is_being_changed_the_other_is_free(root: Path, tmp_path: Path) -> None:
    clone = RepoStateStore(tmp_path / "clone", options=IMPATIENT)

    def change(state: RepoState) -> RepoState:
        clone.enable("of-the-clone")
        clone.mutate(partial(with_enabled, plugin_id="of-the-clone-too"))
        return with_enabled(state, "of-this-one")

    assert RepoStateStore(root).mutate(change).state.plugins.enabled == ("of-this-one",)
    assert clone.get().plugins.enabled == ("of-the-clone", "of-the-clone-too")
    assert clone.snapshot().revision == 2
