"""The repo state on disk: nothing acknowledged is lost, and a file that is not understood is left alone."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rawr.errors import BadInputError, CorruptFileError
from rawr.state.aio import AsyncRepoState
from rawr.state.faults import StateLockTimeoutError
from rawr.state.model import StateVersionError
from rawr.state.store import RepoStateMutationOptions, RepoStateStore
from rawr.storage.faults import StorageIsDirectoryError
from rawr.storage.lock import FileLock
from rawr.testing.clock import FakeClock
from rawr.testing.workspace import make_instance

ENABLE_ONE = """
import sys
from pathlib import Path
from rawr.clock import SystemClock
from rawr.state.store import RepoStateMutationOptions, RepoStateStore
RepoStateStore(Path(sys.argv[1]), SystemClock()).enable(sys.argv[2])
"""

ENABLE_MANY = """
import itertools, sys
from pathlib import Path
from rawr.clock import SystemClock
from rawr.state.store import RepoStateMutationOptions, RepoStateStore
store = RepoStateStore(Path(sys.argv[1]), SystemClock())
for number in itertools.count():
    store.enable(f"{sys.argv[2]}-{number}")
    print(f"{sys.argv[2]}-{number}", flush=True)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_instance(tmp_path / "instance")


@pytest.fixture
def store(root: Path) -> RepoStateStore:
    return RepoStateStore(root, FakeClock())


def written(store: RepoStateStore, raw: bytes) -> bytes:
    store.path.parent.mkdir(parents=True, exist_ok=True)
    store.path.write_bytes(raw)
    return raw


def file_names(store: RepoStateStore) -> list[str]:
    return sorted(path.name for path in store.path.parent.iterdir())


def test_reading_makes_nothing(store: RepoStateStore, root: Path) -> None:
    assert store.get().plugins.enabled == ()
    assert not (root / ".rawr").exists()


def test_a_change_is_on_disk_byte_for_byte(store: RepoStateStore, root: Path) -> None:
    state = store.enable(" web-b ")
    store.enable("web-a")
    assert state.plugins.enabled == ("web-b",)
    assert store.path == root / ".rawr" / "state" / "state.json"
    assert store.path.read_bytes() == (
        b'{\n  "version": 1,\n  "plugins": {\n    "enabled": [\n      "web-a",\n      "web-b"\n    ],\n'
        b'    "lastUpdatedAt": "2026-01-01T00:00:00.000Z"\n  }\n}\n'
    )
    assert file_names(store) == ["state.flock", "state.holder", "state.journal", "state.json"]


def test_disabling_and_enabling_again(store: RepoStateStore) -> None:
    store.enable("web")
    assert store.disable("web").plugins.disabled == ("web",)
    assert store.get().plugins.enabled == ()
    assert store.enable("web").plugins.disabled == ()
    assert b"disabled" not in store.path.read_bytes()


@pytest.mark.parametrize(
    "raw",
    [b"", b"\x00" * 300, b'{"version":1,"plugins":{"enabled":["a","b","c"', b'{"version":1,"plugins":{"enabled":[1]}}'],
)
def test_a_corrupt_file_is_an_error_and_survives_byte_for_byte(store: RepoStateStore, raw: bytes) -> None:
    written(store, raw)
    for action in (store.get, lambda: store.enable("d"), lambda: store.disable("d")):
        with pytest.raises(CorruptFileError, match=r"state\.json \(\d+ bytes\)"):
            action()
    assert store.path.read_bytes() == raw


def test_a_file_of_version_2_is_refused_and_survives(store: RepoStateStore) -> None:
    raw = written(store, b'{"version":2,"plugins":{"enabled":["a"]}}')
    with pytest.raises(StateVersionError, match="version 2"):
        store.enable("b")
    assert store.path.read_bytes() == raw


def test_unknown_keys_survive_on_disk(store: RepoStateStore) -> None:
    written(store, b'{"theirs":[1,{"x":"y"}],"version":1,"plugins":{"enabled":["a"],"lastUpdatedAt":"x","more":null}}')
    store.enable("b")
    assert store.path.read_bytes().count(b'"theirs"') == 1
    assert b'"more": null' in store.path.read_bytes()


def test_a_directory_in_place_of_the_file_is_an_error(store: RepoStateStore) -> None:
    store.path.mkdir(parents=True)
    with pytest.raises(StorageIsDirectoryError):
        store.get()
    with pytest.raises(StorageIsDirectoryError):
        store.enable("a")


def test_what_is_no_plugin_id_changes_nothing(store: RepoStateStore) -> None:
    for bad in ("", "   ", "x" * 215):
        with pytest.raises(BadInputError):
            store.enable(bad)
    assert not store.path.exists()


def test_an_alias_of_the_instance_is_the_same_authority(store: RepoStateStore, tmp_path: Path) -> None:
    alias = tmp_path / "alias"
    alias.symlink_to(store.root)
    by_alias = RepoStateStore(alias, FakeClock())
    assert by_alias.path == store.path
    by_alias.enable("a")
    alias.unlink()
    by_alias.enable("b")
    assert store.get().plugins.enabled == ("a", "b")


def test_a_linked_state_file_stays_a_link_and_a_closed_one_stays_closed(store: RepoStateStore, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_bytes(b'{"version":1,"plugins":{"enabled":["a"],"lastUpdatedAt":"x"}}')
    elsewhere.chmod(0o600)
    store.path.parent.mkdir(parents=True)
    store.path.symlink_to(elsewhere)
    store.enable("b")
    assert store.path.is_symlink()
    assert elsewhere.stat().st_mode & 0o777 == 0o600
    assert b'"b"' in elsewhere.read_bytes()


def test_a_busy_lock_times_out_and_readers_do_not_care(root: Path) -> None:
    store = RepoStateStore(root, FakeClock(), options=RepoStateMutationOptions(lock_timeout_ms=50))
    store.enable("a")
    with FileLock(store.files.kernel_lock).acquire(0):
        assert store.get().plugins.enabled == ("a",)
        with pytest.raises(
            StateLockTimeoutError, match=r"Timed out waiting for repo state lock: .*state\.lock: held by"
        ) as caught:
            store.enable("b")
    assert caught.value.code == "STATE_LOCK_TIMEOUT"
    assert store.enable("c").plugins.enabled == ("a", "c")


def test_sixteen_processes_that_enable_one_plugin_each_are_all_there(store: RepoStateStore) -> None:
    names = [f"plugin-{number:02}" for number in range(16)]
    command = [sys.executable, "-c", ENABLE_ONE, str(store.root)]
    processes = [subprocess.Popen([*command, name]) for name in names]
    assert [process.wait(60) for process in processes] == [0] * 16
    assert list(store.get().plugins.enabled) == names


def test_forty_threads_that_enable_one_plugin_each_are_all_there(store: RepoStateStore) -> None:
    names = [f"plugin-{number:02}" for number in range(40)]
    threads = [threading.Thread(target=store.enable, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert list(store.get().plugins.enabled) == names


def test_coroutines_go_through_one_door(store: RepoStateStore) -> None:
    async def main() -> tuple[str, ...]:
        state = AsyncRepoState(store)
        await asyncio.gather(*(state.enable(f"p{number}") for number in range(8)))
        await state.disable("p0")
        return (await state.get()).plugins.enabled

    assert asyncio.run(main()) == tuple(f"p{number}" for number in range(1, 8))


def test_every_acknowledged_plugin_survives_the_killing_of_its_writer(store: RepoStateStore) -> None:
    acknowledged: set[str] = set()
    for attempt in range(5):
        command = [sys.executable, "-c", ENABLE_MANY, str(store.root), f"round-{attempt}"]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        for _ in range(1 + 5 * attempt):
            acknowledged.add(writer.stdout.readline().strip())
        writer.kill()
        rest = writer.stdout.read()  # communicate() would skip what readline() has read ahead
        writer.communicate()
        acknowledged.update(line.strip() for line in rest.splitlines(keepends=True) if line.endswith("\n"))
        assert acknowledged <= set(store.get().plugins.enabled)
        store.enable("the next one")  # at once: a dead process holds no lock
        assert [name for name in file_names(store) if name.endswith((".tmp", ".lock"))] == []
