"""An engine's file as commands use it: beside engines that work on it, or without any.

Nothing works in here. What is changed is changed by the engine's own transitions, one transaction each; engines that
work on the file notice by its version.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec

from rawr.clock import Clock
from rawr.execution.embedded import listing, overview
from rawr.execution.embedded.durations import inngest_backoff
from rawr.execution.embedded.history import EngineRunNotFoundError
from rawr.execution.embedded.ingestion import new_events
from rawr.execution.embedded.listing import EventRow, RunDetail, RunRow, RunsWanted
from rawr.execution.embedded.model import Forgotten, RunFilter
from rawr.execution.embedded.overview import Ahead, Overview, Worker
from rawr.execution.embedded.owners import SlotLock
from rawr.execution.embedded.store import EngineStore
from rawr.execution.ports import OutgoingEvent
from rawr.storage.sqlite import Connection


class EngineAdmin:
    """`run_dir` holds the locks that tell which engines live."""

    def __init__(self, database: Path, run_dir: Path, clock: Clock) -> None:
        """Opens the file, which is made when there is none.

        Raises:
            EngineFileDamagedError, StorageError
        """
        self._store = EngineStore(database, clock=clock, backoff=inngest_backoff(lambda: 0))
        self._slots = SlotLock(run_dir)
        self._clock = clock

    def close(self) -> None:
        self._store.close()

    def data_version(self) -> int:
        """A number that changes with every change of the file."""
        return self._store.data_version()

    async def overview(self) -> Overview:
        now_ms = self._clock.now_ms()
        found = await self._store.read(lambda connection: overview.overview(connection, now_ms))
        return msgspec.structs.replace(found, workers=await self._known_to_live(found.workers))

    async def ahead(self) -> Ahead:
        now_ms = self._clock.now_ms()
        return await self._store.read(lambda connection: overview.ahead(connection, now_ms))

    async def runs(self, wanted: RunsWanted) -> list[RunRow]:
        """Newest first."""
        return await self._store.read(lambda connection: listing.runs(connection, wanted))

    async def run(self, given: str) -> RunDetail:
        """The run with this id, or the newest one that the event with this id has started.

        Raises:
            EngineRunNotFoundError
        """

        def question(connection: Connection) -> RunDetail | None:
            ids = listing.run_ids_of(connection, given)
            return listing.run_detail(connection, ids[0]) if ids else None

        found = await self._store.read(question)
        if found is None:
            raise EngineRunNotFoundError(f"the engine knows no run {given}", fix="rawr engine runs")
        return found

    async def events(self, *, name: str | None, before: str | None, limit: int) -> list[EventRow]:
        """Newest first."""
        return await self._store.read(
            lambda connection: listing.events(connection, name=name, before=before, limit=limit)
        )

    async def send(self, event: OutgoingEvent) -> str:
        """Durably accept an event; its ULID. Its runs begin when an engine works that has their functions.

        Raises:
            EventRefusedError, NotCanonicalError
        """
        accepted = new_events([event], new_ulid=self._store.new_ulid, now_ms=self._clock.now_ms())
        is_served = any(worker.is_alive for worker in (await self.overview()).workers)
        await self._store.accept(accepted, route_now=is_served)
        return accepted[0].ulid

    async def runs_of_event(self, ulid: str) -> tuple[str, ...]:
        return await self._store.read(lambda connection: listing.runs_of_event(connection, ulid))

    async def is_routed(self, ulid: str) -> bool:
        """Whether the event has started the runs that it starts at once; also when it is forgotten already."""
        return await self._store.read(lambda connection: listing.is_routed(connection, ulid))

    async def cancel(self, given: str, reason: str) -> tuple[str, bool]:
        """End a run, by its id or that of its event; its id, and whether it had not ended before.

        Raises:
            EngineRunNotFoundError
        """
        run_id = (await self.run(given)).run.run_id
        return run_id, await self._store.cancel(run_id, reason)

    async def matching(self, which: RunFilter) -> int:
        """How many runs `cancel_where` would end now. Raises ExpressionInvalidError."""
        return await self._store.matching(which)

    async def cancel_where(self, which: RunFilter) -> list[str]:
        """End all runs that fit, and only those queued before this began; their ids. Raises ExpressionInvalidError."""
        return await self._store.cancel_where(which)

    async def cancel_all(self, reason: str) -> list[str]:
        """End every run that has not ended, of all functions; their ids.

        Events that are being gathered become runs first, so that each is heard of.
        """
        await self._store.end_gatherings()
        functions = await self._store.read(listing.functions_with_open_runs)
        return [
            run_id
            for fn_id in functions
            for run_id in await self._store.cancel_where(RunFilter(fn_id=fn_id, reason=reason))
        ]

    async def ended_before(self, before_ms: int) -> int:
        """How many runs `forget_old` would remove now."""
        return await self._store.read(lambda connection: listing.ended_before(connection, before_ms))

    async def forget_old(self, before_ms: int) -> tuple[Forgotten, bool]:
        """Remove the runs that ended before this time, and the events before it that no run is about; and whether some
        engine works with the file.
        """
        forgotten = await self._store.forget(before_ms)
        return forgotten, any(worker.is_alive for worker in (await self.overview()).workers)

    async def _known_to_live(self, workers: Sequence[Worker]) -> tuple[Worker, ...]:
        dead = set(await self._slots.dead({worker.owner: worker.slot for worker in workers}))
        return tuple(
            [
                msgspec.structs.replace(
                    worker,
                    is_alive=worker.owner not in dead,
                    pids=() if worker.owner in dead else await asyncio.to_thread(self._slots.pids, worker.slot),
                )
                for worker in workers
            ]
        )
