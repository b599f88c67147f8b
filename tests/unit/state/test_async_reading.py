"""Reading the state from coroutines: never old, and not read again while nothing has changed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.faults.calls import counted

from rawr.errors import StorageError
from rawr.state import RepoStateStore
from rawr.state.aio import AsyncRepoState
from rawr.state.model import StateCorruptError


def test_every_change_is_seen_at_once_however_quickly_they_follow(tmp_path: Path) -> None:
    writer, reader = RepoStateStore(tmp_path), AsyncRepoState(RepoStateStore(tmp_path))

    async def check() -> None:
        for number in range(300):
            plugin = f"{number % 2}"  # of the same size, on inodes that are used again
            writer.enable(plugin)
            writer.disable(f"{1 - number % 2}")
            assert (await reader.get()).plugins.enabled == (plugin,)
            assert (await reader.get()).plugins.enabled == (plugin,)

    asyncio.run(check())


def test_what_has_not_changed_for_a_while_is_not_opened_again(tmp_path: Path) -> None:
    RepoStateStore(tmp_path).enable("a")
    reader = AsyncRepoState(RepoStateStore(tmp_path))

    async def check() -> None:
        before = await reader.get()
        for _ in range(2000):  # until the last change is long enough ago
            if await opens() == 0:
                break
            await asyncio.sleep(0.01)
        assert await reader.get() is await reader.get()
        RepoStateStore(tmp_path).enable("b")
        await asyncio.sleep(0)  # within one turn of the event loop the file is looked at once
        assert before.plugins.enabled == ("a",)
        assert (await reader.get()).plugins.enabled == ("a", "b")

    async def opens() -> int:
        with counted(lambda number, name, call: call()) as calls:
            await reader.get()
        return calls.count("open")

    asyncio.run(asyncio.wait_for(check(), 60))


def test_what_cannot_be_read_is_said_each_time(tmp_path: Path) -> None:
    store = RepoStateStore(tmp_path)
    store.enable("a")
    reader = AsyncRepoState(RepoStateStore(tmp_path))

    async def check() -> None:
        await reader.get()
        store.path.write_bytes(b"{")
        for _ in range(3):
            with pytest.raises(StateCorruptError):
                await reader.get()
        store.path.unlink()
        assert (await reader.get()).plugins.enabled == ()
        store.path.mkdir()
        with pytest.raises(StorageError):
            await reader.get()

    asyncio.run(check())
