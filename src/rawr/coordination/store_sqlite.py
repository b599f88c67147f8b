"""Workflows, runs, timelines and desk memory in one SQLite file. It decides nothing: `lifecycle` and `store_rules` do.

What is written in one transaction is in `store_units`, the tables in `store_schema`, their rows in `store_rows`.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Final, Self

import msgspec

from rawr.clock import Clock, SystemClock
from rawr.coordination import store_rules
from rawr.coordination import store_units as units
from rawr.coordination.forks import Fork
from rawr.coordination.lifecycle import Fact
from rawr.coordination.model import (
    FinishedHookState,
    MemoryKey,
    MemoryRecord,
    Run,
    RunStatus,
    TimelineEvent,
    TraceLink,
    Workflow,
)
from rawr.coordination.ports import CreatedRun, DeskResult, FinishedEffect
from rawr.coordination.store_rows import SELECT_RUN, list_of, memory_key, run_of, timeline_event
from rawr.coordination.store_rules import to_json
from rawr.coordination.store_schema import MIGRATIONS
from rawr.ids import DeskId, RunId, WorkflowId
from rawr.storage.answers import Answers
from rawr.storage.snapshots import snapshot
from rawr.storage.sqlite import Connection, Database, SqlValue
from rawr.wire import JsonValue, encode

_log: Final = logging.getLogger(__name__)

_NEWEST_WORKFLOWS: Final = (
    "SELECT document FROM workflow AS w WHERE version = "
    "(SELECT max(version) FROM workflow WHERE workflow_id = w.workflow_id) ORDER BY workflow_id"
)
_TIMELINE: Final = (
    "SELECT document FROM event JOIN run ON run.number = event.run_number WHERE run_id = ? AND seq >= ? ORDER BY seq"
)


class SqliteCoordinationStore:
    """The store of one instance on `.rawr/coordination.sqlite`. Opening it blocks: it creates and migrates."""

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._database = Database(path, MIGRATIONS)
        self._answers = Answers(self._database)

    async def save_workflow(self, workflow: Workflow) -> None:
        document = to_json(store_rules.stamped(workflow, now_ms=self._clock.now_ms()))
        await self._database.write(lambda connection: units.save_workflow(connection, workflow, document))

    async def get_workflow(self, workflow_id: WorkflowId, version: int | None = None) -> Workflow | None:
        return await self._database.read(lambda connection: units.workflow_of(connection, workflow_id, version))

    async def list_workflows(self) -> list[Workflow]:
        rows = await self._database.read(lambda connection: connection.execute(_NEWEST_WORKFLOWS))
        return [msgspec.json.decode(document, type=Workflow) for (document,) in rows]

    async def workflows_json(self) -> bytes:
        found = await self._answers.of("workflows", lambda connection: list_of(connection.execute(_NEWEST_WORKFLOWS)))
        assert found is not None, "no workflows are an empty list"
        return found

    async def create_run(
        self, run: Run, fact: Fact, fork: Fork | None = None, *, newest: Workflow | None = None
    ) -> CreatedRun:
        return await self._database.write(lambda connection: units.create_run(connection, run, fact, fork, newest))

    async def fork(self, run_id: RunId) -> Fork | None:
        row = await self._database.read(
            lambda connection: connection.one(
                "SELECT fork FROM run_fork JOIN run ON run.number = run_number WHERE run_id = ?", (run_id,)
            )
        )
        return None if row is None else msgspec.json.decode(row[0], type=Fork)

    async def withdraw(self, run_id: RunId, fact: Fact) -> Run:
        def unit(connection: Connection) -> Run:
            before = connection.one("SELECT last_seq FROM run WHERE run_id = ?", (run_id,))
            run = units.record(connection, run_id, fact)
            connection.execute(
                "UPDATE run SET dispatched = 0 WHERE run_id = ? AND last_seq > ?", (run_id, before[0] if before else 0)
            )
            return run

        return await self._database.write(unit)

    async def mark_dispatched(self, run: Run, *, trace_link: TraceLink | None = None) -> Run:
        return await self._database.write(lambda connection: units.mark_dispatched(connection, run, trace_link))

    def note_dispatched(self, run: Run) -> None:
        noted = self._database.write_soon(lambda connection: units.mark_dispatched(connection, run, None))
        noted.add_done_callback(partial(_say_if_lost, run.run_id))

    async def undispatched_runs(self, limit: int) -> list[Run]:
        return await self._runs("WHERE dispatched = 0 AND status = 'queued' ORDER BY number LIMIT ?", max(limit, 0))

    async def unfinished_runs(self, limit: int, *, after: RunId | None = None) -> list[Run]:
        return await self._runs(
            "WHERE status IN ('queued', 'running') AND number > coalesce((SELECT number FROM run WHERE run_id = ?), 0) "
            "ORDER BY number LIMIT ?",
            after,
            max(limit, 0),
        )

    async def record(self, run_id: RunId, fact: Fact) -> Run:
        return await self._database.write(lambda connection: units.record(connection, run_id, fact))

    async def get_run(self, run_id: RunId) -> Run | None:
        runs = await self._runs("WHERE run_id = ?", run_id)
        return runs[0] if runs else None

    async def run_json(self, run_id: RunId) -> bytes | None:
        def unit(connection: Connection) -> bytes | None:
            row = connection.one(SELECT_RUN + "WHERE run_id = ?", (run_id,))
            return None if row is None else encode(run_of(row))

        return await self._answers.of(("run", run_id), unit)

    async def list_runs(self, *, limit: int, workflow_id: WorkflowId | None = None) -> list[Run]:
        if workflow_id is None:
            return await self._runs("ORDER BY number DESC LIMIT ?", max(limit, 0))
        return await self._runs("WHERE workflow_id = ? ORDER BY number DESC LIMIT ?", workflow_id, max(limit, 0))

    async def timeline(self, run_id: RunId, *, from_seq: int = 1) -> list[TimelineEvent]:
        rows = await self._database.read(lambda connection: connection.execute(_TIMELINE, (run_id, from_seq)))
        return [timeline_event(document) for (document,) in rows]

    async def timeline_json(self, run_id: RunId) -> bytes | None:
        def unit(connection: Connection) -> bytes | None:
            rows = connection.execute(_TIMELINE, (run_id, 1))
            return list_of(rows) if rows else None  # a run has a first event from its creation on

        return await self._answers.of(("timeline", run_id), unit)

    async def desk_result(self, run_id: RunId, desk_id: DeskId) -> DeskResult | None:
        row = await self._database.read(
            lambda connection: connection.one(
                "SELECT document FROM event JOIN run ON run.number = event.run_number "
                "WHERE run_id = ? AND desk_id = ? AND type = 'desk.completed' ORDER BY seq LIMIT 1",
                (run_id, desk_id),
            )
        )
        if row is None:
            return None
        output = timeline_event(row[0]).output
        return DeskResult(output=None if output is msgspec.UNSET else output)

    async def get_memory(self, at: MemoryKey, *, now_ms: int) -> MemoryRecord | None:
        row = await self._database.read(
            lambda connection: connection.one(
                "SELECT data, updated_at, expires_at_ms FROM memory WHERE workflow_id = ? AND workflow_version = ? "
                "AND desk_id = ? AND namespace = ? AND key = ? AND (expires_at_ms IS NULL OR expires_at_ms > ?)",
                (*memory_key(at), now_ms),
            )
        )
        if row is None:
            return None
        data, updated_at, expires_at_ms = row
        return MemoryRecord(at=at, data=msgspec.json.decode(data), updated_at=updated_at, expires_at_ms=expires_at_ms)

    async def begin_finished_hook(self, run_id: RunId) -> int:
        def unit(connection: Connection) -> int:
            row = connection.one(
                "UPDATE run_finalization SET deliveries = deliveries + 1 "
                "WHERE run_number = (SELECT number FROM run WHERE run_id = ?) RETURNING deliveries",
                (run_id,),
            )
            if row is None:
                raise store_rules.run_not_found(run_id)
            return int(row[0])

        return await self._database.write(unit)

    async def record_finished_hook(self, run_id: RunId, state: FinishedHookState) -> Run:
        return await self._database.write(lambda connection: units.record_finished_hook(connection, run_id, state))

    async def unheard_runs(self, limit: int) -> list[Run]:
        return await self._runs(
            "WHERE dispatched = 0 AND status = 'failed' AND contract IS NOT NULL AND finished_hook IS NULL "
            "ORDER BY number LIMIT ?",
            max(limit, 0),
        )

    async def finished_effect(self, run_id: RunId, key: str) -> FinishedEffect | None:
        return await self._database.read(lambda connection: units.finished_effect(connection, run_id, key))

    async def record_finished_effect(self, run_id: RunId, key: str, result: JsonValue) -> FinishedEffect:
        document = to_json(result)

        def unit(connection: Connection) -> FinishedEffect:
            connection.execute(
                "INSERT INTO finished_effect (run_number, key, result) SELECT number, ?, ? FROM run "
                "WHERE run_id = ? ON CONFLICT DO NOTHING",
                (key, document, run_id),
            )
            kept = units.finished_effect(connection, run_id, key)
            if kept is None:
                raise store_rules.run_not_found(run_id)
            return kept

        return await self._database.write(unit)

    async def count_runs(self) -> dict[RunStatus, int]:
        rows = await self._database.read(
            lambda connection: connection.execute("SELECT status, count(*) FROM run GROUP BY status")
        )
        counts: dict[str, int] = dict(rows)
        return {status: counts.get(status.value, 0) for status in RunStatus}

    def close(self) -> None:
        """Finish what was accepted and close the file."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _runs(self, tail: str, *params: SqlValue) -> list[Run]:
        rows = await self._database.read(lambda connection: connection.execute(SELECT_RUN + tail, params))
        return [run_of(row) for row in rows]


def stored_workflow(path: Path, workflow_id: WorkflowId, version: int | None = None) -> Workflow | None:
    """The given version, or the newest one, of a workflow in the store at `path`, which is not opened as one.

    Blocks, and changes nothing.
    """
    with snapshot(path) as connection:
        return units.workflow_of(connection, workflow_id, version)


def _say_if_lost(run_id: RunId, noted: Future[Run]) -> None:
    if (error := noted.exception()) is not None:
        _log.warning("run %s was handed over, and will be again at the next start: %s", run_id, error)
