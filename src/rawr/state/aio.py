"""The repo state for coroutines. Nothing here blocks the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from typing import Final

from rawr.state.commit import Operation
from rawr.state.line import Ticket
from rawr.state.model import RepoState
from rawr.state.store import (
    Mutator,
    RepoStateMutationOptions,
    RepoStateMutationResult,
    RepoStateStore,
    disabling,
    enabling,
    mutating,
    setting,
)
from rawr.storage.looks import FileLooks, Looks, looks_of

# When a file changed is known in steps of some milliseconds. Two changes within one step look alike, so what has just
# changed is read again until it has not.
_SETTLED_NS: Final = 100_000_000


class AsyncRepoState:
    """`store` for coroutines. Changes are made on a thread that lives while there are any.

    A coroutine that is cancelled while it waits takes its change back, unless it is just being committed.
    """

    def __init__(self, store: RepoStateStore) -> None:
        self._store = store
        self._door = threading.Lock()
        self._queue: deque[Ticket] = deque()
        self._has_thread = False
        self._looks = FileLooks(store.path)
        self._kept: tuple[Looks, RepoState] | None = None

    def kept(self) -> RepoState | None:
        """What `get` gave the last time, when the file has not changed since; the same object."""
        kept = self._kept
        return kept[1] if kept is not None and kept[0] == self._looks.now() else None

    async def get(self) -> RepoState:
        """As `RepoStateStore.get`. A file that has not changed since is looked at and not read again."""
        kept = self.kept()
        return await asyncio.to_thread(self._read) if kept is None else kept

    async def enable(self, plugin_id: str) -> RepoState:
        return (await self._change(enabling(plugin_id))).state

    async def disable(self, plugin_id: str) -> RepoState:
        return (await self._change(disabling(plugin_id))).state

    async def set(self, state: RepoState) -> RepoStateMutationResult:
        return await self._change(setting(state))

    async def mutate(
        self, mutator: Mutator, options: RepoStateMutationOptions | None = None
    ) -> RepoStateMutationResult:
        """As `RepoStateStore.mutate`; `mutator` is a plain function and runs on another thread."""
        return await self._change(mutating(mutator), options)

    def _read(self) -> RepoState:
        looks = looks_of(self._store.path)
        state = self._store.get()
        if looks is not None and looks == looks_of(self._store.path) and time.time_ns() - looks[3] > _SETTLED_NS:
            self._kept = looks, state
        return state

    async def _change(
        self, operation: Operation, options: RepoStateMutationOptions | None = None
    ) -> RepoStateMutationResult:
        loop = asyncio.get_running_loop()
        answered = asyncio.Event()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # that loop has been closed: nobody is left to be told
                loop.call_soon_threadsafe(answered.set)

        ticket = self._store.join(operation, options, tell)
        self._attend(ticket)
        try:
            await answered.wait()
        except asyncio.CancelledError:
            await asyncio.shield(asyncio.to_thread(self._store.leave, ticket))
            raise
        return self._store.wait(ticket)  # does not wait any more

    def _attend(self, ticket: Ticket) -> None:
        with self._door:
            self._queue.append(ticket)
            if self._has_thread:
                return
            self._has_thread = True
        threading.Thread(target=self._lead_all, name="rawr-state").start()

    def _lead_all(self) -> None:
        while True:
            with self._door:
                if not self._queue:
                    self._has_thread = False
                    return
                ticket = self._queue.popleft()
            self._store.attend(ticket)
