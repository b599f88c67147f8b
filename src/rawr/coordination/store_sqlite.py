"""Workflows, runs, timelines and desk memory in one SQLite file. It decides nothing: `lifecycle` and `store_rules` do.

A run and the event that changed it are written in one transaction. The run's row carries the number of its last
event, so that appending costs the same however long the timeline is. Payloads are JSON text, kept as given.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Final, Self, TypeVar

import msgspec

from rawr.clock import Clock, SystemClock
from rawr.coordination import store_rules
from rawr.coordination.forks import Fork
from rawr.coordination.lifecycle import Fact, advance, event_id, event_of, finished, links_when_dispatched
from rawr.coordination.model import (
    Finalization,
    FinalizationContract,
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
from rawr.coordination.store_rules import Save, to_json
from rawr.ids import DeskId, RunId, WorkflowId
from rawr.storage.answers import Answers
from rawr.storage.sqlite import Connection, Database, Migration, Row, SqlValue, snapshot
from rawr.wire import JsonValue

T = TypeVar("T")
_log: Final = logging.getLogger(__name__)

MIGRATIONS: Final = (
    Migration(
        name="workflows, runs, timelines and memory",
        sql="""
CREATE TABLE workflow (
  workflow_id TEXT NOT NULL,
  version INTEGER NOT NULL,
  document TEXT NOT NULL,
  PRIMARY KEY (workflow_id, version)
) STRICT;

CREATE TABLE run (
  number INTEGER PRIMARY KEY,  -- in the order of creation
  run_id TEXT NOT NULL UNIQUE,
  workflow_id TEXT NOT NULL,
  workflow_version INTEGER NOT NULL,
  status TEXT NOT NULL,
  last_seq INTEGER NOT NULL,
  dispatched INTEGER NOT NULL DEFAULT 0,
  started_at TEXT NOT NULL,
  finished_at TEXT,
  output TEXT,
  error TEXT,
  trace_links TEXT NOT NULL
) STRICT;
CREATE INDEX run_of_workflow ON run (workflow_id);
CREATE INDEX run_of_version ON run (workflow_id, workflow_version);
CREATE INDEX run_by_status ON run (status);
CREATE INDEX run_undispatched ON run (number) WHERE dispatched = 0 AND status = 'queued';

-- Apart from the run, whose row is written anew with each event.
CREATE TABLE run_input (
  run_number INTEGER PRIMARY KEY REFERENCES run (number),
  input TEXT NOT NULL
) STRICT;

CREATE TABLE event (
  run_number INTEGER NOT NULL REFERENCES run (number),
  seq INTEGER NOT NULL,
  event_id TEXT NOT NULL,
  type TEXT NOT NULL,
  desk_id TEXT,
  document TEXT NOT NULL,
  PRIMARY KEY (run_number, seq),
  UNIQUE (run_number, event_id)
) STRICT;
CREATE INDEX event_desk_completed ON event (run_number, desk_id, seq) WHERE type = 'desk.completed';

CREATE TABLE memory (
  workflow_id TEXT NOT NULL,
  workflow_version INTEGER NOT NULL,
  desk_id TEXT NOT NULL,
  namespace TEXT NOT NULL,
  key TEXT NOT NULL,
  data TEXT NOT NULL,
  updated_at TEXT NOT NULL,
  expires_at_ms INTEGER,
  PRIMARY KEY (workflow_id, workflow_version, desk_id, namespace, key)
) STRICT;
""",
    ),
    Migration(
        name="finished hooks",
        sql="""
-- Apart from the run, as its input is. Runs from before have no row, and no hook hears of them.
CREATE TABLE run_finalization (
  run_number INTEGER PRIMARY KEY REFERENCES run (number),
  contract TEXT NOT NULL,
  deliveries INTEGER NOT NULL DEFAULT 0,
  finished_hook TEXT
) STRICT;
CREATE INDEX run_never_taken ON run (number) WHERE dispatched = 0 AND status = 'failed';

CREATE TABLE finished_effect (
  run_number INTEGER NOT NULL REFERENCES run (number),
  key TEXT NOT NULL,
  result TEXT NOT NULL,
  PRIMARY KEY (run_number, key)
) STRICT, WITHOUT ROWID;
""",
    ),
    Migration(
        name="runs that repeat others",
        sql="""
-- Which run it repeats, what is kept of that, and what is given in place of what was.
CREATE TABLE run_fork (
  run_number INTEGER PRIMARY KEY REFERENCES run (number),
  fork TEXT NOT NULL
) STRICT;
""",
    ),
)

_NEWEST_WORKFLOWS: Final = (
    "SELECT document FROM workflow AS w WHERE version = "
    "(SELECT max(version) FROM workflow WHERE workflow_id = w.workflow_id) ORDER BY workflow_id"
)
_TIMELINE: Final = (
    "SELECT document FROM event JOIN run ON run.number = event.run_number WHERE run_id = ? AND seq >= ? ORDER BY seq"
)
_SELECT_RUN: Final = """
SELECT number, last_seq, run_id, workflow_id, workflow_version, status, started_at, finished_at, run_input.input,
  output, error, trace_links, run_finalization.contract, run_finalization.finished_hook
FROM run LEFT JOIN run_input ON run_input.run_number = run.number
  LEFT JOIN run_finalization ON run_finalization.run_number = run.number
"""


class SqliteCoordinationStore:
    """The store of one instance on `.rawr/coordination.sqlite`. Opening it blocks: it creates and migrates."""

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._database = Database(path, MIGRATIONS)
        self._answers = Answers(self._database)

    async def save_workflow(self, workflow: Workflow) -> None:
        document = to_json(store_rules.stamped(workflow, now_ms=self._clock.now_ms()))
        await self._database.write(lambda connection: _save_workflow(connection, workflow, document))

    async def get_workflow(self, workflow_id: WorkflowId, version: int | None = None) -> Workflow | None:
        return await self._database.read(lambda connection: _workflow(connection, workflow_id, version))

    async def list_workflows(self) -> list[Workflow]:
        rows = await self._database.read(lambda connection: connection.execute(_NEWEST_WORKFLOWS))
        return [msgspec.json.decode(document, type=Workflow) for (document,) in rows]

    async def workflows_json(self) -> bytes:
        found = await self._answers.of("workflows", lambda connection: _list_of(connection.execute(_NEWEST_WORKFLOWS)))
        assert found is not None, "no workflows are an empty list"
        return found

    async def create_run(
        self, run: Run, fact: Fact, fork: Fork | None = None, *, newest: Workflow | None = None
    ) -> CreatedRun:
        return await self._database.write(lambda connection: _create_run(connection, run, fact, fork, newest))

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
            run = _record(connection, run_id, fact)
            connection.execute(
                "UPDATE run SET dispatched = 0 WHERE run_id = ? AND last_seq > ?", (run_id, before[0] if before else 0)
            )
            return run

        return await self._database.write(unit)

    async def mark_dispatched(self, run: Run, *, trace_link: TraceLink | None = None) -> Run:
        return await self._database.write(lambda connection: _mark_dispatched(connection, run, trace_link))

    def note_dispatched(self, run: Run) -> None:
        noted = self._database.write_soon(lambda connection: _mark_dispatched(connection, run, None))
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
        return await self._database.write(lambda connection: _record(connection, run_id, fact))

    async def get_run(self, run_id: RunId) -> Run | None:
        runs = await self._runs("WHERE run_id = ?", run_id)
        return runs[0] if runs else None

    async def list_runs(self, *, limit: int, workflow_id: WorkflowId | None = None) -> list[Run]:
        if workflow_id is None:
            return await self._runs("ORDER BY number DESC LIMIT ?", max(limit, 0))
        return await self._runs("WHERE workflow_id = ? ORDER BY number DESC LIMIT ?", workflow_id, max(limit, 0))

    async def timeline(self, run_id: RunId, *, from_seq: int = 1) -> list[TimelineEvent]:
        rows = await self._database.read(lambda connection: connection.execute(_TIMELINE, (run_id, from_seq)))
        return [_event(document) for (document,) in rows]

    async def timeline_json(self, run_id: RunId) -> bytes | None:
        def unit(connection: Connection) -> bytes | None:
            rows = connection.execute(_TIMELINE, (run_id, 1))
            return _list_of(rows) if rows else None  # a run has a first event from its creation on

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
        output = _event(row[0]).output
        return DeskResult(output=None if output is msgspec.UNSET else output)

    async def get_memory(self, at: MemoryKey, *, now_ms: int) -> MemoryRecord | None:
        row = await self._database.read(
            lambda connection: connection.one(
                "SELECT data, updated_at, expires_at_ms FROM memory WHERE workflow_id = ? AND workflow_version = ? "
                "AND desk_id = ? AND namespace = ? AND key = ? AND (expires_at_ms IS NULL OR expires_at_ms > ?)",
                (*_memory_key(at), now_ms),
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
        return await self._database.write(lambda connection: _record_finished_hook(connection, run_id, state))

    async def unheard_runs(self, limit: int) -> list[Run]:
        return await self._runs(
            "WHERE dispatched = 0 AND status = 'failed' AND contract IS NOT NULL AND finished_hook IS NULL "
            "ORDER BY number LIMIT ?",
            max(limit, 0),
        )

    async def finished_effect(self, run_id: RunId, key: str) -> FinishedEffect | None:
        return await self._database.read(lambda connection: _finished_effect(connection, run_id, key))

    async def record_finished_effect(self, run_id: RunId, key: str, result: JsonValue) -> FinishedEffect:
        document = to_json(result)

        def unit(connection: Connection) -> FinishedEffect:
            connection.execute(
                "INSERT INTO finished_effect (run_number, key, result) SELECT number, ?, ? FROM run "
                "WHERE run_id = ? ON CONFLICT DO NOTHING",
                (key, document, run_id),
            )
            kept = _finished_effect(connection, run_id, key)
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
        rows = await self._database.read(lambda connection: connection.execute(_SELECT_RUN + tail, params))
        return [_run(row) for row in rows]


def stored_workflow(path: Path, workflow_id: WorkflowId, version: int | None = None) -> Workflow | None:
    """The given version, or the newest one, of a workflow in the store at `path`, which is not opened as one.

    Blocks, and changes nothing.
    """
    with snapshot(path) as connection:
        return _workflow(connection, workflow_id, version)


def _save_workflow(connection: Connection, workflow: Workflow, document: str) -> None:
    newest = _workflow(connection, workflow.workflow_id, None)
    is_used = newest is not None and connection.one(
        "SELECT 1 FROM run WHERE workflow_id = ? AND workflow_version = ? LIMIT 1",
        (newest.workflow_id, newest.version),
    )
    if store_rules.save_decision(workflow, newest, newest_is_used=bool(is_used)) is Save.KEEP:
        return
    connection.execute(
        "INSERT INTO workflow (workflow_id, version, document) VALUES (?, ?, ?) "
        "ON CONFLICT (workflow_id, version) DO UPDATE SET document = excluded.document",
        (workflow.workflow_id, workflow.version, document),
    )


def _workflow(connection: Connection, workflow_id: WorkflowId, version: int | None) -> Workflow | None:
    row = connection.one(
        "SELECT document FROM workflow WHERE workflow_id = ? AND version = coalesce(?, version) "
        "ORDER BY version DESC LIMIT 1",
        (workflow_id, version),
    )
    return None if row is None else msgspec.json.decode(row[0], type=Workflow)


def _create_run(connection: Connection, run: Run, fact: Fact, fork: Fork | None, newest: Workflow | None) -> CreatedRun:
    number = _insert_run(connection, run, newest)
    if number is None:
        existing = connection.one(_SELECT_RUN + "WHERE run_id = ?", (run.run_id,))
        if existing is not None:
            store_rules.check_same_workflow(_run(existing), run.workflow_id)
            return CreatedRun(run=_run(existing), created=False)
        if newest is not None and _workflow(connection, newest.workflow_id, None) != newest:
            raise store_rules.workflow_moved(newest)
        # It says the same and is written in another way: another rawr has stored it.
        return _create_run(connection, run, fact, fork, None)
    if run.input is not msgspec.UNSET:
        connection.execute("INSERT INTO run_input (run_number, input) VALUES (?, ?)", (number, to_json(run.input)))
    if run.finalization is not msgspec.UNSET:
        connection.execute(
            "INSERT INTO run_finalization (run_number, contract, finished_hook) VALUES (?, ?, ?)",
            (number, to_json(run.finalization.contract), _json_or_null(run.finalization.finished_hook)),
        )
    if fork is not None:
        connection.execute("INSERT INTO run_fork (run_number, fork) VALUES (?, ?)", (number, to_json(fork)))
    _insert_event(connection, number, run, fact, seq=1)
    return CreatedRun(run=run, created=True)


def _insert_run(connection: Connection, run: Run, newest: Workflow | None) -> int | None:
    """The number of the new row; None when its id is taken, or `newest` is not stored in these words as the newest."""
    connection.execute(
        "INSERT INTO run (run_id, workflow_id, workflow_version, status, last_seq, started_at, finished_at, output, "
        "error, trace_links) SELECT ?, ?, ?, ?, 1, ?, ?, ?, ?, ? WHERE ? IS NULL "
        "OR (SELECT document FROM workflow WHERE workflow_id = ? ORDER BY version DESC LIMIT 1) = ? "
        "ON CONFLICT (run_id) DO NOTHING",
        (
            run.run_id,
            run.workflow_id,
            run.workflow_version,
            run.status.value,
            run.started_at,
            _text_or_null(run.finished_at),
            _json_or_null(run.output),
            _text_or_null(run.error),
            to_json(run.trace_links),
            document := None if newest is None else to_json(newest),
            run.workflow_id,
            document,
        ),
    )
    return connection.last_row_id if connection.changes else None


def _mark_dispatched(connection: Connection, run: Run, trace_link: TraceLink | None) -> Run:
    marked = connection.one("UPDATE run SET dispatched = 1 WHERE run_id = ? RETURNING number, last_seq", (run.run_id,))
    if marked is None:
        raise store_rules.run_not_found(run.run_id)
    if marked[1] == 1 and trace_link is None:
        return run  # nothing has happened to it since it was created
    row = connection.one(_SELECT_RUN + "WHERE number = ?", (marked[0],))
    assert row is not None
    now = _run(row)
    links = links_when_dispatched(now, trace_link)
    connection.execute("UPDATE run SET trace_links = ? WHERE number = ?", (to_json(links), marked[0]))
    return msgspec.structs.replace(now, trace_links=links)


def _say_if_lost(run_id: RunId, noted: Future[Run]) -> None:
    if (error := noted.exception()) is not None:
        _log.warning("run %s was handed over, and will be again at the next start: %s", run_id, error)


def _record(connection: Connection, run_id: RunId, fact: Fact) -> Run:
    row = connection.one(_SELECT_RUN + "WHERE run_id = ?", (run_id,))
    if row is None:
        raise store_rules.run_not_found(run_id)
    number, last_seq, run = row[0], row[1], _run(row)
    known = connection.one(
        "SELECT 1 FROM event WHERE run_number = ? AND event_id = ?", (number, event_id(run_id, fact.key))
    )
    after = None if known else advance(run, fact)
    if after is None:
        return run
    _append(connection, number, after, fact, seq=last_seq + 1)
    return after


def _record_finished_hook(connection: Connection, run_id: RunId, state: FinishedHookState) -> Run:
    row = connection.one(_SELECT_RUN + "WHERE run_id = ?", (run_id,))
    if row is None:
        raise store_rules.run_not_found(run_id)
    run = _run(row)
    after = finished(run, state)
    if after is None:
        return run
    assert after.finalization is not msgspec.UNSET, "the outcome is in it"
    _keep_finished_hook(connection, row[0], after.finalization)
    return after


def _keep_finished_hook(connection: Connection, number: int, finalization: Finalization) -> None:
    connection.execute(
        "UPDATE run_finalization SET finished_hook = ? WHERE run_number = ?",
        (_json_or_null(finalization.finished_hook), number),
    )


def _finished_effect(connection: Connection, run_id: RunId, key: str) -> FinishedEffect | None:
    row = connection.one(
        "SELECT result FROM finished_effect JOIN run ON run.number = run_number WHERE run_id = ? AND key = ?",
        (run_id, key),
    )
    return None if row is None else FinishedEffect(result=msgspec.json.decode(row[0]))


def _append(connection: Connection, number: int, run: Run, fact: Fact, *, seq: int) -> None:
    """Store `run` as it is after `fact`, the event of `fact`, and what the desk wants remembered."""
    _insert_event(connection, number, run, fact, seq=seq)
    connection.execute(
        "UPDATE run SET status = ?, last_seq = ?, finished_at = ?, output = ?, error = ?, trace_links = ? "
        "WHERE number = ?",
        (
            run.status.value,
            seq,
            _text_or_null(run.finished_at),
            _json_or_null(run.output),
            _text_or_null(run.error),
            to_json(run.trace_links),
            number,
        ),
    )
    if fact.finished_hook is not None and run.finalization is not msgspec.UNSET:
        _keep_finished_hook(connection, number, run.finalization)


def _insert_event(connection: Connection, number: int, run: Run, fact: Fact, *, seq: int) -> None:
    event = event_of(run, fact, seq=seq)
    connection.execute(
        "INSERT INTO event (run_number, seq, event_id, type, desk_id, document) VALUES (?, ?, ?, ?, ?, ?)",
        (number, seq, event.event_id, event.type.value, _text_or_null(event.desk_id), to_json(event)),
    )
    if fact.memory is not None:
        _remember(connection, fact.memory)


def _remember(connection: Connection, record: MemoryRecord) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO memory (workflow_id, workflow_version, desk_id, namespace, key, data, updated_at, "
        "expires_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (*_memory_key(record.at), to_json(record.data), record.updated_at, record.expires_at_ms),
    )


def _memory_key(at: MemoryKey) -> tuple[SqlValue, ...]:
    return (at.workflow_id, at.workflow_version, at.desk_id, at.namespace, at.key)


def _run(row: Row) -> Run:
    (_, _, run_id, workflow_id, version, status, started_at, finished_at, run_input, *rest) = row
    (output, error, links, contract, hook) = rest
    return Run(
        run_id=run_id,
        workflow_id=workflow_id,
        workflow_version=version,
        status=RunStatus(status),
        started_at=started_at,
        finished_at=_or_unset(finished_at),
        input=msgspec.UNSET if run_input is None else msgspec.json.decode(run_input),
        output=msgspec.UNSET if output is None else msgspec.json.decode(output),
        error=_or_unset(error),
        trace_links=msgspec.json.decode(links, type=tuple[TraceLink, ...]),
        finalization=msgspec.UNSET if contract is None else _finalization(contract, hook),
    )


def _finalization(contract: str, hook: str | None) -> Finalization:
    return Finalization(
        contract=msgspec.json.decode(contract, type=FinalizationContract),
        finished_hook=msgspec.UNSET if hook is None else msgspec.json.decode(hook, type=FinishedHookState),
    )


def _list_of(rows: Sequence[Row]) -> bytes:
    """Documents as one JSON list. They are stored in their wire form, so nobody has to read them."""
    return f"[{','.join([document for (document,) in rows])}]".encode()


def _event(document: str) -> TimelineEvent:
    return msgspec.json.decode(document, type=TimelineEvent)


def _json_or_null(value: object) -> str | None:
    """SQL NULL for a payload that is not there; a payload that is JSON null is the text `null`."""
    return None if value is msgspec.UNSET else to_json(value)


def _text_or_null(value: str | msgspec.UnsetType) -> str | None:
    return None if value is msgspec.UNSET else value


def _or_unset(value: T | None) -> T | msgspec.UnsetType:
    return msgspec.UNSET if value is None else value
