"""Whatever stands in place of the state: never the defaults, never a reset, never a silent repair."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawr.errors import CorruptFileError, StorageError
from rawr.state import RepoStateStore
from rawr.state.commit import SIZE_MAX, StateTooLargeError
from rawr.state.model import StateCorruptError, StateVersionError

PLUGINS = ("a", "b", "c")


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, told: list[str]) -> RepoStateStore:
    return enabled(tmp_path, told)


def enabled(root: Path, told: list[str]) -> RepoStateStore:
    store = RepoStateStore(root, notify=told.append)
    for plugin in PLUGINS:
        store.enable(plugin)
    return store


def quarantined(store: RepoStateStore) -> list[bytes]:
    return [path.read_bytes() for path in store.files.folder.glob("state.json.corrupt-*")]


def check_corrupt(store: RepoStateStore, raw: bytes, told: list[str]) -> None:
    """A reader gets an error; a writer restores what was there, says so, and keeps the bytes."""
    with pytest.raises(StateCorruptError):
        store.get()
    assert store.path.read_bytes() == raw
    assert tuple(store.enable("d").plugins.enabled) == (*PLUGINS, "d")
    assert raw in quarantined(store)
    assert len(told) == 1
    assert "revision 3 was restored" in told[0]


def test_every_prefix_of_the_file_is_an_error_and_is_restored_without_losing_a_byte(
    tmp_path: Path, told: list[str]
) -> None:
    whole = enabled(tmp_path / "whole", told).path.read_bytes()
    for length in range(0, len(whole) - 2, 7):
        store = enabled(tmp_path / str(length), told)
        store.path.write_bytes(whole[:length])
        check_corrupt(store, whole[:length], told)
        told.clear()


@pytest.mark.parametrize(
    "raw",
    [
        b"\0" * 400,
        b"null\n",
        b"[]\n",
        b'{"version":1}',
        b'{"version":"1","plugins":{"enabled":[]}}',
        b'{"version":1,"plugins":{"enabled":{}}}',
        b'{"version":1,"plugins":{"enabled":["a",1]}}',
        b'{"version":1,"plugins":{"enabled":[],"disabled":[null]}}',
        b'{"version":1,"plugins":{"enabled":[],"lastUpdatedAt":5}}',
        b'{"version":1,"plugins":{"enabled":["\xff"]}}',
        b'{"version":1,"plugins":{"enabled":["\\ud800"]}}',
        b"[" * 100_000,
        b'{"version":1,"plugins":{"enabled":[' + b'"x",' * 2_500_000,
    ],
    ids=lambda raw: f"{len(raw)} bytes {raw[:24]!r}",
)
def test_what_is_no_state_is_an_error_and_is_restored(store: RepoStateStore, raw: bytes, told: list[str]) -> None:
    store.path.write_bytes(raw)
    check_corrupt(store, raw, told)


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_is_an_error_or_another_state_and_never_none_at_all(
    tmp_path_factory: pytest.TempPathFactory, position: int, bit: int
) -> None:
    store = enabled(tmp_path_factory.mktemp("flipped"), [])
    raw = bytearray(store.path.read_bytes())
    raw[position % len(raw)] ^= 1 << bit
    store.path.write_bytes(raw)
    try:
        there = store.get().plugins.enabled
    except CorruptFileError:
        there = None
    assert store.path.read_bytes() == raw
    if there is not None:
        written = json.loads(bytes(raw))["plugins"]["enabled"]
        assert set(there) == {plugin.strip() for plugin in written} - {""}


def test_a_corrupt_file_is_put_away_once_however_often_the_change_is_tried(store: RepoStateStore) -> None:
    store.path.write_bytes(b"{")

    def failing(_: object) -> None:
        raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            store.mutate(failing)  # type: ignore[arg-type]
    store.enable("d")
    store.path.write_bytes(b"{")
    store.enable("e")
    assert quarantined(store) == [b"{"]


def test_every_corrupt_file_is_put_away_however_alike_they_look(store: RepoStateStore) -> None:
    for raw in (b"{1", b"{2", b"{1", b"{3"):
        store.path.write_bytes(raw)
        store.enable(f"after {raw.decode()}")
    assert sorted(quarantined(store)) == [b"{1", b"{2", b"{3"]


def test_a_journal_of_which_the_newest_lines_are_lost_restores_the_newest_that_is_left(
    store: RepoStateStore, told: list[str]
) -> None:
    lines = store.files.journal.read_bytes().splitlines(keepends=True)
    store.files.journal.write_bytes(b"".join(lines[:2]) + lines[2][:-40] + b"\0\0")
    store.path.write_bytes(b"{")
    fresh = RepoStateStore(store.root, notify=told.append)
    assert tuple(fresh.enable("d").plugins.enabled) == ("a", "b", "d")
    assert "revision 2 was restored" in told[0]


@pytest.mark.parametrize("version", [0, 2, 99])
def test_another_version_is_refused_by_everybody_and_left(store: RepoStateStore, version: int, told: list[str]) -> None:
    raw = json.dumps({"version": version, "plugins": {"enabled": ["x"]}}).encode()
    store.path.write_bytes(raw)
    for action in (store.get, lambda: store.enable("d")):
        with pytest.raises(StateVersionError):
            action()
    assert (store.path.read_bytes(), quarantined(store), told) == (raw, [], [])


def test_a_file_that_is_far_too_large_is_refused_and_left(store: RepoStateStore) -> None:
    os.truncate(store.path, SIZE_MAX + 1)
    for action in (store.get, lambda: store.enable("d")):
        with pytest.raises(StateTooLargeError, match="bytes, a state has at most"):
            action()
    assert store.path.stat().st_size == SIZE_MAX + 1


def a_directory(path: Path) -> None:
    path.mkdir()


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_loop_of_links(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("make", [a_directory, a_pipe, a_loop_of_links])
def test_what_is_no_file_is_refused_at_once_and_left(store: RepoStateStore, make: Callable[[Path], None]) -> None:
    store.path.unlink()
    make(store.path)
    kind = stat.S_IFMT(store.path.lstat().st_mode)
    for action in (store.get, lambda: store.enable("d")):
        with pytest.raises(StorageError, match=r"state\.json"):
            action()
    assert stat.S_IFMT(store.path.lstat().st_mode) == kind


def test_a_link_to_nothing_means_no_state_yet_and_stays_a_link(tmp_path: Path) -> None:
    store = RepoStateStore(tmp_path / "hq")
    store.path.parent.mkdir(parents=True)
    store.path.symlink_to(tmp_path / "elsewhere.json")
    assert store.get().plugins.enabled == ()
    store.enable("a")
    assert store.path.is_symlink()
    assert b'"a"' in (tmp_path / "elsewhere.json").read_bytes()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_what_may_not_be_read_or_written_is_refused_and_left(store: RepoStateStore) -> None:
    before = store.path.read_bytes()
    store.path.chmod(0)
    with pytest.raises(StorageError, match="permission denied"):
        store.get()
    with pytest.raises(StorageError, match="permission denied"):
        store.enable("d")
    store.path.chmod(0o644)
    store.files.folder.chmod(0o555)
    try:
        assert tuple(store.get().plugins.enabled) == PLUGINS
        with pytest.raises(StorageError):
            store.enable("d")
    finally:
        store.files.folder.chmod(0o755)
    assert store.path.read_bytes() == before
