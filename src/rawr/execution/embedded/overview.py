"""What people ask about an engine: what it has to do, which runs there were, and what one run waits for.

Questions only, each inside one snapshot. None gets slower with the number of runs that have ended: what is counted is
what is ahead, and lists have a limit and go on after a cursor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from rawr.execution.embedded.model import EngineRunStatus
from rawr.ids import ulid
from rawr.storage.sqlite import Connection, one, rows
from rawr.wire import JsonValue

DAY_MS: Final = 24 * 3600 * 1000
LIMIT_MAX: Final = 1000


class Served(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A function that an engine offers."""

    fn_id: str
    version: str


class Worker(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An engine that works on the file, or has."""

    owner: str
    slot: int | None
    leases: int
    serves: tuple[Served, ...]
    is_alive: bool = True
    pids: tuple[int, ...] = ()
    """Of its process, where the system tells."""


class CronTick(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    fn_id: str
    expression: str
    next_at_ms: int


class Ahead(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What there is to do, in calls and sleeps. Each is in one of the first five."""

    due: int = 0
    under_way: int = 0
    parked: int = 0
    """Without room under a concurrency limit, or held."""
    held_runs: int = 0
    """Runs whose code nobody has any more."""
    later: int = 0
    """Retries, and runs of events that are still to come."""
    sleeping: int = 0
    waiting: int = 0
    """Steps that wait for an event or for another function."""
    gathering: int = 0
    """Batches and debounces that are not full or quiet yet."""
    unrouted: int = 0
    """Events that were accepted while no engine worked."""
    oldest_due_ms: int | None = None
    next_at_ms: int | None = None
    """When the next thing happens by itself, of what is not due."""

    @property
    def is_busy(self) -> bool:
        """Whether an engine that works has something to do right now."""
        return bool(self.due or self.under_way or self.unrouted)


class Overview(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    now_ms: int
    open_runs: dict[str, int]
    """Runs that have not ended, by status."""
    ended_last_day: dict[str, int]
    ahead: Ahead
    workers: tuple[Worker, ...]
    crons: tuple[CronTick, ...]


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


def overview(connection: Connection, now_ms: int) -> Overview:
    ended = "SELECT status, count(*) FROM runs WHERE ended_at IS NOT NULL AND ended_at >= ? GROUP BY status"
    return Overview(
        now_ms=now_ms,
        open_runs=dict(rows(connection, "SELECT status, count(*) FROM runs WHERE ended_at IS NULL GROUP BY status")),
        ended_last_day=dict(rows(connection, ended, (now_ms - DAY_MS,))),
        ahead=ahead(connection, now_ms),
        workers=_workers(connection),
        crons=tuple(
            CronTick(fn_id=fn_id, expression=expression, next_at_ms=tick_at)
            for fn_id, expression, tick_at in rows(
                connection, "SELECT fn_id, expression, tick_at FROM crons ORDER BY tick_at, fn_id"
            )
        ),
    )


def ahead(connection: Connection, now_ms: int) -> Ahead:
    queue = one(connection, _QUEUE, (now_ms,))
    others = one(connection, _OTHERS)
    assert queue is not None
    assert others is not None
    due, under_way, parked, later, sleeping, oldest_due, next_job = queue
    waiting, gathering, unrouted, next_timer, held_runs = others
    return Ahead(
        due=due or 0,
        under_way=under_way or 0,
        parked=parked or 0,
        held_runs=held_runs,
        later=later or 0,
        sleeping=sleeping or 0,
        waiting=waiting,
        gathering=gathering,
        unrouted=unrouted,
        oldest_due_ms=oldest_due,
        next_at_ms=min((at for at in (next_job, next_timer) if at is not None), default=None),
    )


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
# The queue holds what is ahead and nothing else, so one pass over it costs what there is to say.
_QUEUE: Final = """
SELECT
  sum(lease_owner IS NULL AND parked_on IS NULL AND due_at <= ?1),
  sum(lease_owner IS NOT NULL),
  sum(lease_owner IS NULL AND parked_on IS NOT NULL),
  sum(lease_owner IS NULL AND parked_on IS NULL AND due_at > ?1 AND kind = 'call'),
  sum(lease_owner IS NULL AND parked_on IS NULL AND due_at > ?1 AND kind = 'sleep'),
  min(CASE WHEN lease_owner IS NULL AND parked_on IS NULL AND due_at <= ?1 THEN due_at END),
  min(CASE WHEN lease_owner IS NULL AND parked_on IS NULL AND due_at > ?1 THEN due_at END)
FROM queue
"""
_OTHERS: Final = """
SELECT (SELECT count(*) FROM waits),
  (SELECT count(*) FROM debounces) + (SELECT count(*) FROM batches),
  (SELECT count(*) FROM events WHERE routed = 0),
  (SELECT min(due_at) FROM timers WHERE kind <> 'cron'),
  (SELECT count(*) FROM runs WHERE held_at IS NOT NULL)
"""


def _workers(connection: Connection) -> tuple[Worker, ...]:
    slots: dict[str, int] = dict(rows(connection, "SELECT owner, slot FROM owners"))
    leases: dict[str, int] = dict(
        rows(connection, "SELECT lease_owner, count(*) FROM queue WHERE lease_owner IS NOT NULL GROUP BY lease_owner")
    )
    serves: dict[str, list[Served]] = {}
    for owner, fn_id, version in rows(connection, "SELECT owner, fn_id, version FROM offers ORDER BY fn_id"):
        serves.setdefault(owner, []).append(Served(fn_id=fn_id, version=version))
    return tuple(
        Worker(owner=owner, slot=slots.get(owner), leases=leases.get(owner, 0), serves=tuple(serves.get(owner, ())))
        for owner in sorted({*serves, *leases}, key=lambda owner: (slots.get(owner, 999), owner))
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
