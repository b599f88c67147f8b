"""Runs and events as people list them, and all that there is of one run.

Questions only, each inside one snapshot. Lists have a limit and go on after a cursor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from rawr.execution.embedded.model import EngineRunStatus
from rawr.ids import ulid
from rawr.storage.sqlite import Connection, one, rows
from rawr.wire import JsonValue

LIMIT_MAX: Final = 1000


class RunRow(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    run_id: str
    fn_id: str
    event_name: str
    event_id: str
    status: EngineRunStatus
    steps: int
    queued_at_ms: int
    started_at_ms: int | None
    ended_at_ms: int | None
    rerun_of: str | None
    held_reason: str | None = None
    error: JsonValue = None


class StepRow(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A step that has ended, in the order in which they did."""

    step_id: str
    name: str
    attempts: int
    ended_at_ms: int
    output: JsonValue = None
    error: JsonValue = None


class Job(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A call or a sleep that the run has ahead."""

    kind: str
    name: str
    attempt: int
    due_at_ms: int
    is_under_way: bool
    parked_on: str | None
    crashes: int


class Wait(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A step that something else ends."""

    name: str
    event_name: str | None
    """None when it waits for the end of a function that it invoked."""
    condition: str | None
    until_ms: int | None


class RunDetail(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    run: RunRow
    event: JsonValue
    output: JsonValue
    steps: tuple[StepRow, ...]
    jobs: tuple[Job, ...]
    waits: tuple[Wait, ...]


class EventRow(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    ulid: str
    event_id: str
    name: str
    received_at_ms: int
    starts_at_ms: int | None
    is_routed: bool
    runs: tuple[str, ...]


class RunsWanted(msgspec.Struct, frozen=True, kw_only=True):
    status: EngineRunStatus | None = None
    fn_id: str | None = None
    before: str | None = None
    """A run id: only older ones."""
    queued_from_ms: int | None = None
    limit: int = 20


def runs(connection: Connection, wanted: RunsWanted) -> list[RunRow]:
    """Newest first."""
    conditions: list[str] = ["1"]
    values: list[str | int] = []
    # The id of a run is never from before the time it was queued at, so it bounds how far back the search goes.
    since_id = None if wanted.queued_from_ms is None else ulid(wanted.queued_from_ms, bytes(10))
    for condition, value in (
        (" r.status = ?", None if wanted.status in (None, EngineRunStatus.WAITING) else wanted.status.value),
        (" r.fn_id = ?", wanted.fn_id),
        (" r.run_id < ?", wanted.before),
        (" r.run_id >= ?", since_id),
        (" r.queued_at >= ?", wanted.queued_from_ms),
    ):
        if value is not None:
            conditions.append(condition)
            values.append(value)
    # The planner knows the partial index of what went wrong, and that of what is open, only by these words.
    if wanted.status in (EngineRunStatus.FAILED, EngineRunStatus.CANCELLED):
        conditions.append(" r.status IN ('failed', 'cancelled')")
    elif wanted.status is EngineRunStatus.WAITING:
        conditions.append(" r.held_at IS NOT NULL")
    elif wanted.status in (EngineRunStatus.QUEUED, EngineRunStatus.RUNNING):
        conditions.append(" r.ended_at IS NULL AND r.held_at IS NULL")
    sql = f"{_RUN} WHERE {' AND '.join(conditions)} ORDER BY r.run_id DESC LIMIT ?"
    return [_run_row(row) for row in rows(connection, sql, (*values, min(wanted.limit, LIMIT_MAX)))]


def run_ids_of(connection: Connection, given: str) -> list[str]:
    """The run with this id, or the runs that the event with this id has started, newest first."""
    if one(connection, "SELECT 1 FROM runs WHERE run_id = ?", (given,)) is not None:
        return [given]
    sql = (
        "SELECT r.run_id FROM events e JOIN runs r ON r.event_ulid = e.ulid WHERE e.event_id = ?"
        " ORDER BY r.run_id DESC LIMIT 50"
    )
    return [run_id for (run_id,) in rows(connection, sql, (given,))]


def run_detail(connection: Connection, run_id: str) -> RunDetail | None:
    found = rows(connection, f"{_RUN} WHERE r.run_id = ?", (run_id,))
    if not found:
        return None
    row = one(
        connection,
        "SELECT e.body, r.output FROM runs r JOIN events e ON e.ulid = r.event_ulid WHERE r.run_id = ?",
        (run_id,),
    )
    assert row is not None
    event, output = row
    return RunDetail(
        run=_run_row(found[0]),
        event=msgspec.json.decode(event),
        output=None if output is None else msgspec.json.decode(output),
        steps=tuple(_step_row(step) for step in rows(connection, _STEPS, (run_id,))),
        jobs=tuple(
            Job(
                kind=kind,
                name=name,
                attempt=attempt + 1,
                due_at_ms=due_at,
                is_under_way=owner is not None,
                parked_on=parked_on,
                crashes=crashes,
            )
            for kind, name, attempt, due_at, owner, parked_on, crashes in rows(connection, _JOBS, (run_id,))
        ),
        waits=tuple(
            Wait(name=name, event_name=event_name, condition=condition, until_ms=until)
            for name, event_name, condition, until in rows(connection, _WAITS, (run_id,))
        ),
    )


def events(connection: Connection, *, name: str | None, before: str | None, limit: int) -> list[EventRow]:
    """Newest first. `before` is the ULID of an event: only older ones."""
    conditions, values = ["1"], []
    for condition, value in (("name = ?", name), ("ulid < ?", before)):
        if value is not None:
            conditions.append(condition)
            values.append(value)
    sql = (
        "SELECT ulid, event_id, name, received_at, starts_at, routed FROM events"  # noqa: S608 - constant texts
        f" WHERE {' AND '.join(conditions)} ORDER BY ulid DESC LIMIT ?"
    )
    return [
        EventRow(
            ulid=ulid,
            event_id=event_id,
            name=event_name,
            received_at_ms=received_at,
            starts_at_ms=starts_at,
            is_routed=bool(routed),
            runs=runs_of_event(connection, ulid),
        )
        for ulid, event_id, event_name, received_at, starts_at, routed in rows(
            connection, sql, (*values, min(limit, LIMIT_MAX))
        )
    ]


def is_routed(connection: Connection, ulid: str) -> bool:
    row = one(connection, "SELECT routed FROM events WHERE ulid = ?", (ulid,))
    return row is None or bool(row[0])


def ended_before(connection: Connection, before_ms: int) -> int:
    row = one(connection, "SELECT count(*) FROM runs WHERE ended_at IS NOT NULL AND ended_at < ?", (before_ms,))
    assert row is not None
    return int(row[0])


def functions_with_open_runs(connection: Connection) -> list[str]:
    return [fn_id for (fn_id,) in rows(connection, "SELECT DISTINCT fn_id FROM runs WHERE ended_at IS NULL")]


def runs_of_event(connection: Connection, ulid: str) -> tuple[str, ...]:
    """The runs that it has started, alone or in a batch, oldest first; up to 50."""
    sql = (
        "SELECT run_id FROM runs WHERE event_ulid = ?1 UNION SELECT run_id FROM run_events WHERE event_ulid = ?1"
        " ORDER BY run_id LIMIT 50"
    )
    return tuple(run_id for (run_id,) in rows(connection, sql, (ulid,)))


_RUN: Final = (
    "SELECT r.run_id, r.fn_id, e.name, e.event_id, r.status, r.steps, r.queued_at, r.started_at, r.ended_at,"
    " r.rerun_of, r.held_reason, r.error FROM runs r JOIN events e ON e.ulid = r.event_ulid"
)
_STEPS: Final = "SELECT step_id, name, attempt, ended_at, memo FROM steps WHERE run_id = ? ORDER BY seq"
_JOBS: Final = (
    "SELECT kind, name, attempt, due_at, lease_owner, parked_on, crashes FROM queue WHERE run_id = ?"
    " ORDER BY due_at, rowid"
)
_WAITS: Final = (
    "SELECT w.name, w.event_name, w.condition, t.due_at FROM waits w LEFT JOIN timers t ON t.timer_id = w.wait_id"
    " WHERE w.run_id = ? ORDER BY w.rowid"
)


def _run_row(row: Sequence[Any]) -> RunRow:
    run_id, fn_id, event_name, event_id, status, steps, queued_at, started_at, ended_at, rerun_of, held, error = row
    return RunRow(
        run_id=run_id,
        fn_id=fn_id,
        event_name=event_name,
        event_id=event_id,
        status=EngineRunStatus.WAITING if held is not None and ended_at is None else EngineRunStatus(status),
        steps=steps,
        queued_at_ms=queued_at,
        started_at_ms=started_at,
        ended_at_ms=ended_at,
        rerun_of=rerun_of,
        held_reason=held,
        error=None if error is None else msgspec.json.decode(error),
    )


def _step_row(row: Sequence[Any]) -> StepRow:
    step_id, name, attempt, ended_at, memo = row
    kept = msgspec.json.decode(memo)
    parts = kept if isinstance(kept, dict) else {}
    return StepRow(
        step_id=step_id,
        name=name,
        attempts=attempt + 1,
        ended_at_ms=ended_at,
        output=parts.get("data"),
        error=parts.get("error"),
    )
