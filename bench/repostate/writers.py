"""Who takes part: our state, and what it is compared with. Each adds plugin ids to the state of one folder, durably.

`naive` is what one writes first: a lock that is asked for every 50 ms, as the filelock package does unless told
otherwise, around reading the JSON, adding the id, writing another file, fsync and rename. It does not flush the
directory and keeps no history, so it promises less than we do; `naive, flushed` flushes the directory too, so that
a change is on disk when the call returns, as ours. `sqlite` is a table in WAL mode with synchronous=FULL, one BEGIN
IMMEDIATE per change. Only `naive` has a bar; the last two are there to be looked at.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import apsw
import msgspec

from rawr.state import RepoState, RepoStateMutationOptions, RepoStateStore

POLL_S: Final = 0.05
PATIENT: Final = RepoStateMutationOptions(lock_timeout_ms=120_000)
"""A timeout would say something about the machine's load, and end the benchmark."""
Add = Callable[[str], object]


class Writer(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    prepare: Callable[[Path], None]
    """Makes the folder's empty state, once."""
    open: Callable[[Path], Add]
    """Called in each process; gives what adds an id."""
    found: Callable[[Path], set[str]]
    """The ids that are there in the end."""


def enabling(root: Path) -> Add:
    return RepoStateStore(root, options=PATIENT).enable


def mutating(root: Path) -> Add:
    store = RepoStateStore(root, options=PATIENT)
    return lambda plugin_id: store.mutate(lambda state: with_id(state, plugin_id))


def with_id(state: RepoState, plugin_id: str) -> RepoState:
    enabled = (*state.plugins.enabled, plugin_id)
    return msgspec.structs.replace(state, plugins=msgspec.structs.replace(state.plugins, enabled=enabled))


def without_id(state: RepoState, plugin_id: str) -> RepoState:
    enabled = tuple(one for one in state.plugins.enabled if one != plugin_id)
    return msgspec.structs.replace(state, plugins=msgspec.structs.replace(state.plugins, enabled=enabled))


def replace_durably(path: Path, data: bytes, *, flush_folder: bool) -> None:
    """The least that an atomic, durable replacement takes: write, fsync, rename, and the fsync of the directory."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(descriptor, data)
    os.fsync(descriptor)
    os.close(descriptor)
    temporary.replace(path)
    if flush_folder:
        descriptor = os.open(path.parent, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def _naive_prepared(root: Path) -> None:
    (root / "state.json").write_text('{"enabled": []}')


def _naive(root: Path, *, flush_folder: bool = False) -> Add:
    path = root / "state.json"

    def add(plugin_id: str) -> None:
        descriptor = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        while not _is_locked(descriptor):
            time.sleep(POLL_S)
        state = json.loads(path.read_text())
        state["enabled"] = sorted({*state["enabled"], plugin_id})
        replace_durably(path, json.dumps(state, indent=2).encode(), flush_folder=flush_folder)
        os.close(descriptor)

    return add


def _is_locked(descriptor: int) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _sqlite_open(root: Path) -> apsw.Connection:
    connection = apsw.Connection(str(root / "state.db"))
    connection.set_busy_timeout(120_000)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def _sqlite_prepared(root: Path) -> None:
    connection = _sqlite_open(root)
    connection.execute("CREATE TABLE enabled (id TEXT PRIMARY KEY)")
    connection.close()


def _sqlite(root: Path) -> Add:
    connection = _sqlite_open(root)

    def add(plugin_id: str) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT OR IGNORE INTO enabled VALUES (?)", (plugin_id,))
        connection.execute("COMMIT")

    return add


def _in_sqlite(root: Path) -> set[str]:
    return {str(row[0]) for row in _sqlite_open(root).execute("SELECT id FROM enabled")}


def _in_naive(root: Path) -> set[str]:
    return set(json.loads((root / "state.json").read_text())["enabled"])


def _in_ours(root: Path) -> set[str]:
    return set(RepoStateStore(root).get().plugins.enabled)


def _ours_prepared(root: Path) -> None:
    store = RepoStateStore(root)
    store.set(store.get())


WRITERS: Final = (
    Writer(name="enable", prepare=_ours_prepared, open=enabling, found=_in_ours),
    Writer(name="mutate", prepare=_ours_prepared, open=mutating, found=_in_ours),
    Writer(name="naive", prepare=_naive_prepared, open=_naive, found=_in_naive),
    Writer(name="naive, flushed", prepare=_naive_prepared, open=partial(_naive, flush_folder=True), found=_in_naive),
    Writer(name="sqlite", prepare=_sqlite_prepared, open=_sqlite, found=_in_sqlite),
)
